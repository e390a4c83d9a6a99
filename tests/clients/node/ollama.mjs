// The package `ollama`.

import { Ollama } from "ollama";

import { EMBEDDER, MESSAGES, run, SCHEMA, TOOL, URL } from "./seen.mjs";

const client = new Ollama({ host: URL });

const chat = async (model) => (await client.chat({ model, messages: MESSAGES })).message.content;

async function* stream(model) {
  for await (const part of await client.chat({ model, messages: MESSAGES, stream: true })) {
    yield part.message.content;
  }
}

const others = {
  async tools() {
    const tools = [{ type: "function", function: TOOL }];
    const answer = await client.chat({ model: "planner", messages: MESSAGES, tools });
    const { name, arguments: given } = answer.message.tool_calls[0].function;
    return { name, arguments: given };
  },
  async structured() {
    const answer = await client.chat({ model: "planner", messages: MESSAGES, format: SCHEMA });
    return JSON.parse(answer.message.content);
  },
  async embed() {
    const answer = await client.embed({ model: EMBEDDER, input: ["one", "two"] });
    return answer.embeddings.map((vector) => vector.length);
  },
  list: async () => (await client.list()).models.map((model) => model.name),
  alias: async () => (await client.show({ model: "planner" })).details.family,
};

await run(chat, stream, others);
