// The playground: reads what its user wants, asks the gateway, and shows what comes.

import { Gateway } from "./gateway.js";
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
  sumNote: find("sum-note"),
  compare: find("compare"),
  ask: find("ask"),
  stop: find("stop"),
  recommend: find("recommend"),
  answers: find("answers"),
};

const gateway = new Gateway();
/** Turns that were settled by "Go on with this answer". */
let history = [];
/** One per objective, in the bundle's order. */
let rows = [];
let answersPossible = true;
/** Ends the running answers, or null. */
let running = null;
/** Ends the running question for weights, or null. */
let recommending = null;

/** The weights that the user set, by name. */
function ownWeights() {
  return Object.fromEntries(rows.filter((row) => row.own !== null).map((row) => [row.name, row.own]));
}

function noteSum() {
  const note = sumNote(Object.values(ownWeights()), rows.length);
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

function sampling() {
  return { max_tokens: numberIn("max-tokens"), temperature: numberIn("temperature"), seed: numberIn("seed") };
}

/** Ask for weights and show them; a later question ends this one. */
async function recommend(messages) {
  recommending?.abort();
  const mine = new AbortController();
  recommending = mine;
  try {
    const found = await gateway.weights(messages, { signal: mine.signal });
    for (const row of rows) row.recommend(found.weights[row.name] ?? null);
    page.origin.textContent = origin(found);
  } catch (error) {
    if (error.name !== "AbortError") showError(page.error, error);
  } finally {
    if (recommending === mine) recommending = null;
  }
}

/** The prompt is another one now: what is shown does not belong to it. */
function forget() {
  recommending?.abort();
  for (const row of rows) row.recommend(null);
  page.origin.textContent = "Not asked for yet.";
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

/** Which answers to ask for: title and weights. */
function wanted() {
  const weights = ownWeights();
  const recommended = { title: "Under recommended weights" };
  if (Object.keys(weights).length === 0) return [recommended];
  const own = { title: "Under your weights", weights };
  return page.compare.checked ? [recommended, own] : [own];
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
  const asked = wanted().map(({ title, weights }) => ({
    answer: new Answer(title, (text) => goOn(messages, text)),
    events: gateway.generate({ messages, weights, ...sampling() }, { signal }),
  }));
  setRunning(controller);
  page.status.textContent = "The answer is being written.";
  page.answers.replaceChildren(...asked.map(({ answer }) => answer.element));
  await Promise.all([recommend(messages), ...asked.map(({ answer, events }) => answer.show(events))]);
  setRunning(null);
  page.status.textContent = signal.aborted ? "Stopped." : "The answer has ended.";
}

async function submit() {
  const messages = conversation();
  if (messages === null || running !== null) return;
  showError(page.error, null);
  await (answersPossible ? ask(messages) : recommend(messages));
}

/** Where answers come from and, where weights change nothing about them, that. */
function aboutModels(models) {
  const names = `Answers come from ${models.map((model) => model.id).join(", ")}.`;
  if (models.every((model) => model.preference?.applied !== false)) return names;
  const ignored = "those that you set are shown, and change nothing in the answer.";
  return `${names} This model does not read weights: ${ignored}`;
}

/** What can be done here, given the models that the key may use (null: the gateway has none). */
function showAbilities(models) {
  answersPossible = models !== null && models.length > 0;
  document.body.classList.toggle("weights-only", !answersPossible);
  const action = answersPossible ? "asks for an answer" : "recommends weights";
  page.promptNote.textContent = `Ctrl+Enter ${action}.`;
  if (answersPossible) page.about.textContent = aboutModels(models);
  else if (models === null)
    page.about.textContent = "This gateway recommends weights; it has no language model.";
  else page.about.textContent = "This key may use no model here, only ask for weights.";
}

function leaveKeyForm() {
  page.key.value = "";
  if (page.keyForm.contains(document.activeElement)) page.prompt.focus();
  page.keyForm.hidden = true;
}

async function connect() {
  showError(page.error, null);
  try {
    const { objectives } = await gateway.objectives();
    rows = objectives.map((objective) => new Row(objective, noteSum));
    find("objectives").replaceChildren(...rows.map((row) => row.element));
    page.askForm.hidden = false;
    leaveKeyForm();
    showAbilities(await gateway.models());
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
page.prompt.addEventListener("input", forget);
page.prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) page.askForm.requestSubmit();
});
page.recommend.addEventListener("click", () => {
  showError(page.error, null);
  const messages = conversation();
  if (messages === null) page.prompt.reportValidity();
  else recommend(messages);
});
page.stop.addEventListener("click", () => running?.abort());
find("restart").addEventListener("click", () => setHistory([]));
connect();
