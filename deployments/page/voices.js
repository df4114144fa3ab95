// The view of voices: those that are kept, and a new one. Every choice of a voice on the page is filled from here.
import { make, rounded, sign } from "./dom.js";
import { Job } from "./job.js";
import { label, say } from "./language.js";
import { hushOthers } from "./player.js";
import { readable, Recorder } from "./recorder.js";
import { ask } from "./server.js";

const PATH = "v1/audio/voices";
const TICK_MS = 200;
const LOOK_AGAIN_SECONDS = 5; // where a server that isn't ready doesn't say when it will be

export class VoicesView {
  #list = document.querySelector("#voices .kept");
  #listed = ""; // what the rows show, as it was told
  #listJob = new Job(document.querySelector("#voices > div"));
  #form = document.getElementById("new-voice");
  #formJob = new Job(this.#form);
  #recorder = new Recorder();
  #recording = null; // the file that is to be sent
  #sample = new Audio();
  #heard = null; // {id} of the voice that was last asked to be heard
  #lookAgain = 0; // timer
  #onUse;

  /** `onUse()` is called when a voice was chosen to speak with. */
  constructor(onUse) {
    this.#onUse = onUse;
    this.#find("#record").addEventListener("click", () => this.#record());
    const file = this.#find("#recording-file");
    file.addEventListener("change", () => {
      const [chosen] = file.files;
      file.value = ""; // the same file, recorded anew, is a change as well
      if (chosen) this.#take(chosen, chosen.name);
    });
    for (const audio of [this.#sample, this.#find("audio")]) audio.addEventListener("play", () => hushOthers(audio));
    document.getElementById("voices").addEventListener("shown", () => this.refresh());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#keep();
    });
  }

  refresh() {
    return this.#listJob.run((signal) => this.#load(signal));
  }

  async #load(signal) {
    clearTimeout(this.#lookAgain);
    const response = await ask(PATH, { signal }).catch((error) => this.#refused(error));
    const listed = await response.text();
    if (listed === this.#listed) return; // rows stay: somebody may be about to press a button of theirs
    this.#listed = listed;
    const { data } = JSON.parse(listed);
    this.#list.replaceChildren(...data.map((voice) => this.#row(voice)));
    for (const select of document.querySelectorAll('select[name="voice"], select.speaker')) offer(select, data);
  }

  /** A model that is being loaded has its voices later. */
  #refused(error) {
    if (error.status === 503) {
      const seconds = error.retryAfterSeconds || LOOK_AGAIN_SECONDS;
      this.#lookAgain = setTimeout(() => this.refresh(), 1000 * seconds);
    }
    throw error;
  }

  #row(voice) {
    const { id, name, seconds, transcript, created_at: createdAt } = voice;
    const use = say(make("button", { type: "button", className: "plain" }), "use_voice");
    use.addEventListener("click", () => {
      choose(id);
      this.#onUse();
    });
    const who = make("div", { className: "who" }, titled(voice, "span"));
    if (seconds !== undefined) who.append(" ", voiceSeconds(seconds));
    if (transcript) who.append(make("p", { className: "note", textContent: transcript }));
    if (createdAt === 0) return make("li", {}, who, use); // it came with the model: no recording, and it stays
    const play = label(make("button", { type: "button", className: "play" }, sign("play")), "play_voice", { name });
    play.addEventListener("click", () => this.#play(id));
    const remove = say(make("button", { type: "button", className: "plain danger" }), "delete_voice");
    remove.addEventListener("click", () => this.#delete(voice, remove));
    remove.addEventListener("blur", () => say(remove, "delete_voice"));
    return make("li", {}, play, who, use, remove);
  }

  /** Let a voice be heard; one that sounds is stopped. */
  #play(id) {
    const stops = this.#heard?.id === id && !this.#sample.paused;
    const heard = (this.#heard = { id });
    this.#sample.pause();
    if (stops) return null;
    return this.#listJob.beside(async (signal) => {
      const response = await ask(`${PATH}/${id}/sample`, { signal });
      const recording = await response.blob();
      if (this.#heard !== heard) return; // another one was asked for meanwhile
      URL.revokeObjectURL(this.#sample.src);
      this.#sample.src = URL.createObjectURL(recording);
      await this.#sample.play().catch((error) => {
        if (error.name !== "AbortError") throw error; // it was hushed before it began
      });
    });
  }

