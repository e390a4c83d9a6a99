// The page in a real browser while something is so: what it shows then, as one line of JSON.
//   node scene.mjs NODE_MODULES CHROMIUM URL OUTPUT '[{"name": "empty", "width": 390, "scheme": "dark",
//     "waits": [["#level", "OK"]], "reads": {"roles": "#roles-t tbody tr"}}]'
// ``waits``: until an element that the selector finds holds the text. ``reads``: the texts, cell by
// cell, of what a selector finds. Waits for what the page shows, and never for a time to pass.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, output, scenes] = process.argv.slice(2);
const require = createRequire(join(modules, "scene.mjs"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE_MS = 600_000;

const browser = await chromium.launch({ executablePath, timeout: PATIENCE_MS, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

async function violations(page) {
  const session = await page.context().newCDPSession(page);
  const expression = `${axe};axe.run().then((found) => JSON.stringify(found.violations.map((v) => [v.id, ...v.nodes.map((n) => n.html)])))`;
  const { result } = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  await session.detach();
  return JSON.parse(result.value);
}

async function look(scene) {
  const context = await browser.newContext({ viewport: { width: scene.width, height: 900 }, colorScheme: scene.scheme });
  context.setDefaultTimeout(PATIENCE_MS);
  context.setDefaultNavigationTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) errors.push(message.text()); });
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(url);
  await page.locator("body[data-ready=yes]").waitFor();
  for (const [selector, text] of scene.waits) await page.locator(selector, { hasText: text }).first().waitFor();
  const found = { name: scene.name, texts: {}, violations: await violations(page) };
  found.sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  for (const [name, selector] of Object.entries(scene.reads)) {
    found.texts[name] = await page.locator(selector).evaluateAll((elements) => elements.map((element) => {
      const cells = [...element.querySelectorAll("th, td")];
      return (cells.length ? cells : [element]).map((cell) => cell.innerText.trim());
    }));
  }
  await page.screenshot({ path: join(output, `${scene.name}-${scene.width}-${scene.scheme}.png`), fullPage: true });
  found.errors = errors;
  await context.close();
  return found;
}

const seen = [];
for (const scene of JSON.parse(scenes)) seen.push(await look(scene));
console.log(JSON.stringify(seen));
await browser.close();
