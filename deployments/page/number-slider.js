// <number-slider name min max step value>: a slider and its number, which may lie beyond the slider's ends.
// With `automatic` instead of a value, the server decides until somebody sets it.
import { make } from "./dom.js";
import { phrase, say } from "./language.js";

let count = 0;

class NumberSlider extends HTMLElement {
  #range;
  #number;
  #automatic = null; // the checkbox, where there is one

  connectedCallback() {
    const id = `number-${++count}`;
    const name = this.getAttribute("name");
    const limits = Object.fromEntries(["min", "max", "step"].map((one) => [one, this.getAttribute(one)]));
    this.#range = make("input", { type: "range", tabIndex: -1, ...limits });
    this.#range.setAttribute("aria-hidden", "true"); // the number says and takes the same
    const { step } = limits;
    this.#number = make("input", { type: "number", id, name, step, inputMode: "decimal" });
    const title = say(make("label", { htmlFor: id }), name);
    this.append(title, this.#number, this.#range);
    if (this.hasAttribute("automatic")) this.#offerAutomatic(title);
    this.#range.addEventListener("input", () => this.#set(this.#range.value));
    this.#number.addEventListener("input", () => this.#follow(this.#number.value)); // what is typed is left alone
    this.reset();
  }

  /** The number, or null where the server decides: it is automatic, or as the server has it anyway. */
  get chosen() {
    const number = this.#number.valueAsNumber; // NaN where there is none, or only the beginning of one
    if (this.#number.disabled || this.#automatic?.checked || Number.isNaN(number)) return null;
    return this.hasAttribute("value") && number === Number(this.getAttribute("value")) ? null : number;
  }

  set disabled(disabled) {
    this.toggleAttribute("disabled", disabled);
    for (const input of this.querySelectorAll("input")) input.disabled = disabled;
  }

  reset() {
    if (this.#automatic) this.#automatic.checked = true;
    this.#set(this.getAttribute("value") ?? "");
    this.#showAutomatic();
  }

  /** Show what the server would choose, as long as it is the one who chooses. */
  suggest(value) {
    if (!this.#automatic.checked) return;
    this.#range.max = Math.max(this.getAttribute("max"), Math.ceil(2 * value));
    this.#set(value);
  }

  #set(value) {
    this.#number.value = value;
    this.#follow(value);
  }

  /** Put the slider where the number is. */
  #follow(value) {
    this.#range.value = value;
    const { min, max } = this.#range;
    this.#range.style.setProperty("--filled", `${(100 * (this.#range.value - min)) / (max - min)}%`);
  }

  #offerAutomatic(title) {
    this.#automatic = make("input", { type: "checkbox" });
    const words = phrase("automatic");
    title.after(make("label", { className: "automatic" }, this.#automatic, words));
    this.#automatic.addEventListener("change", () => this.#showAutomatic());
    for (const input of [this.#range, this.#number]) {
      input.addEventListener("input", () => {
        this.#automatic.checked = false;
        this.#showAutomatic();
      });
    }
  }

  #showAutomatic() {
    this.classList.toggle("is-automatic", Boolean(this.#automatic?.checked));
  }
}

customElements.define("number-slider", NumberSlider);
