// modelsplit for callers in Node 20 or newer, on fetch alone: copy it.
//   const llm = client("http://127.0.0.1:11435");
//   const { text, telemetry } = await llm.generate("What next?", "PLANNER", 0);
//   await llm.job("build-17", async (job) => {
//     const found = await job.tool("grep", () => grep("if"));
//     await job.generate(`Why? ${found}`, "EXECUTOR", 0, { purpose: "failure_analysis" });
//   });
// Options: schema, model, signal, the keys of HEADERS, further headers. LLMError: modelsplit's sentence and
// all its fields. Node's fetch waits 300 s for an answer at most.
export class LLMError extends Error { name = "LLMError"; }
const HEADERS = {
  purpose: "X-LLM-Purpose", escalate: "X-LLM-Escalate", jobId: "X-LLM-Job-Id",
  maxWaitMs: "X-LLM-Max-Wait-Ms", timeoutMs: "X-LLM-Timeout-Ms", requestId: "X-Request-Id",
};

export function client(base, { admin, key } = {}) {
  const { protocol, hostname, port } = new URL(base); // jobs are reported on the next port
  const reports = admin ?? `${protocol}//${hostname}:${Number(port || { "http:": 80, "https:": 443 }[protocol]) + 1}`;
  const own = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const post = (url, body, headers, signal) =>
    fetch(url, { method: "POST", headers: { ...own, ...headers }, body: JSON.stringify(body), signal });
  let warned = false;

  async function generate(prompt, role, retryLevel = 0, { schema: format, model = "", signal, ...rest } = {}) {
    const headers = { "X-LLM-Retry-Level": `${retryLevel}`, "X-LLM-Telemetry": "body" };
    if (role) headers["X-LLM-Role"] = role;
    for (const [option, value] of Object.entries(rest)) headers[HEADERS[option] ?? option] = `${value}`;
    const response = await post(`${base}/api/generate`, { model, prompt, format, stream: false }, headers, signal);
    const answer = await response.json().catch(() => ({}));
    if (response.ok && typeof answer.response === "string")
      return { text: answer.response, parsed: format && JSON.parse(answer.response), telemetry: answer.llm };
    const told = { error_code: response.headers.get("X-LLM-Error-Code"), ...answer, status: response.status };
    if (response.headers.has("Retry-After")) told.retryAfter = Number(response.headers.get("Retry-After"));
    throw Object.assign(new LLMError(answer.error ?? `HTTP status ${response.status}`), told);
  }

  async function report(path, body) { // fails nothing: where nobody takes it, that is said once
    const taken = await post(reports + path, body, {}, AbortSignal.timeout(5000))
      .then(async (response) => ({ ok: response.ok, why: await response.text() }))
      .catch((error) => ({ ok: false, why: error.cause ?? error }));
    if (!taken.ok && !warned) console.warn(`job reports are not taken by ${reports}: ${taken.why}`);
    warned ||= !taken.ok;
  }
  async function tool(id, name, use) {
    const began = performance.now();
    const tell = (ok) => report(`/jobs/${id}/tool`, { name, duration_ms: performance.now() - began, ok });
    const result = await Promise.resolve().then(use).catch((error) => tell(false).then(() => { throw error; }));
    return tell(true).then(() => result);
  }

  async function job(id, work) { // its end is told whatever `work` does
    await report(`/jobs/${id}/start`, {});
    const ask = (prompt, role, retryLevel, options) => generate(prompt, role, retryLevel, { ...options, jobId: id });
    const done = Promise.resolve().then(() => work({ id, generate: ask, tool: (name, use) => tool(id, name, use) }));
    const end = await done.then(() => ({ ok: true }), (error) => ({ ok: false, why: error?.error_code ?? error?.name }));
    await report(`/jobs/${id}/finish`, end);
    return done;
  }
  return { generate, job };
}
