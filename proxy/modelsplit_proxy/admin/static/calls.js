// Recent requests, what is told of one of them, and of a job.

import { $, el, fill, opener, say, show } from "./dom.js";
import { NONE, count, ms, short, time } from "./words.js";
import { ofCall, ofJob } from "./timeline.js";

const COLUMNS = ["n", "", "", "name", "name", "", "n", "n", "n", "n", "name"];
const EVERY_MS = 3000;

export async function ask(path, as = "json") {
  const answer = await fetch(path);
  const body = as === "json" || !answer.ok ? await answer.json() : await answer.text();
  if (!answer.ok) throw new Error(body.error ?? `status ${answer.status}`);
  return body;
}

function words() {
  const chosen = new URLSearchParams();
  for (const [name, value] of new FormData($("filter"))) {
    if (name === "outcome" && value === "failed") chosen.set("failed", "1");
    else if (value) chosen.set(name, value);
  }
  return chosen;
}

function outcome(call) {
  if (call.outcome === "ok") return { text: call.fallback_used ? "ok, by fallback" : "ok", kind: call.fallback_used ? "warn" : "ok" };
  if (call.outcome === "running") return { text: `running, ${call.state}` };
  const text = call.reason ? `${call.outcome} ${call.reason}` : call.outcome;
  return { text, kind: /gone/i.test(call.outcome) ? "zero" : "bad" };
}

// Of a call that still waits, until now.
const waited = (call) => call.outcome === "running" && call.state === "queued" ? call.call_e2e_latency_ms : call.llm_queue_wait_ms;

let asked = 0;
export async function drawCalls() {
  const mine = ++asked;
  try {
    const found = await ask(`dashboard/calls?${words()}`);
    if (mine !== asked) return;
    const all = found.all_since_us === null ? "of a day" : `of the last ${count(found.looked_through)}, since ${time(found.all_since_us / 1000).text}`;
    say($("requests-span"), `${all}, 100 at most`);
    show($("requests-error"), false);
    say($("requests-empty"), String(words()) ? "No such call." : "No calls yet.");
    fill($("requests-t"), COLUMNS, found.calls.map((call) => [`${call.request_id} ${call.started_at}`, [
      time(call.started_at), opener("request", call.request_id, short(call.request_id)), call.llm_role ?? NONE,
      call.requested_model || NONE, (call.llm_role && call.llm_model) || NONE, outcome(call), ms(waited(call)), ms(call.ttfb_ms),
      ms(call.call_e2e_latency_ms), count(call.output_tokens), call.client || NONE,
    ]]));
  } catch (error) {
    if (mine !== asked) return;
    say($("requests-error"), error.message);
    show($("requests-error"), true);
  }
}

function facts(pairs) {
  return el("dl", {}, ...pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

async function callBody(id) {
  const path = `requests/${encodeURIComponent(id)}`;
  const [call, text] = await Promise.all([ask(path), ask(`${path}?format=text`, "text")]);
  return [facts([["Outcome", call.reason ? `${call.outcome} (${call.reason})` : call.outcome], ["Error", call.error], ["Came", time(call.started_at).title], ["Job", call.job_id]]),
    ofCall(call), el("pre", { tabindex: "0" }, text), el("p", { class: "quiet" }, el("a", { href: path }, "As JSON"))];
}

async function jobBody(id) {
  const path = `jobs/${encodeURIComponent(id)}`;
  const [job, text] = await Promise.all([ask(path), ask(`${path}?format=text`, "text")]);
  return [ofJob(job), el("pre", { tabindex: "0" }, text), el("p", { class: "quiet" }, el("a", { href: path }, "As JSON"))];
}

async function explain(kind, id, remember = true) {
  const dialog = $("explain");
  say($("explain-h"), `${kind === "job" ? "Job" : "Request"} ${id}`);
  $("explain-body").replaceChildren(el("p", { class: "quiet" }, "Asking …"));
  if (!dialog.open) dialog.showModal();
  if (remember) history.pushState(null, "", `?${new URLSearchParams({ [kind]: id })}`);
  try {
    $("explain-body").replaceChildren(...await (kind === "job" ? jobBody : callBody)(id));
  } catch (error) {
    $("explain-body").replaceChildren(el("p", { class: "notice", role: "status" }, error.message));
  }
  dialog.dataset.shown = id;
}

function followUrl() {
  const query = new URLSearchParams(location.search);
  for (const kind of ["request", "job"]) {
    if (query.get(kind)) {
      explain(kind, query.get(kind), false);
      return;
    }
  }
  if ($("explain").open) $("explain").close();
}

export function startCalls() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button.open");
    if (button) explain(button.dataset.open, button.dataset.id);
  });
  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = $("find-id").value.trim();
    if (id) explain("request", id);
  });
  $("explain-close").addEventListener("click", () => $("explain").close());
  $("explain").addEventListener("close", () => {
    delete $("explain").dataset.shown;
    if (location.search) history.pushState(null, "", location.pathname + location.hash);
  });
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("filter").addEventListener("input", drawCalls);
  addEventListener("popstate", followUrl);
  followUrl();
  drawCalls();
  setInterval(() => { if (!document.hidden) drawCalls(); }, EVERY_MS);
}
