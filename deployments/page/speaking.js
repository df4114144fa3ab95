// The view that speaks a text: what is asked for, the takes that come of it, and what can be done with them.
import { download, fileEnding, make, rounded } from "./dom.js";
import { Job } from "./job.js";
import { phrase, quote, say } from "./language.js";
import { wakeSound } from "./player.js";
import { ask, bytesOf, events, MODEL } from "./server.js";
import { segmentRow, Take, takeCard } from "./takes.js";
import { Transport } from "./transport.js";
import { wavFile } from "./wav.js";

const PATH = "v1/audio/speech";
const ESTIMATE_AFTER_MS = 400; // of quiet at the keyboard
// Heard and drawn in any case: its header tells the rate, and its samples are those of every other format.
const HEARD_FORMAT = "wav";

export class SpeakView {
  #form = document.getElementById("speak");
  #result = this.#form.querySelector(".result");
  #job = new Job(this.#form);
  #transport = new Transport(this.#form.querySelector(".player"), (index) => this.#markSounding(index));
  #takes = [];
  #shown = null;
  #estimateTimer = 0;
  #estimating = new AbortController();

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.speak();
    });
    this.#form.addEventListener("input", () => this.#settingsChanged());
    this.#form.addEventListener("change", () => this.#settingsChanged());
    this.#find("#defaults").addEventListener("click", () => this.#reset());
    this.#find(".download-audio").addEventListener("click", () => this.#downloadAudio(this.#shown));
    this.#find(".download-srt").addEventListener("click", () => this.#downloadCaptions("srt"));
    this.#find(".download-vtt").addEventListener("click", () => this.#downloadCaptions("vtt"));
    this.#find(".same-seed").addEventListener("click", () => {
      this.#reuseSeed(this.#shown);
      this.speak();
    });
    this.#settingsChanged();
  }

  /** Speak what stands there, as it is set. */
  speak() {
    wakeSound();
    return this.#job.run((signal) => {
      const request = this.#request();
      const began = performance.now();
      return request.n ? this.#speakSeveral(request, began, signal) : this.#speakOne(request, began, signal);
    });
  }

  /** One sample is heard while it is being spoken. */
  async #speakOne(request, began, signal) {
    const take = new Take(request);
    let firstSound = null;
    take.track.expectedSeconds = this.#estimatedSeconds();
    this.#job.tell("working");
    const stream = { ...request, response_format: HEARD_FORMAT, stream_format: "sse" };
    try {
      for await (const event of events(PATH, stream, { last: "speech.audio.done", signal })) {
        if (event.segment) {
          if (firstSound) this.#showSegment(event.segment); // before it can sound
          take.add(event.segment);
        }
        if (event.audio) take.track.append(bytesOf(event.audio));
        if (take.track.length && !firstSound) {
          firstSound = secondsSince(began);
          this.#showTakes([take]);
          this.#showWarnings([]); // those of this request come at its end
          this.#transport.player.play(0);
          this.#job.tell("first_sound", { seconds: firstSound });
        }
        if (event.type === "speech.audio.done") {
          take.seed = event.seed;
          this.#showWarnings(event.warnings);
        }
      }
    } finally {
      take.track.end(); // what came before a failure can still be heard
      if (signal.aborted) this.#transport.player.pause();
    }
    this.#showFacts(take);
    this.#job.tell("spoken_first_sound", { seconds: secondsSince(began), first: firstSound });
  }

  /** Several samples are spoken in one pass, and come together. */
  async #speakSeveral(request, began, signal) {
    this.#job.tell("working");
    const json = { ...request, response_format: HEARD_FORMAT, manifest: true };
    const response = await ask(PATH, { json, accept: "application/json", signal });
    const { audios, warnings } = await response.json();
    this.#showTakes(audios.map((audio) => Take.from(audio, request)));
    this.#showWarnings(warnings);
    this.#job.tell("spoken", { seconds: secondsSince(began) });
  }

  /** What is set and differs from the server's own choice. */
  #request() {
    const request = { model: MODEL, input: this.#find("#input").value, voice: this.#find("#voice").value };
    for (const slider of this.#form.querySelectorAll("number-slider")) {
      if (slider.chosen !== null) request[slider.getAttribute("name")] = slider.chosen;
    }
    if (this.#find("#seed").value !== "") request.seed = Number(this.#find("#seed").value);
    return request;
  }

  #settingsChanged() {
    this.#slider("speed").disabled = this.#slider("seconds").chosen !== null; // they contradict each other
    for (const name of ["top_k", "top_p"]) this.#slider(name).disabled = this.#slider("min_p").chosen !== null;
    say(this.#find(".download-audio"), "download_format", { format: this.#find("#response_format").value });
    clearTimeout(this.#estimateTimer);
    this.#estimateTimer = setTimeout(() => this.#estimate(), ESTIMATE_AFTER_MS);
  }

  /** Say how long it would be; what is wrong with the request is said when it is asked for. */
  async #estimate() {
    const line = this.#find("#estimate");
    this.#estimating.abort();
    this.#estimating = new AbortController();
    quote(line, "");
    if (!this.#find("#input").value.trim()) return;
    const { signal } = this.#estimating;
    const response = await ask(`${PATH}/estimate`, { json: this.#request(), signal }).catch(() => null);
    const estimate = await response?.json().catch(() => null);
    if (!estimate || signal.aborted) return;
    const told = { seconds: rounded(estimate.seconds, 1), segments: estimate.segments.length };
    line.replaceChildren(phrase(told.segments === 1 ? "estimate_of_one" : "estimate", told));
    line.append(phrase("estimate_ready", { seconds: rounded(estimate.expected_seconds, 1) }));
    this.#slider("seconds").suggest(estimate.seconds.toFixed(1));
  }

  #estimatedSeconds() {
    return Number(this.#form.querySelector('[name="seconds"] input[type="number"]').value);
  }

  #showTakes(takes) {
    this.#takes = takes;
    const cards = takes.map((take, index) =>
      takeCard(take, index + 1, {
        show: () => this.#show(take),
        play: () => this.#play(take),
        reuse: () => this.#reuseSeed(take),
        download: () => this.#downloadAudio(take),
      }),
    );
    const list = this.#find(".takes");
    list.replaceChildren(...cards);
    list.hidden = takes.length === 1;
    this.#result.hidden = false;
    this.#show(takes[0]);
    this.#find(".player").scrollIntoView({ block: "nearest" }); // on a phone it may lie below the settings
  }

  #show(take) {
    this.#shown = take;
    this.#find(".takes").childNodes.forEach((card, index) => {
      card.toggleAttribute("data-shown", this.#takes[index] === take);
    });
    this.#transport.load(take.track);
    this.#find(".segments").replaceChildren();
    for (const segment of take.segments) this.#showSegment(segment);
    this.#showFacts(take);
  }

  #play(take) {
    if (this.#shown !== take) this.#show(take);
    this.#transport.player.play(0);
  }

  #showSegment(segment) {
    const play = () => this.#transport.player.play(segment.start_sample, segment.end_sample);
    this.#find(".segments").append(segmentRow(segment, play));
  }

  /** What is known when all is spoken; nothing can be fetched again before its seed is. */
  #showFacts(take) {
    const known = take.seed !== null;
    for (const button of this.#result.querySelectorAll(".downloads button")) button.disabled = !known;
    const { seconds, sampleRate: rate } = take.track;
    if (known) say(this.#find(".result > .facts"), "facts", { seconds: rounded(seconds), seed: take.seed, rate });
    else quote(this.#find(".result > .facts"), "");
  }

  /** Say what of the request has no effect, as the server says it. */
  #showWarnings(warnings) {
    this.#find(".warnings").replaceChildren(...warnings.map((words) => make("li", { textContent: words })));
  }

  #markSounding(index) {
    this.#find(".segments").childNodes.forEach((row, at) => row.toggleAttribute("data-sounding", at === index));
  }

  #reuseSeed(take) {
    this.#find("#seed").value = take.seed;
    this.#job.tell("seed_taken", { seed: take.seed });
    this.#settingsChanged();
  }

  /** The samples are here; every other format is written by the server, which has the segments in its cache. */
  #downloadAudio(take) {
    const format = this.#find("#response_format").value;
    const file = `speech-${take.seed}.${fileEnding(format)}`;
    if (format === HEARD_FORMAT) return download(wavFile(take.track.samples, take.track.sampleRate), file);
    return this.#deliver(file, async (signal) => {
      const response = await ask(PATH, { json: { ...take.again, response_format: format }, signal });
      return response.blob();
    });
  }

  #downloadCaptions(captions) {
    const take = this.#shown;
    return this.#deliver(`speech-${take.seed}.${captions}`, async (signal) => {
      const json = { ...take.again, response_format: HEARD_FORMAT, captions };
      const response = await ask(PATH, { json, accept: "application/json", signal });
      const { audios } = await response.json();
      return new Blob([audios[0].captions]);
    });
  }

  #deliver(file, fetched) {
    return this.#job.beside(async (signal) => {
      this.#job.tell("preparing");
      download(await fetched(signal), file);
      this.#job.tell("downloaded", { file });
    });
  }

  #reset() {
    for (const slider of this.#form.querySelectorAll("number-slider")) slider.reset();
    this.#find("#seed").value = "";
    this.#settingsChanged();
  }

  #slider(name) {
    return this.#find(`number-slider[name="${name}"]`);
  }

  #find(selector) {
    return this.#form.querySelector(selector);
  }
}

function secondsSince(began) {
  return rounded((performance.now() - began) / 1000);
}
