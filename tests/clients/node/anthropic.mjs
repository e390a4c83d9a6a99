// The package `@anthropic-ai/sdk`.

import Anthropic from "@anthropic-ai/sdk";

import { MESSAGES, run, TOOL, URL } from "./seen.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: "unused" });

async function chat(model) {
  const answer = await client.messages.create({ model, max_tokens: 5, messages: MESSAGES });
  return answer.content[0].text;
}

async function* stream(model) {
  const asked = { model, max_tokens: 5, messages: MESSAGES, stream: true };
  for await (const event of await client.messages.create(asked)) {
    if (event.type === "content_block_delta") yield event.delta.text;
  }
}

const others = {
  async tools() {
    const tool = { name: TOOL.name, description: TOOL.description, input_schema: TOOL.parameters };
    const asked = { model: "planner", max_tokens: 50, messages: MESSAGES, tools: [tool] };
    const answer = await client.messages.create(asked);
    const call = answer.content.find((block) => block.type === "tool_use");
    return { name: call.name, arguments: call.input };
  },
  async list() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return names;
  },
  alias: async () => (await client.models.retrieve("planner")).id,
};

await run(chat, stream, others);