  /** A voice is gone for good, so the button asks first. */
  #delete({ id, name }, button) {
    if (button.dataset.text !== "really_delete") return say(button, "really_delete");
    return this.#listJob.beside(async () => { // no signal: what was sent can't be taken back
      await ask(`${PATH}/${id}`, { method: "DELETE" });
      await this.#load();
      this.#listJob.tell("voice_deleted", { name });
    });
  }

  /** Start or stop; a second click has to wait for what the first one does. */
  async #record() {
    const button = this.#find("#record");
    button.disabled = true;
    try {
      await this.#startOrStop(button);
    } finally {
      button.disabled = false;
    }
  }

  async #startOrStop(button) {
    const state = this.#find(".recording-state");
    if (this.#recorder.recording) {
      say(button, "record");
      return this.#formJob.beside(async () => this.#show(await this.#recorder.stop(), "recording.wav"));
    }
    try {
      await this.#recorder.start();
    } catch (error) {
      return say(state, "no_microphone", { reason: error.message });
    }
    say(button, "stop_recording");
    const began = performance.now();
    const ticking = setInterval(() => {
      if (!this.#recorder.recording) return clearInterval(ticking);
      return say(state, "recording_runs", { seconds: Math.floor((performance.now() - began) / 1000) });
    }, TICK_MS);
    return button;
  }

  #take(file, name) {
    return this.#formJob.beside(async () => this.#show(await readable(file), name));
  }

  /** Let the recording be heard before it is sent. */
  #show(recording, name) {
    const state = this.#find(".recording-state");
    const player = this.#find("audio");
    this.#recording = new File([recording], name, { type: recording.type });
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(recording);
    player.hidden = false;
    player.onloadedmetadata = () => say(state, "recording_ready", { name, seconds: rounded(player.duration, 1) });
    player.onerror = () => say(state, "recording_unread", { name });
  }

  #keep() {
    return this.#formJob.run(async (signal) => {
      const form = new FormData();
      const recording = this.#recording;
      for (const name of ["name", "transcript", "consent"]) form.set(name, this.#find(`[name="${name}"]`).value);
      if (recording) form.set("audio_sample", recording);
      this.#formJob.tell("keeping");
      const voice = await (await ask(PATH, { form, signal })).json();
      await this.#load(signal);
      this.#form.reset();
      if (this.#recording === recording) this.#forget(); // else the next one has come meanwhile
      choose(voice.id);
      this.#formJob.tell("voice_kept", { name: voice.name });
    });
  }

  #forget() {
    const player = this.#find("audio");
    this.#recording = null;
    player.pause();
    player.hidden = true;
    say(this.#find(".recording-state"), "recording_note");
  }

  #find(selector) {
    return this.#form.querySelector(selector);
  }
}

/** Fill a choice of voices, and leave it at what was chosen. */
function offer(select, voices) {
  const before = select.value;
  const fixed = [...select.options].filter((option) => option.value === "");
  const offered = voices.map((voice) => Object.assign(titled(voice, "option"), { value: voice.id }));
  select.replaceChildren(...fixed, ...offered);
  if ([...select.options].some((option) => option.value === before)) select.value = before;
}

function choose(id) {
  for (const select of document.querySelectorAll('select[name="voice"]')) select.value = id;
}

function voiceSeconds(seconds) {
  return say(make("span", { className: "quiet" }), "voice_seconds", { seconds: rounded(seconds, 1) });
}

/** The model's own voice has no length, for it has no prompt; it goes by no name either. */
function titled({ name, seconds }, tag) {
  const node = document.createElement(tag);
  return seconds === undefined ? say(node, "own_voice") : Object.assign(node, { textContent: name });
}
