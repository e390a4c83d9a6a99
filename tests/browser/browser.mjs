// What every script here begins with: a browser, and axe's findings on a page of it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath] = process.argv.slice(2);
const require = createRequire(join(modules, "browser.mjs"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 600_000;

export const browser = await chromium.launch({ executablePath, timeout: PATIENCE_MS, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

/** A new page for a view, and what goes wrong on it: filled as it happens. */
export async function opened(view) {
  const context = await browser.newContext({ viewport: { width: view.width, height: 900 }, colorScheme: view.scheme });
  context.setDefaultTimeout(PATIENCE_MS);
  context.setDefaultNavigationTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(String(error)));
  return { page, errors };
}

export async function violations(page) {
  const session = await page.context().newCDPSession(page);
  const expression = `${axe};axe.run().then((found) => JSON.stringify(found.violations.map((v) => [v.id, ...v.nodes.map((n) => n.html)])))`;
  const { result } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  await session.detach();
  return JSON.parse(result.value);
}
