// The package `openai`.

import OpenAI from "openai";

import { EMBEDDER, HELLO, MESSAGES, run, SCHEMA, TOOL, URL } from "./seen.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "unused" });

async function chat(model) {
  const answer = await client.chat.completions.create({ model, messages: MESSAGES });
  return answer.choices[0].message.content;
}

async function* stream(model) {
  const parts = await client.chat.completions.create({ model, messages: MESSAGES, stream: true });
  for await (const part of parts) yield part.choices[0].delta.content ?? "";
}

async function responses(model) {
  return (await client.responses.create({ model, input: HELLO })).output_text;
}

async function* responsesStream(model) {
  for await (const event of await client.responses.create({ model, input: HELLO, stream: true })) {
    if (event.type === "response.output_text.delta") yield event.delta;
  }
}

const others = {
  async tools() {
    const tools = [{ type: "function", function: TOOL }];
    const asked = { model: "planner", messages: MESSAGES, tools };
    const answer = await client.chat.completions.create(asked);
    const call = answer.choices[0].message.tool_calls[0].function;
    return { name: call.name, arguments: JSON.parse(call.arguments) };
  },
  async structured() {
    const form = { type: "json_schema", json_schema: { name: "plan", schema: SCHEMA } };
    const asked = { model: "planner", messages: MESSAGES, response_format: form };
    return JSON.parse((await client.chat.completions.create(asked)).choices[0].message.content);
  },
  async embed() {
    const answer = await client.embeddings.create({ model: EMBEDDER, input: ["one", "two"] });
    return answer.data.map((item) => item.embedding.length);
  },
  async list() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return names;
  },
  alias: async () => (await client.models.retrieve("planner")).id,
  responses: () => responses("planner"),
  "responses stream": () => responsesStream("planner"),
  "responses cloud": () => responses("cloud"),
  "responses broken": () => responsesStream("breaks:1b"),
};

await run(chat, stream, others);
