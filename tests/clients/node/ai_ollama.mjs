// Vercel's `ai` with `ollama-ai-provider-v2`.

import { createOllama } from "ollama-ai-provider-v2";

import { runWith } from "./ai.mjs";
import { URL } from "./seen.mjs";

const ollama = createOllama({ baseURL: `${URL}/api` });

await runWith(ollama, (name) => ollama.embedding(name));
