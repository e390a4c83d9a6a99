// Pictures of where time went: a call's attempts, and a job's calls and tools.

import { el, svg } from "./dom.js";
import { ms } from "./words.js";

const WIDTH = 1000;
const LEFT = 190;
const ROW = 26;
const NAMES = { queue: "in our queue", upstream: "waiting inside Ollama", load: "loading the model", prompt: "reading the prompt", answer: "answering", tool: "tool", gap: "nothing told" };
const PARTS = { queue: "queue", upstream_queue: "upstream", upstream_wait: "upstream", upstream: "upstream", load: "load", loading: "load", prompt: "prompt", model: "answer", llm: "answer", tools: "tool", tool: "tool" };

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function round(value) {
  const base = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * base).find((step) => step >= value);
}

function picture(rows, most, label) {
  const end = Math.max(most, 1);
  const height = 24 + rows.length * ROW;
  const at = (moment) => LEFT + (WIDTH - LEFT - 12) * Math.min(1, Math.max(0, moment / end));
  const step = round(end / 6);
  const marks = [];
  for (let moment = 0; moment <= end; moment += step) {
    marks.push(svg("line", { x1: at(moment), x2: at(moment), y1: 18, y2: height }),
      svg("text", { x: at(moment), y: 12, class: "axis", "text-anchor": "middle" }, moment ? ms(moment) : "0"));
  }
  const drawn = rows.flatMap((row, number) => {
    const y = 22 + number * ROW;
    return [svg("text", { x: 0, y: y + 15 }, clip(row.name, 28), svg("title", {}, row.name)),
      ...row.spans.filter((span) => span.to > span.from).map((span) =>
        svg("rect", { x: at(span.from), y: y + 3, height: 16, rx: 2, width: Math.max(1.5, at(span.to) - at(span.from)), class: `p-${span.part}` },
          svg("title", {}, `${NAMES[span.part] ?? span.part}: ${ms(span.to - span.from)}`)))];
  });
  const used = [...new Set(rows.flatMap((row) => row.spans.map((span) => span.part)))];
  const legend = el("ul", { class: "legend", "aria-label": "What the colours are" }, ...used.map((part) =>
    el("li", {}, svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" }, svg("rect", { width: 26, height: 8, class: `p-${part}` })), NAMES[part] ?? part)));
  const words = rows.map((row) => `${row.name}: ${row.spans.map((span) => `${NAMES[span.part] ?? span.part} ${ms(span.to - span.from)}`).join(", ")}`);
  const image = svg("svg", { class: "timeline", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${label}. ${words.join("; ")}` }, ...marks, ...drawn);
  return el("div", {}, legend, image);
}

function spansOf(attempt, end) {
  const asked = attempt.asked_ms ?? 0;
  const seated = attempt.seated_ms ?? attempt.ended_ms ?? end;
  const spans = [{ part: "queue", from: asked, to: seated }];
  if (attempt.dispatched_ms === null) return spans;
  const ended = attempt.ended_ms ?? end;
  let from = attempt.dispatched_ms;
  for (const [part, took] of [["upstream", attempt.upstream_wait_ms], ["load", attempt.load_ms], ["prompt", attempt.prompt_ms]]) {
    if (!took) continue;
    const to = Math.min(ended, from + took);
    spans.push({ part, from, to });
    from = to;
  }
  spans.push({ part: "answer", from, to: ended });
  return spans;
}

export function ofCall(call) {
  const end = call.call_e2e_latency_ms;
  const rows = (call.attempts ?? []).map((attempt) => ({ name: `${attempt.number}. ${attempt.model ?? ""}`, spans: spansOf(attempt, end) }));
  if (!rows.length) return el("p", { class: "quiet" }, "Nobody was asked, so there is nothing to draw.");
  return picture(rows, end, "Attempts in time");
}

export function ofJob(job) {
  const rows = job.timeline.map((entry) => entry.what === "tool"
    ? { name: `tool ${entry.name}`, spans: [{ part: "tool", from: entry.began_ms, to: entry.ended_ms }] }
    : { name: `${entry.llm_role ?? ""} ${entry.llm_model ?? ""}`.trim(), spans: entry.spans.map((span) => ({ part: PARTS[span.part] ?? "answer", from: span.began_ms, to: span.ended_ms })) });
  rows.sort((one, other) => (one.spans[0]?.from ?? 0) - (other.spans[0]?.from ?? 0));
  if (job.gaps.length) rows.push({ name: "gaps", spans: job.gaps.map((gap) => ({ part: "gap", from: gap.began_ms, to: gap.ended_ms })) });
  return rows.length ? picture(rows, job.total_ms, "Calls and tools in time") : el("p", { class: "quiet" }, "Nothing is known of it yet.");
}
