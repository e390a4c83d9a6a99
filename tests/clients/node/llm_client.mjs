// Our own examples/llm-client.mjs, which stands beside this file.

import { client } from "./llm-client.mjs";
import { HELLO, run, SCHEMA, URL } from "./seen.mjs";

const llm = client(URL);

const chat = async (model) => (await llm.generate(HELLO, "", 0, { model })).text;

const others = {
  structured: async () => (await llm.generate(HELLO, "PLANNER", 0, { schema: SCHEMA })).parsed,
};

await run(chat, null, others);
