// The page in a real browser while something is so: what it shows then, as one line of JSON.
//   node scene.mjs NODE_MODULES CHROMIUM URL OUTPUT '[{"name": "empty", "width": 390, "scheme": "dark",
//     "waits": [["#level", "OK"]], "reads": {"roles": "#roles-t tbody tr"}}]'
// ``waits``: until an element that the selector finds holds the text. ``reads``: the texts, cell by
// cell, of what a selector finds. ``blocks``: what does not come through, as patterns of addresses;
// ``loses``: what from then on does not either, and ``then``: what is waited for after that.
// Waits for what the page shows, and never for a time to pass.

import { join } from "node:path";

import { browser, opened, violations } from "./browser.mjs";

const [, , url, output, scenes] = process.argv.slice(2);

async function until(page, waits) {
  for (const [selector, text] of waits) await page.locator(selector, { hasText: text }).first().waitFor();
}

const block = (page, patterns) => Promise.all(patterns.map((pattern) => page.route(pattern, (route) => route.abort())));

async function look(scene) {
  const { page, errors } = await opened(scene);
  await block(page, scene.blocks ?? []);
  await page.goto(url);
  await page.locator("body[data-ready=yes]").waitFor();
  await until(page, scene.waits);
  await block(page, scene.loses ?? []);
  await until(page, scene.then ?? []);
  const found = { name: scene.name, texts: {}, violations: await violations(page) };
  found.sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  for (const [name, selector] of Object.entries(scene.reads)) {
    found.texts[name] = await page.locator(selector).evaluateAll((elements) => elements.map((element) => {
      const cells = [...element.querySelectorAll("th, td")];
      return (cells.length ? cells : [element]).map((cell) => cell.innerText.trim());
    }));
  }
  await page.screenshot({ path: join(output, `${scene.name}-${scene.width}-${scene.scheme}.png`), fullPage: true });
  // The browser tells of each request that was blocked.
  found.errors = errors.filter((text) => !text.includes("net::ERR_FAILED"));
  await page.context().close();
  return found;
}

const seen = [];
for (const scene of JSON.parse(scenes)) seen.push(await look(scene));
console.log(JSON.stringify(seen));
await browser.close();
