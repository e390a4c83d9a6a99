// A job of our own examples/llm-client.mjs, which stands beside this file: argv[2] is how it ends.

import { client } from "./llm-client.mjs";

const llm = client(process.env.MODELSPLIT_URL, { admin: process.env.MODELSPLIT_ADMIN });

try {
  const answer = await llm.job("build-17", async (job) => {
    const { telemetry } = await job.generate("What next?", "PLANNER", 1);
    console.log(telemetry.model, telemetry.attempt);
    console.log(await job.tool("grep", () => "found"));
    await job.tool("make", async () => { throw new Error("boom"); }).catch(() => null);
    await job.generate("Why?", "EXECUTOR", 0, { purpose: "failure_analysis" });
    if (process.argv[2] === "refused") await job.generate("Think hard.", "CLOUD");
    return "done";
  });
  console.log(answer);
} catch (error) {
  console.log(error.name, error.error_code, error.reason, error.llm_role, error.status);
}
