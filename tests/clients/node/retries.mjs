// How often the package `openai` asks where the upstream refuses, and what its user sees.

import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.MODELSPLIT_URL}/v1`, apiKey: "unused" });
const messages = [{ role: "user", content: "What next?" }];

try {
  await client.chat.completions.create({ model: "qwen3:4b", messages });
} catch (error) {
  console.log(error.status);
}
