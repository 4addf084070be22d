// Vercel's AI SDK: weights in the body, in a header, and in the name of the model.
// Needs `npm install ai @ai-sdk/openai-compatible`.
// PREFORCH_URL, PREFORCH_API_KEY and PREFORCH_MODEL choose another gateway and policy.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const url = process.env.PREFORCH_URL ?? "http://127.0.0.1:8000";
const model = process.env.PREFORCH_MODEL ?? "wic";
const prompt = "How do I calm a nervous dog?";

// Brings `preference` into `providerMetadata`, of whole answers and of streams.
const metadataExtractor = {
  extractMetadata: async ({ parsedBody }) => ({ preforch: { preference: parsedBody.preference } }),
  createStreamExtractor: () => {
    let preference;
    return {
      processChunk: (chunk) => {
        preference ??= chunk.preference;
      },
      buildMetadata: () => ({ preforch: { preference } }),
    };
  },
};
const preforch = createOpenAICompatible({
  name: "preforch",
  baseURL: `${url}/v1`,
  apiKey: process.env.PREFORCH_API_KEY,
  metadataExtractor,
});

const answer = await generateText({
  model: preforch(model),
  prompt,
  maxOutputTokens: 48,
  providerOptions: { preforch: { preference_weights: { helpful: 0.7 } } },
});
console.log(answer.text);
console.log("asked for helpful 0.7:", answer.providerMetadata.preforch.preference.weights);

const headers = { "X-Preference-Weights": "harmless=0.8" };
const other = await generateText({ model: preforch(model), prompt, maxOutputTokens: 48, headers });
console.log("asked for harmless 0.8:", other.providerMetadata.preforch.preference.weights);

const stream = streamText({ model: preforch(`${model}@humor=0.6`), prompt, maxOutputTokens: 48 });
for await (const text of stream.textStream) process.stdout.write(text);
console.log("\nasked for humor 0.6:", (await stream.providerMetadata).preforch.preference.weights);
