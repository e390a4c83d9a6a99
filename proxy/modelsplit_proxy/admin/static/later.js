// The panels that change slowly: models, objectives, experiments, jobs.

import { $, el, fill, meter, opener, say, show } from "./dom.js";
import { NONE, count, ms, rare, seconds, short, time, usd } from "./words.js";
import { ask } from "./calls.js";

const MODELS = ["head", "n", "n", "", "n", "n", "n", "n", "n"];
const SLO = ["n", "", "", "n", "n", "n", "bars", "wide"];
const JOBS = ["", "", "n", "n", "n", "n", "n"];
const MEASURES = { p50: ["P50", 1, " s"], p95: ["P95", 1, " s"], errors: ["errors", 100, " %"], schema: ["schema unfit", 100, " %"], cost: ["cost a call", 1, " USD"], tokens_per_s: ["tokens/s", 1, ""] };

export function drawModels(history) {
  fill($("asked-t"), MODELS, history.models.map((row) => [row.model, [
    row.model, count(row.calls), rare(row.failed), row.causes.map(([cause, n]) => `${cause} ${n}`).join(", ") || NONE,
    row.tokens_per_s === null ? NONE : row.tokens_per_s.toFixed(1), count(row.tokens), ms(row.load_ms.p50), ms(row.load_ms.most),
    row.unpriced === row.calls ? NONE : usd(row.cost_usd),
  ]]));
  const notes = [];
  if (history.other_models) notes.push(`${count(history.other_models)} other models with fewer calls are left out.`);
  if (history.sampled) notes.push(`Sums are of the newest ${count(history.calls)} calls, since ${time(history.sums_since * 1000).text}; charts are of up to 200 calls a step.`);
  say($("models-note"), notes.join(" "));
  show($("models-note"), notes.length > 0);
  say($("roles-note"), history.sampled ? notes.at(-1) : "");
  show($("roles-note"), history.sampled);
}

const KINDS = { pass: "ok", ok: "ok", fail: "bad", breach: "bad", breached: "bad" };
const MARKS = { ok: "✔ ", bad: "✖ ", warn: "▲ " };

function verdict(raw) {
  const kind = KINDS[raw.toLowerCase()] ?? "zero";
  return { text: (MARKS[kind] ?? "") + raw.replaceAll("_", " "), kind };
}

function value(number, unit) {
  if (number === null) return NONE;
  if (unit === "ms") return ms(number);
  if (unit === "s") return seconds(number);
  if (unit === "hours" || unit === "days") return `${Number(number.toFixed(2))} ${unit[0]}`;
  const scaled = unit === "share" || unit === "ratio" ? 100 * number : number;
  const text = Number.isInteger(scaled) ? count(scaled) : scaled.toPrecision(3);
  return unit === "share" || unit === "ratio" ? `${text} %` : `${text}${unit === "%" ? " %" : ""}`;
}

export async function drawSlo() {
  let report;
  try {
    report = await ask("dashboard/slo");
  } catch (error) {
    say($("slo-empty"), `Not judged: ${error.message}.`);
    return;
  }
  say($("slo-verdict"), report.verdict.replaceAll("_", " "));
  say($("slo-at"), `judged at ${time(Date.parse(report.at)).text}`);
  fill($("slo-t"), SLO, report.gates.flatMap((gate) => gate.objectives.map((row, at) => [`${gate.gate} ${at}`, [
    gate.gate, row.title, verdict(row.verdict), value(row.value, row.unit), value(row.bound_value, row.unit), count(row.n),
    row.budget_used === null || row.verdict === "not enough data" ? NONE : meter(Math.max(0, 1 - row.budget_used), row.budget_used > 1 ? "used up" : `${Math.round(100 * (1 - row.budget_used))} %`, row.budget_used > 0.8), row.note || "",
  ]])));
}

function estimate(measure, scale, unit) {
  if (!measure) return NONE;
  const show_ = (number) => number === null ? "?" : Number((number * scale).toPrecision(3));
  const known = measure.low !== null || measure.high !== null;
  const between = known ? `${show_(measure.low)} to ${show_(measure.high)}` : "no interval yet";
  return measure.value === null ? NONE : `${show_(measure.value)}${unit} (${between})`;
}

function experiment(test) {
  const state = test.enabled ? "running" : test.in_policy ? "switched off" : "no longer in the policy";
  const head = el("h3", {}, `${test.experiment} · ${test.llm_role}, by ${test.sticky}, ${state}`);
  if (!test.calls) return el("div", {}, head, el("p", { class: "quiet" }, "No calls yet."));
  const names = [...new Set(test.arms.flatMap((arm) => Object.keys(arm.measures)))];
  const rows = [["model", (arm) => arm.model ?? NONE], ["calls", (arm) => count(arm.calls)],
    ...(test.arms.some((arm) => arm.fallbacks) ? [["fell back", (arm) => `${count(arm.fallbacks)} of ${count(arm.answered)} answers`]] : []),
    ...names.map((name) => {
      const [title, scale, unit] = MEASURES[name] ?? [name, 1, ""];
      return [title, (arm) => estimate(arm.measures[name], scale, unit)];
    })];
  const table = el("table", {}, el("caption", { class: "hidden" }, test.experiment),
    el("thead", {}, el("tr", {}, el("td"), ...test.arms.map((arm) => el("th", { scope: "col" }, arm.arm)))),
    el("tbody", {}, ...rows.map(([title, of]) => el("tr", {}, el("th", { scope: "row" }, title), ...test.arms.map((arm) => el("td", {}, of(arm)))))));
  const found = test.findings.map((row) => el("li", {}, `${(MEASURES[row.measure] ?? [row.measure])[0]}: ${row.text}`));
  return el("div", {}, head, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Experiment ${test.experiment}` }, table), el("ul", {}, ...found));
}

export async function drawExperiments() {
  const { experiments } = await ask("dashboard/experiments");
  show($("experiments-empty"), experiments.length === 0);
  $("experiments-list").replaceChildren(...experiments.map(experiment));
}

function state(job) {
  const kind = { ok: "ok", failed: "bad", expired: "warn" }[job.state];
  return { text: job.why ? `${job.state}: ${job.why}` : job.state, kind };
}

export async function drawJobs() {
  const jobs = await ask("dashboard/jobs");
  fill($("jobs-t"), JOBS, jobs.map((job) => [job.job_id, [
    opener("job", job.job_id, short(job.job_id)), state(job), time(job.started_at), ms(job.job_e2e_latency_ms),
    count(job.calls), rare(job.failures), count(job.tools),
  ]]));
}
