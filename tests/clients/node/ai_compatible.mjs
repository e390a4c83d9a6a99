// Vercel's `ai` with `@ai-sdk/openai-compatible`.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

import { runWith } from "./ai.mjs";
import { URL } from "./seen.mjs";

const modelsplit = createOpenAICompatible({
  name: "modelsplit",
  baseURL: `${URL}/v1`,
  supportsStructuredOutputs: true,
});

await runWith(modelsplit, (name) => modelsplit.textEmbeddingModel(name));
