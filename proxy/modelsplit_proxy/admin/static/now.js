// The panels that follow the snapshot: verdict, roles, queue, loaded models, budgets.

import { $, el, fill, meter, opener, say, show } from "./dom.js";
import { NONE, bytes, clock, count, ms, rare, seconds, short, time, usd } from "./words.js";

const ROLES = ["head", "bars", "n", "n", "n", "n", "n", "n", "n", "n", "n", "n", "n", "n", "name"];
const WAITING = ["n", "", "", "name", "n", "n", "wide"];
const RUNNING = ["", "", "name", "name", "n"];
const LOADED = ["head", "n", "bars", "n", "n"];
const BUDGETS = ["head", "", "bars", "bars", "n"];

export function drawNow(now, history) {
  drawVerdict(now);
  drawRoles(now, history);
  drawQueue(now.queue);
  drawLoaded(now);
  drawBudgets(now);
}

function drawVerdict(now) {
  const { health, upstream } = now;
  const [first, ...others] = health.causes;
  $("verdict").dataset.level = health.level;
  say($("level"), { OK: "✔ OK", DEGRADED: "▲ DEGRADED", CRITICAL: "✖ CRITICAL" }[health.level] ?? health.level);
  const since = now.level_seen_since === null ? "" : `, seen so since ${clock(now.level_seen_since * 1000)}`;
  say($("cause"), `${first ? first.text : "Calls are being served"}${since}.`);
  show($("next"), Boolean(health.next));
  say($("next-step"), health.next || "");
  const lines = [...others, ...health.notes].map((line) => line.next ? `${line.text} (${line.next})` : line.text);
  const list = $("causes");
  if (list.dataset.lines !== lines.join("\n")) {
    list.dataset.lines = lines.join("\n");
    list.replaceChildren(...lines.map((line) => el("li", {}, line)));
  }
  show(list, lines.length > 0);
  const ollama = upstream.up ? `Ollama ${upstream.version} at ${upstream.address}` : `Ollama at ${upstream.address} does not answer`;
  say($("facts"), [
    ollama,
    `calls come in at ${now.listen}`,
    `policy ${now.policy.source} (${now.policy.digest.slice(0, 12)})`,
    `modelsplit ${now.version}, up ${seconds(Math.max(0, now.at - Date.parse(now.cost.since) / 1000), 0)}`,
    `${now.global.running} of ${now.global.seats} local seats taken`,
    `event-loop lag ${ms(now.event_loop_lag_p99_ms)}`,
  ].join(" · "));
}

const three = (values) => values ? [ms(values.p50), ms(values.p95), ms(values.p99)] : [NONE, NONE, NONE];

function share(models, calls) {
  return models.map(([name, n]) => `${name || "none"} ${Math.round(100 * n / calls)} %`).join(", ") || NONE;
}

export function drawRoles(now, history) {
  const rows = Object.entries(now.roles).map(([role, pool]) => {
    const back = history?.roles[role];
    const cap = pool.seats === null ? "no cap" : pool.seats;
    const taken = meter(pool.seats ? pool.running / pool.seats : 0, `${pool.running} / ${cap}`, pool.seats !== null && pool.running >= pool.seats);
    const waiting = { text: `${pool.waiting} / ${pool.max_queue}`, kind: pool.waiting >= pool.max_queue ? "bad" : pool.waiting ? "warn" : "zero" };
    const oldest = now.queue.oldest_ms[role];
    const counts = back
      ? [count(back.calls), rare(back.failed), rare(back.timeouts), rare(back.fallbacks, "warn"), share(back.models, back.calls)]
      : [NONE, NONE, NONE, NONE, NONE];
    return [role, [role, taken, waiting, oldest === undefined ? NONE : ms(oldest), ...three(back?.wait_ms), ...three(back?.latency_ms), ...counts]];
  });
  fill($("roles-t"), ROLES, rows);
}

function soon(expected) {
  if (expected === null) return NONE;
  return expected < 50 ? "any moment" : `~${ms(expected)}`;
}

// Of a full line not everybody is shown.
function told(id, rows, all, which) {
  const some = rows < all;
  say($(id), some ? `The ${rows} that have ${which} longest.` : "");
  show($(id), some);
}

function drawQueue(queue) {
  say($("waiting-n"), count(queue.waiting_in_all));
  say($("running-n"), count(queue.running_in_all));
  told("waiting-note", queue.waiting.length, queue.waiting_in_all, "waited");
  told("running-note", queue.running.length, queue.running_in_all, "run");
  fill($("waiting-t"), WAITING, queue.waiting.map((row, at) => [
    `${row.request_id} ${row.llm_role} ${row.place} ${at}`,
    [row.place, opener("request", row.request_id, short(row.request_id)), row.llm_role, row.model, ms(row.waited_ms), soon(row.expected_wait_ms), row.why],
  ]));
  fill($("running-t"), RUNNING, queue.running.map((row, at) => [
    `${row.request_id} ${at}`,
    [opener("request", row.request_id, short(row.request_id)), row.llm_role, row.model, row.client, { text: ms(row.running_ms), kind: row.overdue ? "warn" : "", title: row.overdue ? "started because it was late, not because it was useful" : "" }],
  ]));
}

function expiry(raw, at) {
  const left = raw === null ? NaN : Date.parse(raw) / 1000 - at;
  if (Number.isNaN(left)) return NONE;
  if (left > 10 * 365 * 86400) return "never";
  return left > 0 ? { text: `in ${seconds(left)}`, title: raw } : "now";
}

function drawLoaded(now) {
  const loaded = now.residents;
  say($("loaded-empty"), loaded === null ? "What is loaded is not known." : "Nothing is loaded.");
  fill($("loaded-t"), LOADED, (loaded ?? []).map((row) => [row.name, [
    row.name,
    bytes(row.size),
    row.size && row.size_vram !== null ? meter(row.size_vram / row.size, `${bytes(row.size_vram)}, ${Math.round(100 * row.size_vram / row.size)} %`, row.size_vram < row.size) : NONE,
    count(row.context_length),
    expiry(row.expires_at, now.at),
  ]]));
}

function used(value, most, show_) {
  if (most === null) return NONE;
  if (value === null) return meter(1, `? of ${show_(most)}`, true);
  return meter(most ? value / most : 1, `${show_(value)} of ${show_(most)}`, value >= 0.8 * most);
}

function drawBudgets(now) {
  const { spending, cost } = now;
  fill($("budgets-t"), BUDGETS, spending.budgets.map((row) => [row.name, [
    row.shadow ? `${row.name} (shadow)` : row.name,
    row.window,
    used(row.known === false ? null : row.calls, row.max_calls, count),
    used(row.known === false ? null : row.usd, row.max_usd, usd),
    row.known === false ? { text: "shared Redis away", kind: "bad" } : row.counts_lost ? { text: "counts lost", kind: "bad" } : seconds(row.frees_in_s),
  ]]));
  say($("approvals"), spending.error ?? (spending.approvals
    ? `${spending.approvals} approvals of the cloud in force, ${usd(spending.approved_usd_left)} left of them.`
    : "No approval of the cloud is in force."));
  const unpriced = cost.unknown ? `; ${count(cost.unknown)} attempts at an unknown price` : "";
  say($("cost"), `${usd(cost.usd)}, an estimate, since ${time(cost.since).text}${unpriced}.`);
}
