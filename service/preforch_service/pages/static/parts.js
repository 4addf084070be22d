// What the page is put together from: a row per objective, an answer, a turn of the conversation.
// Whatever the gateway or the user says is put in as text, never as HTML.

const SOURCES = {
  orchestrator: "recommended by the orchestrator",
  user: "set by you",
  preset: "a preset's",
  blended: "partly set by you, the rest shared out as recommended",
  fallback: "the bundle's fallback",
};
const REASONS = {
  late: "because the orchestrator took too long",
  overloaded: "because the orchestrator has too much to do",
  failed: "because the orchestrator failed",
  unfamiliar: "moved towards the fallback because the prompt is unlike those of training",
};

const WORDS = { low: "at least", high: "at most" };

export const find = (id) => document.getElementById(id);

function clone(id) {
  return find(id).content.firstElementChild.cloneNode(true);
}

/** Fill a bar; the number beside it says the same to those who do not see it. */
function showWeight(parent, weight) {
  parent.querySelector(".bar > span").style.width = `${(weight ?? 0) * 100}%`;
  parent.querySelector(".value").textContent = weight === null ? "–" : weight.toFixed(2);
}

/** Show an error, or none. Where a key is missing, the form for it appears. */
export function showError(place, error) {
  place.textContent = error === null ? "" : error.message;
  place.hidden = error === null;
  if (error?.status === 401) find("key-form").hidden = false;
}

/** Where weights came from, and what changed them, in words. */
export function origin({ source, preset, reason, clamped }) {
  const parts = [SOURCES[source] ?? source];
  if (reason) parts[0] += `, ${REASONS[reason] ?? reason}`;
  if (preset) parts.push(`preset ${preset}`);
  const bounds = Object.entries(clamped).flatMap(([name, bound]) =>
    Object.entries(bound).map(([side, value]) => `${name} ${WORDS[side]} ${value.toFixed(2)}`),
  );
  if (bounds.length > 0) parts.push(`changed by bounds: ${bounds.join(", ")}`);
  return parts.join("; ");
}

/** What the weights that a user set amount to, in words. */
export function sumNote(own, objectives) {
  if (own.length === 0) return "";
  const sum = own.reduce((total, weight) => total + weight, 0);
  if (own.length === objectives) {
    if (sum === 0) return "At least one weight must be above 0.";
    return "All weights are yours; they are scaled to sum to 1.";
  }
  const tooMuch = "1.00 is the most while others are recommended.";
  const rest = sum > 1.0001 ? tooMuch : "the orchestrator shares out the rest.";
  return `What you set sums to ${sum.toFixed(2)}; ${rest}`;
}

/**
 * One objective: what is recommended, and a slider at the weight that will be used, which its user may move.
 * A weight that the user set stays where it was put; where another one is used in its place, that is said.
 */
export class Row {
  #used = null;
  #bar;
  #pin;
  #slider;
  #output;
  #onChange;

