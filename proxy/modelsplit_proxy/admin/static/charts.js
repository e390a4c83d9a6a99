// The charts, drawn by uPlot from what the records say.

import uPlot from "./uplot.js";
import { $, el, svg } from "./dom.js";
import { ms, seconds } from "./words.js";

const ROLES = ["PLANNER", "EXECUTOR", "HEAVY", "CLOUD", "CHAT"];
// Told apart without colour too.
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3]];
// As the style has it; on paper, where it follows from the width, there is none.
const HEIGHT = 190;
const charts = new Map();

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function drawLegend() {
  $("legend").replaceChildren(...ROLES.map((role, at) => {
    const line = svg("line", { x1: 0, y1: 4, x2: 26, y2: 4, "stroke-width": 2, "stroke-dasharray": DASHES[at].join(" ") });
    line.style.stroke = `var(--r${at + 1})`;
    return el("li", {}, svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" }, line), role);
  }));
}

export function drawCharts(history) {
  const times = Array.from({ length: history.steps }, (_, at) => history.from + at * history.step_s);
  const roles = ROLES.filter((role) => history.series[role]);
  const of = (name, scale) => roles.map((role) => history.series[role][name].map((value) => value === null ? null : value / scale));
  draw("c-latency", times, roles, of("latency_p95_ms", 1000), "Latency P95 by role, seconds", seconds);
  draw("c-wait", times, roles, of("wait_p95_ms", 1000), "Queue wait P95 by role, seconds", seconds);
  draw("c-tokens", times, roles, of("tokens_per_s", 1), "Output tokens a second by role", (value) => `${value.toFixed(1)} tokens/s`);
  draw("c-lag", times, ["loop"], [history.lag_ms], "Event-loop lag, milliseconds", ms);
}

// The newest value and the largest in words, for who cannot see the picture.
function told(title, names, series, unit) {
  const each = names.map((name, at) => {
    const known = series[at].filter((value) => value !== null);
    return known.length ? `${name}: ${unit(known.at(-1))} last, ${unit(Math.max(...known))} most` : `${name}: nothing`;
  });
  return `${title}. ${each.join("; ") || "No calls"}.`;
}

function draw(id, times, names, series, title, unit) {
  const box = $(id);
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", told(title, names, series, unit));
  const look = `${names} ${document.documentElement.dataset.theme ?? ""} ${matchMedia("(prefers-color-scheme: dark)").matches} ${box.clientWidth}`;
  const known = charts.get(id);
  if (known?.look === look) {
    known.chart.setData([times, ...series]);
    return;
  }
  known?.chart.destroy();
  box.replaceChildren();
  charts.set(id, { look, chart: new uPlot(options(box, names), [times, ...series], box) });
}

function options(box, names) {
  const axis = { stroke: style("--quiet"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line"), width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
  return {
    width: box.clientWidth,
    height: box.clientHeight || HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    scales: { y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
    axes: [{ ...axis, values: ticks, space: 70, size: 24 }, { ...axis, size: 46 }],
    series: [{}, ...names.map((name) => line(name))],
  };
}

function ticks(_, values) {
  const long = values.length > 1 && values[1] - values[0] >= 43200;
  return values.map((value) => new Date(value * 1000).toLocaleString("en-GB",
    long ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" }));
}

function line(name) {
  const at = Math.max(0, ROLES.indexOf(name));
  return {
    label: name,
    stroke: style(`--r${at + 1}`),
    width: 1.75,
    dash: DASHES[at],
    // Once a minute is often enough for the lag, which has no line otherwise.
    spanGaps: name === "loop",
    points: { size: 5, show: (chart, number, low, high) => lonely(chart.data[number], low, high) },
  };
}

// Points only where there is no line to see: a value with nothing on either side.
function lonely(values, low, high) {
  for (let at = low; at <= high; at++) {
    if (values[at] !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null) return true;
  }
  return false;
}
