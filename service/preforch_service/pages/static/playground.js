// The playground: reads what its user wants, asks the gateway, and shows what comes.

import { curl, python } from "./code.js";
import { CHAT, Gateway } from "./gateway.js";
import { Answer, Row, find, origin, showError, sumNote, turn } from "./parts.js";

const page = {
  about: find("about"),
  error: find("error"),
  status: find("status"),
  keyForm: find("key-form"),
  key: find("key"),
  askForm: find("ask-form"),
  history: find("history"),
  prompt: find("prompt"),
  promptNote: find("prompt-note"),
  origin: find("origin"),
  preset: find("preset"),
  further: find("further"),
  code: find("code"),
  sumNote: find("sum-note"),
  compare: find("compare"),
  ask: find("ask"),
  stop: find("stop"),
  recommend: find("recommend"),
  answers: find("answers"),
};

/** What the page sends or reads in a way of its own. */
const OWN_FIELDS = new Set([
  ...["model", "messages", "stream", "stream_options", "n", "preference_weights", "preference_preset"],
  ...["max_tokens", "temperature", "seed"],
]);

const gateway = new Gateway();
/** Turns that were settled by "Go on with this answer". */
let history = [];
/** One per objective, in the bundle's order. */
let rows = [];
/** The model that answers, or null where there is none. */
let model = null;
/** Ends the running answers, or null. */
let running = null;
/** The running question for weights: `again` where another one waits for its end, `controller` to end it. Or null. */
let weighing = null;

/** What the user set: weights by name and a preset, each absent where there is none. */
function wishes() {
  const own = rows.filter((row) => row.own !== null).map((row) => [row.name, row.own]);
  return {
    ...(own.length > 0 && { weights: Object.fromEntries(own) }),
    ...(page.preset.value !== "" && { preset: page.preset.value }),
  };
}

function noteSum() {
  const note = sumNote(Object.values(wishes().weights ?? {}), rows.length);
  // Announced to those who listen to the page, so not said again while it stays true.
  if (page.sumNote.textContent !== note) page.sumNote.textContent = note;
}

/** The conversation as it stands, or null where no prompt is there. */
function conversation() {
  const prompt = page.prompt.value;
  return prompt.trim() === "" ? null : [...history, { role: "user", content: prompt }];
}

function numberIn(id) {
  const { value } = find(id);
  return value === "" ? undefined : Number(value);
}

/** Further fields of the request. Throws a SyntaxError, in words, where they are not what may be written here. */
function further() {
  const text = page.further.value.trim();
  if (text === "") return {};
  const fields = JSON.parse(text);
  if (fields === null || typeof fields !== "object" || Array.isArray(fields)) {
    throw new SyntaxError("write an object, {...}");
  }
  const own = Object.keys(fields).filter((name) => OWN_FIELDS.has(name));
  if (own.length > 0) throw new SyntaxError(`${own.join(", ")}: the page sets this by itself`);
  return fields;
}

/** What is asked of a model. */
function question(messages, { weights, preset }) {
  const options = { max_tokens: numberIn("max-tokens"), temperature: numberIn("temperature"), seed: numberIn("seed") };
  const set = Object.entries({ ...options, preference_weights: weights, preference_preset: preset });
  return { model, messages, ...further(), ...Object.fromEntries(set.filter(([, value]) => value !== undefined)) };
}

/**
 * Ask what would be used, and show it. While one question runs the next one waits, so that the sliders follow as
 * fast as the gateway answers; of those that wait only the last is asked.
 */
async function weigh() {
  if (weighing !== null) {
    weighing.again = true;
    return;
  }
  const mine = { again: true, controller: new AbortController() };
  weighing = mine;
  while (mine.again && !mine.controller.signal.aborted) {
    mine.again = false;
    await weighOnce(mine.controller.signal);
  }
  if (weighing === mine) weighing = null;
}

