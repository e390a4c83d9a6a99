// The panels that follow the snapshot: verdict, roles, queue, loaded models, budgets.

import { $, el, fill, meter, opener, say, show } from "./dom.js";
import { NONE, bytes, clock, count, gb, ms, rare, seconds, short, time, usd } from "./words.js";

const ROLES = ["head", "bars", "n", "n", "n", "n", "n", "n", "n", "n", "n", "n", "n", "n", "name"];
const WAITING = ["n", "", "", "name", "n", "n", "wide"];
const RUNNING = ["", "", "name", "name", "n"];
const HOSTS = ["head", "", "bars", "n", "n", "wide", "bars", "", ""];
const LOADED = ["head", "n", "bars", "n", "n"];
const BUDGETS = ["head", "", "bars", "bars", "n"];

export function drawNow(now, history) {
  drawVerdict(now);
  drawRoles(now, history);
  drawQueue(now.queue, now.hosts !== undefined);
  drawHosts(now.hosts ?? []);
  drawLoaded(now);
  drawBudgets(now);
}

function drawVerdict(now) {
  const { health, upstream } = now;
  const [first, ...others] = health.causes;
  $("verdict").dataset.level = health.level;
  say($("level"), { OK: "✔ OK", DEGRADED: "▲ DEGRADED", CRITICAL: "✖ CRITICAL" }[health.level] ?? health.level);
  const since = now.level_seen_since === null ? "" : `, seen so since ${clock(now.level_seen_since * 1000)}`;
  say($("cause"), `${first ? first.text : "Nothing is known to be wrong"}${since}.`);
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

// Which model, and of several hosts where.
const at = (model, host) => (host ? `${model} at ${host}` : model);

function drawQueue(queue, hasHosts) {
  say($("waiting-n"), count(queue.waiting_in_all));
  say($("running-n"), count(queue.running_in_all));
  told("waiting-note", queue.waiting.length, queue.waiting_in_all, "waited");
  told("running-note", queue.running.length, queue.running_in_all, "run");
  fill($("waiting-t"), WAITING, queue.waiting.map((row, place) => [
    `${row.request_id} ${row.llm_role} ${row.place} ${place}`,
    [row.place, opener("request", row.request_id, short(row.request_id)), row.llm_role, row.model, ms(row.waited_ms), soon(row.expected_wait_ms), row.why],
  ]));
  fill($("running-t"), RUNNING, queue.running.map((row, place) => [
    `${row.request_id} ${place}`,
    [opener("request", row.request_id, short(row.request_id)), row.llm_role, at(row.model, hasHosts && row.host), row.client, { text: ms(row.running_ms), kind: row.overdue ? "warn" : "", title: row.overdue ? "started because it was late, not because it was useful" : "" }],
  ]));
}

const STATES = {
  up: ["answers", "ok"], unknown: ["not asked yet", "zero"], away: ["away", "bad"], hangs: ["hangs", "bad"],
  draining: ["drains", "warn"], drained: ["drained", "warn"],
};

// What it does, and what its breakers stop there.
function hostState(row) {
  const [text, kind] = STATES[row.state] ?? [row.state, ""];
  if (!row.stopped.length) return { text, kind, title: row.error ?? "" };
  const what = row.stopped.includes("") ? "all calls" : row.stopped.join(", ");
  return { text: `${text}, breaker stops ${what}`, kind: kind === "bad" ? kind : "warn", title: row.error ?? "" };
}

// Of the memory that the policy gives it; where it gives none only how much is taken.
function memory(row) {
  if (row.in_use_gb === null) return row.memory_gb === null ? NONE : `? of ${gb(row.memory_gb)}`;
  if (row.memory_gb === null) return gb(row.in_use_gb);
  const free = Math.max(0, row.memory_gb - row.in_use_gb);
  return meter(row.in_use_gb / row.memory_gb, `${gb(row.in_use_gb)} of ${gb(row.memory_gb)}, ${gb(free)} free`, row.in_use_gb > row.memory_gb);
}

function drawHosts(hosts) {
  show($("hosts"), hosts.length > 0);
  show($("hosts-link"), hosts.length > 0);
  say($("hosts-there"), `${hosts.filter((row) => row.state === "up").length} of ${hosts.length} take calls`);
  fill($("hosts-t"), HOSTS, hosts.map((row) => [row.name, [
    row.name,
    hostState(row),
    meter(row.seats ? row.running / row.seats : 0, `${row.running} / ${row.seats}`, row.running >= row.seats),
    count(row.useful),
    count(row.tier),
    row.loaded === null ? "not known" : row.loaded.join(", ") || { text: "nothing", kind: "zero" },
    memory(row),
    row.version ?? NONE,
    row.address,
  ]]));
}

function expiry(raw, now) {
  const left = raw === null ? NaN : Date.parse(raw) / 1000 - now;
  if (Number.isNaN(left)) return NONE;
  if (left > 10 * 365 * 86400) return "never";
  return left > 0 ? { text: `in ${seconds(left)}`, title: raw } : "now";
}

function drawLoaded(now) {
  const loaded = now.residents;
  say($("loaded-empty"), loaded === null ? "What is loaded is not known." : "Nothing is loaded.");
  fill($("loaded-t"), LOADED, (loaded ?? []).map((row) => [at(row.name, row.host), [
    at(row.name, row.host),
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
