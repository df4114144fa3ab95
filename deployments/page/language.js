// Says things in the reader's language. A node keeps the key of what it says, so it can be said again in another.
import { STRINGS } from "./strings.js";

const KEPT_AS = "voice-serve.language";
const spokenHere = navigator.language.startsWith("ja") ? "ja" : "en";
let language = localStorage.getItem(KEPT_AS) ?? spokenHere;

export function text(key, values = {}) {
  return STRINGS[key][language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export const knows = (key) => key in STRINGS;

/** Let the node say it, now and after a change of language. */
export function say(node, key, values = {}) {
  node.dataset.text = key;
  node.dataset.values = JSON.stringify(values);
  node.textContent = text(key, values);
  return node;
}

/** Return a node that says it. */
export const phrase = (key, values) => say(document.createElement("span"), key, values);

/** Show words that are the same in every language, such as the server's. */
export function quote(node, words) {
  delete node.dataset.text;
  node.textContent = words;
}

/** Name a node that shows no words: a button with a sign, a picture. */
export function label(node, key, values = {}) {
  node.dataset.label = key;
  node.dataset.labelValues = JSON.stringify(values);
  node.setAttribute("aria-label", text(key, values));
  return node;
}

/** Say everything below `root` that has a key. */
export function translate(root) {
  for (const node of root.querySelectorAll("[data-text]")) {
    say(node, node.dataset.text, JSON.parse(node.dataset.values ?? "{}"));
  }
  for (const node of root.querySelectorAll("[data-label]")) {
    label(node, node.dataset.label, JSON.parse(node.dataset.labelValues ?? "{}"));
  }
  for (const node of root.querySelectorAll("[data-placeholder]")) node.placeholder = text(node.dataset.placeholder);
}

export function speakLanguage() {
  document.documentElement.lang = language;
  translate(document);
}

export function switchLanguage() {
  language = language === "en" ? "ja" : "en";
  localStorage.setItem(KEPT_AS, language);
  speakLanguage();
}