async function weighOnce(signal) {
  const messages = conversation();
  if (messages === null) return;
  try {
    const found = await gateway.weights({ messages, ...wishes() }, { signal });
    for (const row of rows) {
      row.show({ recommended: found.recommended?.[row.name] ?? null, used: found.weights[row.name] });
    }
    page.origin.textContent = `${capital(origin(found))}${confidence(found)}.`;
    showError(page.error, null);
    noteSum();
  } catch (error) {
    // Also where the error is another one, because it was being read when the question was given up.
    if (signal.aborted) return;
    for (const row of rows) row.show({ recommended: null, used: null });
    page.origin.textContent = "Not known.";
    showError(page.error, error.status === 400 ? null : error);
    if (error.status === 400) page.sumNote.textContent = error.message;
  }
}

function capital(text) {
  return text.replace(/^./, (first) => first.toUpperCase());
}

function confidence(found) {
  return found.confidence === null ? "" : `; confidence ${Math.round(found.confidence * 100)} %`;
}

/** Something that decides about the weights was changed. */
function rewish() {
  noteSum();
  writeCode();
  weigh();
}

/** The prompt is another one now: what is shown does not belong to it. */
function forget() {
  weighing?.controller.abort();
  weighing = null;
  for (const row of rows) row.forget();
  page.origin.textContent = "Not asked for yet.";
  noteSum();
  writeCode();
}

/** The request as it stands, as code; kept up to date while it is looked at. */
function writeCode() {
  if (!page.code.open) return;
  const messages = conversation();
  const place = find("code-text");
  find("copy").textContent = "Copy";
  if (messages === null) {
    place.textContent = "Write a prompt first.";
    return;
  }
  const request = { base: new URL(".", document.baseURI).href, needsKey: gateway.hasKey };
  const write = page.askForm.elements.language.value === "python" ? python : curl;
  try {
    const wanted = model === null
      ? { path: "weights", body: { messages, ...wishes() } }
      : { path: CHAT, body: question(messages, wishes()) };
    place.textContent = write({ ...request, ...wanted });
  } catch (error) {
    place.textContent = `Further fields: ${error.message}`;
  }
}

/** Copied where the browser lets the page; else the text is selected, to be copied by hand. */
async function copyCode() {
  const place = find("code-text");
  const say = (button, status) => {
    find("copy").textContent = button;
    page.status.textContent = status;
  };
  try {
    await navigator.clipboard.writeText(place.textContent);
    say("Copied", "Copied.");
  } catch {
    window.getSelection().selectAllChildren(place);
    say("Selected", "Selected: copy it with the keyboard.");
  }
}

function setHistory(turns) {
  history = turns;
  page.history.replaceChildren(...turns.map(turn));
  find("history-section").hidden = turns.length === 0;
  forget();
  page.prompt.focus();
}

function goOn(messages, text) {
  running?.abort();
  page.answers.replaceChildren();
  page.prompt.value = "";
  setHistory([...messages, { role: "assistant", content: text }]);
}

/** Which answers to ask for: title and wishes. */
function wanted() {
  const own = wishes();
  const recommended = { title: "Under recommended weights", own: {} };
  if (Object.keys(own).length === 0) return [recommended];
  const wished = { title: own.weights ? "Under your weights" : `Under the preset ${own.preset}`, own };
  return page.compare.checked ? [recommended, wished] : [wished];
}

function setRunning(controller) {
  const focused = document.activeElement;
  running = controller;
  page.ask.disabled = controller !== null;
  page.stop.disabled = controller === null;
  // A disabled button loses the keyboard's focus: hand it to the one that takes its place.
  if (controller !== null && focused === page.ask) page.stop.focus();
  if (controller === null && focused === page.stop) page.ask.focus();
}

