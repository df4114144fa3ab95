// One thing that runs in a view: says how it stands, can be cancelled, and shows an error where it belongs.
import { quote, say, text } from "./language.js";
import { BrokenOff, ServerError, Unreachable } from "./server.js";

const running = new Set();

export function cancelAll() {
  for (const job of running) job.cancel();
}

export class Job {
  #root;
  #controller = null;

  /** `root` holds a .status, an .alert, maybe a .cancel, and the fields that an error may be about. */
  constructor(root) {
    this.#root = root;
    this.#find(".cancel")?.addEventListener("click", () => this.cancel());
    root.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
  }

  /** Do the work; whatever ran before is cancelled. `work(signal)` is told to stop through its signal. */
  async run(work) {
    this.cancel();
    const controller = new AbortController();
    this.#controller = controller;
    running.add(this);
    this.#begin();
    try {
      await work(controller.signal);
    } catch (error) {
      if (this.#controller !== controller) return; // another one runs by now, and has the say
      if (controller.signal.aborted) this.tell("cancelled");
      else this.#show(error);
    } finally {
      if (this.#controller === controller) this.#end();
    }
  }

  cancel() {
    this.#controller?.abort();
  }

  /** Say how it stands. */
  tell(key, values) {
    say(this.#find(".status"), key, values);
  }

  /** Show what the reader has to mend, in the page's own words; what runs goes on. */
  refuse(key, values) {
    const alert = this.#find(".alert");
    alert.hidden = false;
    say(alert, key, values);
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }

  #begin() {
    this.#find(".alert").hidden = true;
    for (const field of this.#root.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    quote(this.#find(".status"), "");
    this.#showRunning(true);
  }

  #end() {
    this.#controller = null;
    running.delete(this);
    this.#showRunning(false);
  }

  #showRunning(isRunning) {
    this.#root.toggleAttribute("data-running", isRunning);
    const cancel = this.#find(".cancel");
    if (cancel) cancel.hidden = !isRunning;
  }

  #show(error) {
    const alert = this.#find(".alert");
    quote(this.#find(".status"), "");
    alert.hidden = false;
    if (error instanceof ServerError) {
      const later = error.retryAfterSeconds;
      quote(alert, later ? `${error.message} ${text("try_again_later", { seconds: later })}` : error.message);
      this.#mark(error.param);
    } else if (error instanceof BrokenOff) {
      say(alert, "broken_off");
    } else if (error instanceof Unreachable) {
      say(alert, "unreachable", { reason: error.message });
    } else {
      quote(alert, error.message);
      throw error; // to the console: it is a bug of the page, or something a browser can't do
    }
  }

  /** Lead the reader to the field that the server named. */
  #mark(param) {
    const field = param && this.#find(`:is(input, select, textarea)[name="${CSS.escape(param)}"]`);
    if (!field) return;
    field.closest("details:not([open])")?.setAttribute("open", "");
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}
