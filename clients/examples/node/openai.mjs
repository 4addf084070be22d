// The openai package of npm: chat completions and Responses, streamed and of a given form.
// Needs `npm install openai zod`. PREFORCH_URL and PREFORCH_API_KEY choose another gateway.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const url = process.env.PREFORCH_URL ?? "http://127.0.0.1:8000";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.PREFORCH_API_KEY ?? "none" });
const model = (await client.models.list()).data[0].id;
const question = "How do I calm a nervous dog?";
const messages = [{ role: "user", content: question }];

// A field that the package does not know is sent as it is; TypeScript wants a `// @ts-expect-error` above it.
const answer = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 48,
  preference_weights: { helpful: 0.7 },
});
console.log(answer.choices[0].message.content);
console.log("asked for helpful 0.7:", answer.preference.weights);

const chunks = await client.chat.completions.create(
  { model, messages, max_tokens: 48, stream: true },
  { headers: { "X-Preference-Weights": "harmless=0.8" } },
);
for await (const chunk of chunks) {
  if (chunk.preference) console.log("asked for harmless 0.8:", chunk.preference.weights);
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
}

const parsed = await client.responses.parse({
  model: `${model}@humor=0.6`,
  input: question,
  max_output_tokens: 48,
  text: { format: zodTextFormat(z.object({ urgency: z.enum(["low", "high"]) }), "advice") },
});
console.log("\nparsed:", parsed.output_parsed);
console.log("asked for humor 0.6:", parsed.preference.weights);

const events = await client.responses.create({
  model,
  input: question,
  max_output_tokens: 48,
  stream: true,
  preference_weights: { helpful: 0.6 },
});
for await (const event of events) {
  if (event.type === "response.created") console.log("asked for helpful 0.6:", event.response.preference.weights);
  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);
}
console.log();
