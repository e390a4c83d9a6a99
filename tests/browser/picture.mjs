// One picture of the page, as somebody sees it who opens it.
//   node picture.mjs NODE_MODULES CHROMIUM URL FILE [quiet]
// ``quiet``: nobody waits. Says when it was painted first (and a page of nothing but text, the same
// minute), when all of it was there, and how long the page was busy at a stretch at most (0: never
// 50 ms), milliseconds.
// Waits for what the page shows, and never for a time to pass.

import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, executablePath, url, path, quiet] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "picture.mjs"))("playwright-core");
const PATIENCE_MS = 600_000;

const browser = await chromium.launch({ executablePath, timeout: PATIENCE_MS, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const page = await browser.newPage({ viewport: { width: 1280, height: 1080 }, colorScheme: "light" });
page.setDefaultTimeout(PATIENCE_MS);
page.setDefaultNavigationTimeout(PATIENCE_MS);
await page.addInitScript(() => {
  globalThis.busy = 0;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) globalThis.busy = Math.max(globalThis.busy, task.duration);
  }).observe({ type: "longtask", buffered: true });
});
const painted = () => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
await page.goto(`${url}stats?format=text`);
await page.locator("pre").waitFor();
const floor = await painted();
await page.goto(url);
await page.locator("body[data-ready=yes]").waitFor();
if (!quiet) await page.locator("#waiting-t tbody tr").first().waitFor();
for (const chart of ["latency", "wait", "tokens", "lag"]) await page.locator(`#c-${chart} canvas`).waitFor();
const { drawn, busy } = await page.evaluate(() => ({ drawn: performance.now(), busy: globalThis.busy }));
console.log(JSON.stringify({ first: await painted(), floor, drawn, busy }));
await page.screenshot({ path });
await browser.close();
