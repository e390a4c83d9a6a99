// Starts the page: what is so now comes by itself, what the records say is asked now and then.

import { $, say } from "./dom.js";
import { watch } from "./live.js";
import { drawNow, drawRoles } from "./now.js";
import { drawCharts, drawLegend } from "./charts.js";
import { ask, startCalls } from "./calls.js";
import { drawExperiments, drawJobs, drawModels, drawSlo } from "./later.js";
import { SPAN, clock } from "./words.js";

const HISTORY_MS = 5000;
const STATES = { live: "live", polling: "asking", stale: "no answer" };
const THEMES = [["", "Auto"], ["light", "Light"], ["dark", "Dark"]];

let now = null;
let past = null;

function chosenSpan() {
  return document.querySelector("input[name=span]:checked").value;
}

async function lookBack() {
  const span = chosenSpan();
  for (const id of ["roles-span", "charts-span", "models-span"]) say($(id), SPAN[span]);
  try {
    const found = await ask(`dashboard/history?span=${span}`);
    if (span !== chosenSpan()) return;
    past = found;
  } catch {
    return; // The verdict says what is wrong with the records.
  }
  if (now !== null) drawRoles(now, past);
  drawCharts(past);
  drawModels(past);
}

function redraw() {
  if (past !== null) drawCharts(past);
}

const root = document.documentElement;

function theme() {
  let at = Math.max(0, THEMES.findIndex(([name]) => name === localStorage.getItem("theme")));
  const apply = () => {
    const [name, text] = THEMES[at];
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    say($("theme"), text);
    $("theme").setAttribute("aria-label", `${text} colours`);
    redraw();
  };
  $("theme").addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    localStorage.setItem("theme", THEMES[at][0]);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("afterprint", apply);
  apply();
}

// On paper: light, whatever the screen is, and with the moment that it shows.
function print() {
  root.dataset.theme = "light";
  redraw();
  if (now !== null) say($("printed"), `As it stood at ${new Date(now.at * 1000).toString()}, ${location.href}`);
}

function often(work, every) {
  const turn = async () => {
    if (!document.hidden) await work().catch(() => {});
    setTimeout(turn, every);
  };
  turn();
}

theme();
drawLegend();
startCalls();
watch((snapshot) => {
  now = snapshot;
  drawNow(now, past);
  document.body.dataset.ready = "yes";
}, (state) => {
  $("link").dataset.state = state;
  say($("link-text"), state === "stale" && now !== null ? `stale since ${clock(now.at * 1000)}` : STATES[state]);
});
often(lookBack, HISTORY_MS);
often(drawJobs, 10000);
often(drawSlo, 60000);
often(drawExperiments, 60000);
for (const input of document.querySelectorAll("input[name=span]")) input.addEventListener("change", lookBack);
addEventListener("resize", redraw);
addEventListener("beforeprint", print);
