// What the two providers of Vercel's `ai` have in common: everything but how they are made.

import { embedMany, generateObject, generateText, jsonSchema, streamText, tool } from "ai";

import { EMBEDDER, HELLO, run, SCHEMA, TOOL } from "./seen.mjs";

export async function runWith(provider, embedder) {
  const chat = async (name) => (await generateText({ model: provider(name), prompt: HELLO })).text;

  // A failure is handed to `onError`; where there is none, it is printed and the text just ends.
  async function* stream(name) {
    let failure = null;
    const onError = ({ error }) => {
      failure = error;
    };
    yield* streamText({ model: provider(name), prompt: HELLO, onError }).textStream;
    if (failure !== null) throw failure;
  }

  async function ending(name) {
    const { fullStream } = streamText({ model: provider(name), prompt: HELLO, onError() {} });
    for await (const part of fullStream) if (part.type === "finish") return part.finishReason;
    return "none";
  }

  await run(chat, stream, {
    endings: async () => [await ending("planner"), await ending("breaks:2b")],
    async tools() {
      const weather = tool({ ...TOOL, inputSchema: jsonSchema(TOOL.parameters) });
      const asked = { model: provider("planner"), prompt: HELLO, tools: { weather } };
      const [call] = (await generateText(asked)).toolCalls;
      return { name: call.toolName, arguments: call.input };
    },
    async structured() {
      const asked = { model: provider("planner"), prompt: HELLO, schema: jsonSchema(SCHEMA) };
      return (await generateObject(asked)).object;
    },
    async embed() {
      const asked = { model: embedder(EMBEDDER), values: ["one", "two"] };
      return (await embedMany(asked)).embeddings.map((vector) => vector.length);
    },
  });
}
