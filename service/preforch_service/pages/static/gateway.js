// The gateway's HTTP interface, as far as the page needs it.
// In: a key and conversations. Out: parsed answers and events, or a GatewayError that can be shown as it is.

/** Where chats go, relative to the page. */
export const CHAT = "v1/chat/completions";

const WORDS = {
  400: "The gateway cannot work with this request",
  401: "The gateway does not know this key",
  403: "This key may not do that",
  404: "The gateway does not have that",
  408: "The request came too slowly",
  413: "This is more text than the gateway takes",
  429: "Too much is asked at the moment",
  500: "Something went wrong in the gateway or in the language model",
  502: "The language model gave no proper answer",
  503: "The gateway cannot answer now",
  504: "The language model took too long",
};

/** An error in plain words. `status` is 0 where no answer came. */
export class GatewayError extends Error {
  constructor(message, { status = 0, requestId = null } = {}) {
    super(requestId === null ? message : `${message} (Request id: ${requestId})`);
    this.status = status;
  }
}

/** What happened and, where it is known, why. */
function sentence(what, why) {
  const text = why ? `${what}: ${why.trim()}` : what;
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

async function refusal(response) {
  const { status } = response;
  // Proxies answer in other forms; and how a key is sent is the page's business.
  const said = status === 401 ? null : await response.json().catch(() => null);
  const retry = response.headers.get("Retry-After");
  const words = sentence(WORDS[status] ?? `The answer was an error (${status})`, said?.error?.message);
  return new GatewayError(retry === null ? words : `${words} Try again in ${retry} s.`, about(response));
}

function about(response) {
  return { status: response.status, requestId: response.headers.get("X-Request-Id") };
}

/** The data of server-sent events, as text. */
async function* eventData(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const received of events) {
        // Comments keep the connection alive, and may stand before an event.
        const event = received.replace(/^(?::.*\n)+/, "");
        if (event.startsWith("data:")) yield event.slice("data:".length).trim();
      }
    }
  } finally {
    // Closes the connection where the reader leaves early; what has failed already has been reported.
    reader.cancel().catch(() => {});
  }
}

export class Gateway {
  /** Kept in memory alone. */
  #key = null;

  useKey(key) {
    this.#key = key.trim();
  }

  get hasKey() {
    return this.#key !== null;
  }

  async #request(path, { body, signal } = {}) {
    const headers = {};
    if (this.#key !== null && !/^[\x21-\x7e]+$/.test(this.#key)) {
      throw new GatewayError("A key is made of plain letters, digits and signs, without spaces.");
    }
    if (this.#key !== null) headers.Authorization = `Bearer ${this.#key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const method = body === undefined ? "GET" : "POST";
    let response;
    try {
      const content = JSON.stringify(body);
      response = await fetch(path, { method, headers, signal, body: content, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new GatewayError("The gateway could not be reached. Does it run?");
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  async objectives() {
    return (await this.#request("objectives")).json();
  }

  /** The models that the key may use, or null where the gateway serves weights alone. */
  async models() {
    try {
      return (await (await this.#request("v1/models")).json()).data;
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  /** What would be used for a question: its messages, and weights and preset where they are set. */
  async weights(question, { signal }) {
    return (await this.#request("weights", { body: question, signal })).json();
  }

  /**
   * The events of a chat completion, each with the names of the fields that were ignored beside it.
   * Leaving the loop, or the signal, ends the generation.
   */
  async *chat(question, { signal }) {
    const body = { ...question, stream: true, stream_options: { include_usage: true } };
    const response = await this.#request(CHAT, { body, signal });
    const ignored = response.headers.get("X-Preference-Ignored");
    try {
      for await (const data of eventData(response.body)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) {
          throw new GatewayError(sentence("The answer broke off", event.error.message), about(response));
        }
        yield { ...event, ignored };
      }
    } catch (error) {
      if (error.name === "AbortError" || error instanceof GatewayError) throw error;
      // The connection is gone: falls through to the same words as an end without [DONE].
    }
    throw new GatewayError("The answer broke off: the connection was lost.", about(response));
  }
}