  constructor({ name, description, bounds: [low, high] }, onChange) {
    this.name = name;
    this.element = clone("objective-template");
    this.#bar = this.element.querySelector(".recommended");
    this.#pin = this.element.querySelector(".pin");
    this.#slider = this.element.querySelector(".slider");
    this.#output = this.element.querySelector(".own .value");
    this.#onChange = onChange;
    const allowed = [low > 0 && `at least ${low.toFixed(2)}`, high < 1 && `at most ${high.toFixed(2)}`];
    this.element.querySelector(".name").textContent = name;
    const about = [description, ...allowed].filter(Boolean).join("; ");
    this.element.querySelector(".description").textContent = about;
    this.#pin.setAttribute("aria-label", `Set ${name} myself`);
    this.#slider.setAttribute("aria-label", `Weight of ${name}`);
    this.#pin.addEventListener("change", () => this.#changed());
    this.#slider.addEventListener("input", () => {
      this.#pin.checked = true;
      this.#changed();
    });
    this.forget();
  }

  /** The weight that the user set, or null where that is left to the orchestrator. */
  get own() {
    return this.#pin.checked ? Number(this.#slider.value) : null;
  }

  /** What the gateway said; `recommended` is null where the orchestrator was not asked. */
  show({ recommended, used }) {
    if (recommended !== null) showWeight(this.#bar, recommended);
    this.#used = used;
    this.#update();
  }

  /** Nothing is known of the prompt as it is now. */
  forget() {
    showWeight(this.#bar, null);
    this.#used = null;
    this.#update();
  }

  #changed() {
    this.#update();
    this.#onChange();
  }

  #update() {
    const { own } = this;
    if (own === null && this.#used !== null) this.#slider.value = this.#used;
    const [set, used] = [own, this.#used].map((weight) => (weight === null ? "–" : weight.toFixed(2)));
    const asSet = own !== null && (this.#used === null || used === set);
    this.#output.textContent = own === null ? used : asSet ? set : `${set}, used ${used}`;
    this.element.classList.toggle("pinned", own !== null);
  }
}

/** One answer as it comes. */
export class Answer {
  #text;
  #facts;
  #next;

  constructor(title, onGoOn) {
    this.element = clone("answer-template");
    this.#text = this.element.querySelector(".text");
    this.#facts = this.element.querySelector(".facts");
    this.#next = this.element.querySelector("button");
    this.element.querySelector("h2").textContent = title;
    this.#next.addEventListener("click", () => onGoOn(this.#text.textContent));
  }

  /** Show the events of a chat completion until they end, fail or are stopped. */
  async show(events) {
    const started = performance.now();
    this.element.setAttribute("aria-busy", "true");
    this.#facts.textContent = "Waiting for the first words …";
    try {
      const last = {};
      for await (const event of events) {
        this.#take(event);
        last.usage = event.usage ?? last.usage;
        last.reason = event.choices[0]?.finish_reason ?? last.reason;
      }
      this.#facts.textContent = facts(last, (performance.now() - started) / 1000);
    } catch (error) {
      const stopped = error.name === "AbortError";
      this.#facts.textContent = stopped ? "Stopped." : "";
      if (!stopped) showError(this.element.querySelector(".error"), error);
    } finally {
      this.element.removeAttribute("aria-busy");
      this.#next.hidden = this.#text.textContent === "";
    }
  }

  #take({ choices: [choice], preference, ignored }) {
    if (preference) this.#about(preference, ignored);
    const text = choice?.delta.content;
    if (text) {
      this.#text.append(text);
      this.#facts.textContent = "";
    }
  }

  /** Under which weights the answer is, and what of the request had no say. */
  #about(preference, ignored) {
    const { weights, applied, advice } = preference;
    const unread = applied === false ? "; the model does not read them" : "";
    const advised = advice ? "; advice to a model that was not trained to follow them" : "";
    this.element.querySelector(".source").textContent = `Weights ${origin(preference)}${unread}${advised}`;
    this.element.querySelector(".used").replaceChildren(...Object.entries(weights).map(usedWeight));
    const note = this.element.querySelector(".ignored");
    note.textContent = `Fields that the gateway ignored: ${ignored}`;
    note.hidden = ignored === null;
  }
}

function usedWeight([name, weight]) {
  const item = clone("used-template");
  item.querySelector(".name").textContent = name;
  showWeight(item, weight);
  return item;
}

function facts({ usage, reason }, seconds) {
  const parts = [`${seconds.toFixed(1)} s`];
  if (usage) parts.unshift(`${usage.completion_tokens} tokens`);
  if (reason === "length") parts.push("cut off at the token limit");
  return parts.join(", ");
}

/** One turn of the conversation. */
export function turn({ role, content }) {
  const element = clone("turn-template");
  element.querySelector(".role").textContent = role === "user" ? "You" : "Model";
  element.querySelector(".text").textContent = content;
  return element;
}
