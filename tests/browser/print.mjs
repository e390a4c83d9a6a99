// The page on paper: what it looks like to a printer, as one line of JSON.
//   node print.mjs NODE_MODULES CHROMIUM URL OUTPUT
// Somebody who reads it dark, on a wide screen, prints it; then the explanation of a call.
// Waits for what the page shows, and never for a time to pass.

import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { browser, opened } from "./browser.mjs";

const [, , url, output] = process.argv.slice(2);
// A4 on its side, less its margins, at 96 to the inch.
const PAPER = { width: 1031, height: 702 };

/** What the style for paper makes of the page: what is cut off, what is shown, in which colours. */
function laidOut() {
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility()).map((element) => element.id || element.tagName);
  const { color, backgroundColor } = getComputedStyle(document.body);
  const cut = [...document.querySelectorAll(".scroll, .chart, main, dialog[open], dialog[open] pre")].filter((element) => element.checkVisibility()
    && (element.scrollWidth > element.clientWidth + 1 || element.scrollHeight > element.clientHeight + 1)).map((element) => element.getAttribute("aria-label") ?? (element.id || element.tagName));
  return { color, backgroundColor, cut, sideways: document.documentElement.scrollWidth - innerWidth, controls: shown("nav, #find, #theme, .spans, #explain-close"), sections: shown("section"), rows: shown("#requests-t tbody tr").length,
    charts: [...document.querySelectorAll(".chart canvas")].map((canvas) => canvas.getBoundingClientRect()).filter((box) => box.height >= 100 && box.right <= innerWidth).length };
}

async function printed(page, name) {
  writeFileSync(join(output, `${name}.pdf`), await page.pdf({ preferCSSPageSize: true }));
  const told = await page.locator("#printed").textContent();
  await page.emulateMedia({ media: "print", colorScheme: "dark" });
  await page.setViewportSize(PAPER);
  const found = await page.evaluate(laidOut);
  await page.screenshot({ path: join(output, `${name}.png`), fullPage: true });
  await page.emulateMedia({ media: "screen", colorScheme: "dark" });
  return { ...found, told, theme: await page.evaluate(() => document.documentElement.dataset.theme) };
}

const { page, errors } = await opened({ width: 1440, scheme: "dark" });
await page.addInitScript(() => localStorage.setItem("theme", "dark"));
await page.goto(url);
await page.locator("body[data-ready=yes]").waitFor();
for (const filled of ["#roles-t", "#slo-t", "#requests-t", "#asked-t", "#jobs-t", "#budgets-t"]) await page.locator(`${filled} tbody tr`).first().waitFor();
for (const chart of ["latency", "wait", "tokens", "lag"]) await page.locator(`#c-${chart} canvas`).waitFor();
const whole = await printed(page, "page");
await page.locator("#jobs-t button.open").first().click();
await page.locator("#explain[data-shown] .timeline").waitFor();
const explained = await printed(page, "explained");
console.log(JSON.stringify({ whole, explained, errors }));
await browser.close();
