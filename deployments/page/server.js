// Asks the server. Addresses are relative to the page, so it works under any prefix of a proxy.

export const MODEL = "voice"; // requests must name one, and any name means the one that is served

const KEY_KEPT_AS = "voice-serve.key";

/** What the server refused, in its own words. */
export class ServerError extends Error {
  constructor({ message, param = null, code = null }, { status = 0, retryAfterSeconds = null } = {}) {
    super(message);
    Object.assign(this, { param, code, status, retryAfterSeconds });
  }
}

/** No answer came; the message is the browser's. */
export class Unreachable extends Error {}

/** The connection ended before the answer did. */
export class BrokenOff extends Error {}

let askForKey; // (reason) → promise of a key
let keyComing = null;

export function askForKeyWith(ask) {
  askForKey = ask;
}

/** Ask, and return the response if it is a success. `json` or `form` is sent by POST where no method is given. */
export async function ask(path, { json, form, method, accept = "*/*", signal } = {}) {
  for (;;) {
    const headers = { Accept: accept };
    const key = sessionStorage.getItem(KEY_KEPT_AS);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (json !== undefined) headers["Content-Type"] = "application/json";
    const body = json === undefined ? form : JSON.stringify(json);
    const asked = fetch(path, { method: method ?? (body ? "POST" : "GET"), headers, body, signal });
    const response = await asked.catch((error) => rethrow(error, Unreachable));
    if (response.ok) return response;
    const error = await refusal(response);
    if (response.status !== 401) throw error;
    await Promise.race([newKey(error), aborted(signal)]);
  }
}

/** Yield the events of a stream; BrokenOff if it ends without one of type `last`. */
export async function* events(path, json, { last, signal }) {
  const response = await ask(path, { json, accept: "text/event-stream", signal });
  for await (const line of linesOf(response)) {
    if (!line.startsWith("data:")) continue; // a comment that keeps the connection alive, or the end of an event
    const event = JSON.parse(line.slice("data:".length));
    if (event.error) throw new ServerError(event.error);
    yield event;
    if (event.type === last) return;
  }
  throw new BrokenOff();
}

async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = [];
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => rethrow(error, BrokenOff));
      if (done) return;
      const [end, ...lines] = value.split("\n");
      unread.push(end);
      for (const line of lines) {
        yield unread.join("");
        unread = [line];
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stopped listening knows why
  }
}

export function bytesOf(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at); // from() would list them all first
  return bytes;
}

async function refusal(response) {
  const retryAfter = response.headers.get("Retry-After");
  const told = { status: response.status, retryAfterSeconds: retryAfter && Number(retryAfter) };
  const words = await response.text();
  const error = errorIn(words);
  if (typeof error?.message === "string") return new ServerError(error, told);
  // not ours: a proxy in between has its own way to say no
  return new ServerError({ message: `${response.status} ${words || response.statusText}` }, told);
}

function errorIn(words) {
  try {
    return JSON.parse(words)?.error;
  } catch {
    return null;
  }
}

/** Browsers say of a lost connection no more than TypeError; whatever else went wrong is left as it is. */
function rethrow(error, Lost) {
  throw error instanceof TypeError ? new Lost(error.message) : error;
}

function aborted(signal) {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}

/** Everything that is refused at the same time waits for the same key. */
async function newKey(error) {
  keyComing ??= askForKey(error.message).finally(() => (keyComing = null));
  sessionStorage.setItem(KEY_KEPT_AS, await keyComing);
}