async function ask(messages) {
  const controller = new AbortController();
  const { signal } = controller;
  const asked = wanted().map(({ title, own }) => ({
    answer: new Answer(title, (text) => goOn(messages, text)),
    events: gateway.chat(question(messages, own), { signal }),
  }));
  setRunning(controller);
  page.status.textContent = "The answer is being written.";
  page.answers.replaceChildren(...asked.map(({ answer }) => answer.element));
  await Promise.all([weigh(), ...asked.map(({ answer, events }) => answer.show(events))]);
  setRunning(null);
  page.status.textContent = signal.aborted ? "Stopped." : "The answer has ended.";
}

async function submit() {
  const messages = conversation();
  if (messages === null || running !== null) return;
  showError(page.error, null);
  await (model === null ? weigh() : ask(messages));
}

/** Where answers come from and, where weights change nothing about them, that. */
function aboutModel({ id, preference }) {
  const name = `Answers come from ${id}.`;
  if (preference?.applied !== false) return name;
  const ignored = "those that you set are shown, and change nothing in the answer.";
  return `${name} This model does not read weights: ${ignored}`;
}

/** What can be done here, given the models that the key may use (null: the gateway has none). */
function showAbilities(models) {
  // Presets are chosen beside the weights; their aliases are for those whose key allows nothing else.
  const chosen = models?.find((each) => !each.preference?.preset) ?? models?.[0] ?? null;
  model = chosen?.id ?? null;
  document.body.classList.toggle("weights-only", model === null);
  const action = model === null ? "recommends weights" : "asks for an answer";
  page.promptNote.textContent = `Ctrl+Enter ${action}.`;
  if (chosen !== null) page.about.textContent = aboutModel(chosen);
  else if (models === null)
    page.about.textContent = "This gateway recommends weights; it has no language model.";
  else page.about.textContent = "This key may use no model here, only ask for weights.";
}

/** Offer the presets, by name and what they say. */
function showPresets(presets) {
  const options = Object.entries(presets).map(([name, weights]) => {
    const said = Object.entries(weights).map(([objective, weight]) => `${objective} ${weight.toFixed(2)}`);
    return new Option(`${name} (${said.join(", ")})`, name);
  });
  page.preset.replaceChildren(new Option("none", ""), ...options);
  find("preset-line").hidden = options.length === 0;
}

function leaveKeyForm() {
  page.key.value = "";
  if (page.keyForm.contains(document.activeElement)) page.prompt.focus();
  page.keyForm.hidden = true;
}

async function connect() {
  showError(page.error, null);
  try {
    const { objectives, presets } = await gateway.objectives();
    rows = objectives.map((objective) => new Row(objective, rewish));
    showPresets(presets);
    find("objectives").replaceChildren(...rows.map((row) => row.element));
    page.askForm.hidden = false;
    leaveKeyForm();
    showAbilities(await gateway.models());
    forget();
  } catch (error) {
    showError(page.error, error);
    // The form says already that a key is needed.
    if (error.status === 401 && !gateway.hasKey) page.error.hidden = true;
  }
}

page.keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  gateway.useKey(page.key.value);
  connect();
});
page.askForm.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
// A field that cannot be seen cannot say what is wrong with it.
page.askForm.addEventListener("invalid", () => (find("options").open = true), true);
page.prompt.addEventListener("input", forget);
page.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) page.askForm.requestSubmit();
});
page.recommend.addEventListener("click", () => {
  if (conversation() === null) page.prompt.reportValidity();
  else weigh();
});
page.preset.addEventListener("change", rewish);
page.further.addEventListener("input", () => {
  try {
    further();
    page.further.setCustomValidity("");
  } catch (error) {
    page.further.setCustomValidity(`Further fields: ${error.message}`);
  }
});
for (const part of [find("options"), page.code]) part.addEventListener("input", writeCode);
page.code.addEventListener("toggle", writeCode);
find("copy").addEventListener("click", copyCode);
page.stop.addEventListener("click", () => running?.abort());
find("restart").addEventListener("click", () => setHistory([]));
connect();
