// Anthropic's package of npm: weights in the body, in a header, and in the name of the model.
// Needs `npm install @anthropic-ai/sdk`.
// PREFORCH_URL, PREFORCH_API_KEY and PREFORCH_MODEL choose another gateway and policy.
import Anthropic from "@anthropic-ai/sdk";

const url = process.env.PREFORCH_URL ?? "http://127.0.0.1:8000";
const client = new Anthropic({ baseURL: url, apiKey: process.env.PREFORCH_API_KEY ?? "none" });
const model = process.env.PREFORCH_MODEL ?? "wic";
const messages = [{ role: "user", content: "How do I calm a nervous dog?" }];

const answer = await client.messages.create({
  model,
  messages,
  max_tokens: 48,
  preference_weights: { helpful: 0.7 },
});
console.log(answer.content.map((block) => block.text).join(""));
console.log("asked for helpful 0.7:", answer.preference.weights);

const headers = { "X-Preference-Weights": "harmless=0.8" };
const other = await client.messages.create({ model, messages, max_tokens: 48 }, { headers });
console.log("asked for harmless 0.8:", other.preference.weights);

const stream = client.messages.stream({ model: `${model}@humor=0.6`, messages, max_tokens: 48 });
stream.on("text", (text) => process.stdout.write(text));
const message = await stream.finalMessage();
console.log("\nasked for humor 0.6:", message.preference.weights);
