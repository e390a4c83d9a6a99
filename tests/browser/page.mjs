// The page in a real browser. Says what it saw as one line of JSON; argument: an array of views.
//   node page.mjs NODE_MODULES CHROMIUM URL OUTPUT '[{"width": 1440, "scheme": "light"}]'
// Waits for what the page shows, and never for a time to pass.

import { join } from "node:path";

import { browser, opened, violations } from "./browser.mjs";

const [, , base, output, views] = process.argv.slice(2);
const seen = [];

async function drawn(page) {
  await page.locator("body[data-ready=yes]").waitFor();
  for (const filled of ["#roles-t", "#slo-t", "#requests-t", "#asked-t", "#jobs-t", "#budgets-t"]) {
    await page.locator(`${filled} tbody tr`).first().waitFor();
  }
  await page.locator("#c-lag canvas").waitFor();
}

async function look(view) {
  const { page, errors } = await opened(view);
  const hosts = new Set();
  page.on("dialog", (dialog) => { errors.push(`dialog ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => hosts.add(new URL(request.url()).host));
  await page.goto(base);
  await drawn(page);
  const found = { view, title: await page.title(), page: await violations(page) };
  found.sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  found.planner = await page.locator("#roles-t tbody tr").first().allInnerTexts();
  found.models = await page.locator("#asked-t tbody th").allInnerTexts();
  found.images = await page.locator("main img").count();
  await page.screenshot({ path: join(output, `${view.width}-${view.scheme}.png`), fullPage: true });

  // With the keyboard alone: open the explanation of a call, close it, and be where one was.
  const id = await page.locator("#requests-t button.open").last().getAttribute("data-id");
  await page.locator(`#requests-t button.open[data-id="${id}"]`).focus();
  await page.keyboard.press("Enter");
  await page.locator(`#explain[data-shown="${id}"] .timeline`).waitFor();
  found.call = await violations(page);
  found.address = new URL(page.url()).search === `?request=${id}`;
  await page.screenshot({ path: join(output, `${view.width}-${view.scheme}-call.png`) });
  await page.keyboard.press("Escape");
  await page.locator("#explain").waitFor({ state: "hidden" });
  // The address is told of the end a moment after it is seen.
  await page.waitForURL((url) => url.search === "");
  found.closed = new URL(page.url()).search === "";

  await page.locator("#jobs-t button.open").first().click();
  await page.locator("#explain[data-shown] .timeline").waitFor();
  found.job = await violations(page);
  await page.locator("#explain-close").click();

  // Looked for by how it begins, and among those that failed.
  await page.locator("#find-id").fill(id.slice(0, 8));
  await page.keyboard.press("Enter");
  await page.locator(`#explain[data-shown="${id.slice(0, 8)}"] pre`).waitFor();
  found.begun = (await page.locator("#explain pre").innerText()).includes(id);
  await page.keyboard.press("Escape");
  await page.locator("#explain").waitFor({ state: "hidden" });
  await page.locator("#filter [name=outcome]").selectOption("failed");
  await page.locator("#requests-t td.ok").first().waitFor({ state: "detached" });
  found.failed = await page.locator("#requests-t tbody td.bad").allInnerTexts();
  found.filtered = await page.locator("#requests-t tbody tr").count();

  // A link that somebody was sent.
  await page.goto(`${base}?request=${id}`);
  await page.locator(`#explain[data-shown="${id}"] pre`).waitFor();
  found.linked = (await page.locator("#explain pre").innerText()).includes(id);
  await page.goto(`${base}?request=nobody-has-this`);
  await page.locator("#explain .notice").waitFor();
  found.unknown = await page.locator("#explain .notice").innerText();
  // What it was told there is a 404, which the browser calls an error.
  found.errors = errors.filter((text) => !text.includes("404"));
  found.hosts = [...hosts];
  await page.context().close();
  return found;
}

async function withoutScripts() {
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(base);
  return page.locator("noscript").innerText();
}

for (const view of JSON.parse(views)) seen.push(await look(view));
console.log(JSON.stringify({ views: seen, noscript: await withoutScripts() }));
await browser.close();
