// Runs the cases of one client, and writes down what its user saw; as python/seen.py does.

import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

export const URL = process.env.MODELSPLIT_URL;
export const HELLO = "What next?";
export const MESSAGES = [{ role: "user", content: HELLO }];
export const EMBEDDER = "all-minilm-embed";
export const SCHEMA = {
  type: "object",
  properties: { steps: { type: "integer" }, goal: { type: "string" } },
  required: ["steps", "goal"],
};
export const TOOL = {
  name: "weather",
  description: "The weather in a city",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
  },
};

// chat(model) gives a text, stream(model) an async iterator of its pieces, or there is none; the
// others, anything.
export async function run(chat, stream, others) {
  const streams = {
    stream: () => stream("planner"),
    "cloud stream": () => stream("cloud"),
    broken: () => stream("breaks:1b"),
    early: () => stream("slow:1b"),
    late: () => stream("late:1b"),
  };
  const cases = {
    readme,
    chat: () => chat("planner"),
    ...others,
    throttled: () => chat("heavy"),
    cloud: () => chat("cloud"),
    spent: () => chat("spent:1b"),
    ...(stream && streams),
  };
  const found = {};
  for (const [name, one] of Object.entries(cases)) found[name] = await seen(one);
  writeFileSync(process.argv[2], JSON.stringify(found));
}

async function seen(one) {
  const said = [];
  try {
    const answer = await one();
    if (answer?.[Symbol.asyncIterator]) for await (const piece of answer) said.push(piece);
    else said.push(answer);
  } catch (error) {
    // The first line of what Node prints when nobody catches it.
    const name = error instanceof Error ? `${error.name}: ` : "";
    return { said, error: `${name}${error.message ?? error}` };
  }
  return { said, error: null };
}

// The lines that the README's own snippet prints; it stands beside this file, for its imports.
async function readme() {
  const lines = [];
  const log = console.log;
  console.log = (...values) => lines.push(values.join(" "));
  try {
    writeFileSync("readme.mjs", process.env.MODELSPLIT_README);
    await import(pathToFileURL("readme.mjs").href);
  } finally {
    console.log = log;
  }
  return lines;
}
