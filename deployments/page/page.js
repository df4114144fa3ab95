// Puts the page together: views and their tabs, language, light and dark, the key, the keyboard.
import "./number-slider.js";
import { DubView } from "./dubbing.js";
import { cancelShown } from "./job.js";
import { quote, speakLanguage, switchLanguage } from "./language.js";
import { ask, askForKeyWith } from "./server.js";
import { SpeakView } from "./speaking.js";
import { VoicesView } from "./voices.js";

const THEME_KEPT_AS = "voice-serve.theme";
const DARK = matchMedia("(prefers-color-scheme: dark)");
const WIDE = matchMedia("(min-width: 60rem)"); // as in page.css

const tabs = [...document.querySelectorAll('[role="tab"]')];

function showView(name) {
  for (const tab of tabs) {
    const shown = tab.id === `${name}-tab`;
    tab.setAttribute("aria-selected", shown);
    tab.tabIndex = shown ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !shown;
  }
  document.getElementById(name).dispatchEvent(new Event("shown"));
}

function wireTabs() {
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => showView(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs.at((index + step) % tabs.length);
      showView(next.getAttribute("aria-controls"));
      next.focus();
    });
  }
}

function wireTheme() {
  const theme = document.documentElement.dataset;
  const repaint = () => { // pictures don't follow by themselves
    for (const picture of document.querySelectorAll("canvas")) picture.dispatchEvent(new Event("theme"));
  };
  theme.theme = localStorage.getItem(THEME_KEPT_AS) ?? "";
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = theme.theme ? theme.theme === "dark" : DARK.matches;
    theme.theme = isDark ? "light" : "dark";
    localStorage.setItem(THEME_KEPT_AS, theme.theme);
    repaint();
  });
  DARK.addEventListener("change", repaint);
}

function wireKey() {
  const form = document.getElementById("key");
  const field = document.getElementById("key-value");
  askForKeyWith((reason) => {
    quote(document.getElementById("key-reason"), reason);
    form.hidden = false;
    field.focus();
    return new Promise((resolve) => {
      form.onsubmit = (event) => {
        event.preventDefault();
        form.hidden = true;
        resolve(field.value);
      };
    });
  });
}

function wireKeyboard(speaking) {
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229) return; // the input method's; Safari says it by the code alone
    if (event.key === "Escape") cancelShown();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.getElementById("speak").hidden) {
      event.preventDefault();
      speaking.speak();
    }
  });
}

/** Show which model speaks. A request may name any, so nothing has to wait for this. */
async function showModel() {
  const response = await ask("v1/models");
  const { data } = await response.json();
  document.getElementById("model").textContent = data[0].id;
}

function start() {
  speakLanguage();
  wireTabs();
  wireTheme();
  wireKey();
  document.getElementById("language").addEventListener("click", switchLanguage);
  for (const settings of document.querySelectorAll(".settings")) settings.open = WIDE.matches;
  const speaking = new SpeakView();
  new DubView();
  wireKeyboard(speaking);
  const voices = new VoicesView(() => showView("speak"));
  document.getElementById("add-voice").addEventListener("click", () => showView("voices"));
  voices.refresh();
  showModel().catch(() => {}); // whoever asks for something is told what is wrong
}

start();
