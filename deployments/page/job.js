// What runs in a view: says how it stands, can be cancelled, and shows an error where it belongs.
import { quote, say, text } from "./language.js";
import { BrokenOff, ServerError, Unreachable } from "./server.js";

const running = new Set();

export function cancelShown() {
  for (const job of running) if (!job.hidden) job.cancel();
}

export class Job {
  #root;
  #controllers = new Set(); // one for everything that runs
  #main = null; // the one among them that run() began

  /** `root` holds a .status, an .alert, maybe a .cancel, and the fields that an error may be about. */
  constructor(root) {
    this.#root = root;
    this.#find(".cancel")?.addEventListener("click", () => this.cancel());
    root.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
  }

  /** Do the work in place of what was run before. `work(signal)` is told to stop through its signal. */
  run(work) {
    this.#main?.abort();
    this.#controllers.delete(this.#main); // it has no say any more
    this.#main = new AbortController();
    this.#begin();
    return this.#do(work, this.#main);
  }

  /** Do work that is in nobody's way: whatever runs goes on. */
  beside(work) {
    if (!this.#controllers.size) this.#begin();
    return this.#do(work, new AbortController());
  }

  cancel() {
    for (const controller of this.#controllers) controller.abort();
  }

  get hidden() {
    return this.#root.closest("[hidden]") !== null;
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

  async #do(work, controller) {
    this.#controllers.add(controller);
    running.add(this);
    this.#showRunning(true);
    try {
      await work(controller.signal);
    } catch (error) {
      if (!this.#controllers.has(controller)) return; // another one runs in its place
      if (controller.signal.aborted) this.tell("cancelled");
      else this.#show(error);
    } finally {
      this.#controllers.delete(controller);
      if (!this.#controllers.size) this.#end();
    }
  }

  #begin() {
    this.#find(".alert").hidden = true;
    for (const field of this.#root.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    quote(this.#find(".status"), "");
  }

  #end() {
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
