// A request written down as code to be copied. A key is never in it.
// In: the gateway's address, a path, a body, whether a key is wanted. Out: text.

import { CHAT } from "./gateway.js";

/** Fields that the openai package has arguments for, as far as the page sends them; all others are `extra_body`. */
const ARGUMENTS = new Set(["model", "messages", "max_tokens", "temperature", "seed"]);

/** A shell word that is exactly this text. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function curl({ base, path, body, needsKey }) {
  const lines = [`curl ${quoted(base + path)}`, "-H 'Content-Type: application/json'"];
  if (needsKey) lines.push('-H "Authorization: Bearer $PREFORCH_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

/** A value as Python writes it; strings of JSON are strings of Python. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each)}`);
  return `{${entries.join(", ")}}`;
}

/** Arguments of a call, one a line. */
function argumentsOf(given) {
  return Object.entries(given).map(([name, value]) => `    ${name}=${literal(value)},\n`).join("");
}

/** The openai package for answers, ours for weights alone. */
export function python({ base, path, body, needsKey }) {
  const key = needsKey ? 'os.environ["PREFORCH_API_KEY"]' : '"none"';
  const imports = needsKey ? "import os\n\n" : "";
  if (path !== CHAT) {
    const given = needsKey ? `, api_key=${key}` : "";
    return `${imports}from preforch_client import Client

client = Client(${literal(base)}${given})
print(client.weights(
${argumentsOf(body)}))`;
  }
  const fields = Object.entries(body);
  const known = Object.fromEntries(fields.filter(([name]) => ARGUMENTS.has(name)));
  const others = fields.filter(([name]) => !ARGUMENTS.has(name));
  const extra = others.length === 0 ? {} : { extra_body: Object.fromEntries(others) };
  return `${imports}from openai import OpenAI

client = OpenAI(base_url=${literal(`${base}v1`)}, api_key=${key})
answer = client.chat.completions.create(
${argumentsOf({ ...known, ...extra })})
print(answer.choices[0].message.content)
print(answer.model_extra["preference"])`;
}
