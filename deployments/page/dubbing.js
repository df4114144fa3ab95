// The view that dubs: subtitles in, one track out, and how each cue came out.
import { clock, download, fileEnding, make, rounded, sign } from "./dom.js";
import { Job } from "./job.js";
import { label, quote, say } from "./language.js";
import { wakeSound } from "./player.js";
import { ask, bytesOf, events, MODEL } from "./server.js";
import { serverWord } from "./takes.js";
import { Track } from "./track.js";
import { Transport } from "./transport.js";
import { wavFile } from "./wav.js";

const PATH = "v1/audio/dub";
const HEARD_FORMAT = "wav"; // its header tells the rate
const CAPTIONS = "srt"; // that come with the track; others are asked for
const VTT_SPEAKER = /<v(?:\.[^\s<>]*)?\s+([^<>]*)>/g; // as in subtitles.py

export class DubView {
  #form = document.getElementById("dub");
  #job = new Job(this.#form);
  #transport = new Transport(this.#form.querySelector(".player"), (index) => this.#markSounding(index));
  #file = null;
  #dubbed = null; // {name, request, track, report, captions}
  #coming = null; // the one that is being dubbed, which may not be shown yet

  constructor() {
    const file = this.#find("#cues-file");
    file.addEventListener("change", () => {
      const [chosen] = file.files;
      file.value = ""; // the same file, corrected, is a change as well
      this.#take(chosen);
    });
    this.#takeDrops();
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#file) this.#dub();
    });
    this.#form.addEventListener("change", () => this.#showFormat());
    this.#find(".download-audio").addEventListener("click", () => this.#downloadAudio());
    this.#find(".download-report").addEventListener("click", () => this.#downloadReport());
    this.#find(".download-srt").addEventListener("click", () => this.#downloadCaptions("srt"));
    this.#find(".download-vtt").addEventListener("click", () => this.#downloadCaptions("vtt"));
    this.#showFormat();
  }

  /** A file may be dropped anywhere on the view; elsewhere the browser would leave the page for it. */
  #takeDrops() {
    const over = (event, isOver) => {
      event.preventDefault();
      this.#form.toggleAttribute("data-over", isOver);
    };
    this.#form.addEventListener("dragover", (event) => over(event, true));
    this.#form.addEventListener("dragleave", (event) => over(event, false));
    this.#form.addEventListener("drop", (event) => {
      over(event, false);
      if (event.dataTransfer.files.length) this.#take(event.dataTransfer.files[0]);
    });
  }

  async #take(file) {
    if (!file) return;
    let cues;
    try { // letters that were guessed would be spoken
      cues = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    } catch {
      return this.#job.refuse("not_utf8", { name: file.name });
    }
    this.#find(".alert").hidden = true;
    this.#file = { name: file.name, cues };
    quote(this.#find(".drop-title"), file.name);
    this.#find('[type="submit"]').disabled = false;
    return this.#askForSpeakers(speakersIn(cues));
  }

  /** Let each speaker that is named in the file have a voice of their own. */
  #askForSpeakers(speakers) {
    const fields = [...speakers].map((speaker, index) => {
      const id = `speaker-${index}`;
      const voices = this.#find("#dub-voice").cloneNode(true);
      voices.removeAttribute("name");
      Object.assign(voices, { id, className: "speaker" });
      voices.dataset.speaker = speaker;
      voices.prepend(say(make("option", { value: "", selected: true }), "same_voice"));
      return make("div", { className: "field" }, say(make("label", { htmlFor: id }), "voice_of", { speaker }), voices);
    });
    this.#find(".speakers").replaceChildren(...fields);
  }

  #dub() {
    wakeSound();
    const began = performance.now();
    const dubbed = { name: this.#file.name, request: this.#request(), track: new Track(), report: null };
    this.#coming = dubbed;
    return this.#job.run(async (signal) => {
      this.#beginProgress();
      const wanted = { ...dubbed.request, response_format: HEARD_FORMAT, captions: CAPTIONS, stream_format: "sse" };
      try {
        for await (const event of events(PATH, wanted, { last: "dub.done", signal })) {
          if (this.#dubbed !== dubbed) this.#show(dubbed); // what was there stays until there is something new
          this.#hear(event);
        }
      } finally {
        if (this.#coming === dubbed) this.#find("progress").hidden = true;
        dubbed.track.end(); // also where it breaks off: nothing more comes
      }
      this.#end(began);
    });
  }

  #beginProgress() {
    const progress = this.#find("progress");
    progress.hidden = false;
    progress.removeAttribute("value"); // how many cues there are comes with the first
    this.#job.tell("dub_starts");
  }

  #show(dubbed) {
    this.#dubbed = dubbed;
    this.#find("tbody").replaceChildren();
    this.#transport.load(dubbed.track);
    this.#showDownloads();
    this.#find(".result").hidden = false;
  }

  #hear(event) {
    if (event.type === "dub.progress") {
      const { done, total, cue } = event;
      Object.assign(this.#find("progress"), { max: total, value: done });
      this.#job.tell("dubbing", { done, total });
      this.#showCue(cue);
    } else if (event.type === "dub.audio.delta") {
      this.#dubbed.track.append(bytesOf(event.audio));
    } else if (event.type === "dub.done") {
      Object.assign(this.#dubbed, event);
    }
  }

  /** The report has the last word on every cue: where it was placed is known only when all are spoken. */
  #end(began) {
    const { track, report } = this.#dubbed;
    this.#find("tbody").replaceChildren();
    for (const cue of report.cues) {
      this.#showCue(cue);
      track.add(stretchOf(cue, track.sampleRate));
    }
    this.#showDownloads();
    const flagged = report.cues.filter((cue) => cue.flags.length).length;
    const seconds = rounded((performance.now() - began) / 1000, 1);
    this.#job.tell(flagged ? "dubbed_flags" : "dubbed", { seconds, flagged, cues: report.cues.length });
  }

  /** Cues come in the order in which they are done, and are listed in that of the film. */
  #showCue(cue) {
    const body = this.#find("tbody");
    let before = body.lastElementChild;
    while (before && Number(before.dataset.index) > cue.index) before = before.previousElementSibling;
    body.insertBefore(this.#cueRow(cue), before ? before.nextElementSibling : body.firstElementChild);
  }

  #cueRow(cue) {
    const number = cue.index + 1;
    const cell = (className, ...content) => make("td", { className }, ...content);
    const seconds = (value) => (value === null ? "–" : rounded(value));
    const words = [make("span", { textContent: cue.text })];
    if (cue.speaker) words.unshift(make("b", { textContent: `${cue.speaker} ` }));
    if (cue.reason) words.push(make("p", { className: "note", textContent: cue.reason }));
    const button = label(make("button", { type: "button", className: "play" }, sign("play")), "play_cue", { number });
    button.disabled = !this.#dubbed.track.complete || cue.placed_seconds === null; // nothing to hear yet, or at all
    button.addEventListener("click", () => this.#playCue(cue));
    const row = make(
      "tr",
      {},
      cell("number", String(number)),
      cell("when", `${clock(cue.start_seconds)}–${clock(cue.end_seconds)}`),
      cell("words", ...words),
      cell("asked", seconds(cue.asked_seconds)),
      cell("got", seconds(cue.got_seconds)),
      cell("remarks", ...cue.flags.map((flag) => serverWord("flag", flag))),
      cell("hear", button),
    );
    row.dataset.index = cue.index;
    return row;
  }

  #playCue(cue) {
    const { first, last } = stretchOf(cue, this.#dubbed.track.sampleRate);
    this.#transport.player.play(first, last);
  }

  #markSounding(index) {
    [...this.#find("tbody").rows].forEach((row, at) => row.toggleAttribute("data-sounding", at === index));
  }

  #request() {
    const { cues } = this.#file;
    const request = { model: MODEL, voice: this.#find("#dub-voice").value, cues };
    for (const slider of this.#form.querySelectorAll("number-slider")) {
      if (slider.chosen !== null) request[slider.getAttribute("name")] = slider.chosen;
    }
    const speakers = [...this.#form.querySelectorAll(".speaker")].filter((select) => select.value);
    if (speakers.length) {
      request.voices = Object.fromEntries(speakers.map((select) => [select.dataset.speaker, select.value]));
    }
    return request;
  }

  #showFormat() {
    say(this.#find(".download-audio"), "download_format", { format: this.#find("#dub-format").value });
  }

  #showDownloads() {
    const { report, track } = this.#dubbed;
    const facts = this.#find(".result > .facts");
    for (const button of this.#form.querySelectorAll(".downloads button")) button.disabled = !report;
    const warnings = (report?.warnings ?? []).map((words) => make("li", { textContent: words }));
    this.#find(".warnings").replaceChildren(...warnings);
    if (!report) return quote(facts, "");
    const told = { seconds: rounded(track.seconds), cues: report.cues.length, rate: track.sampleRate };
    return say(facts, "track_facts", told);
  }

  #downloadAudio() {
    const { request, track } = this.#dubbed;
    const format = this.#find("#dub-format").value;
    const file = this.#fileName(fileEnding(format));
    if (format === HEARD_FORMAT) return download(wavFile(track.samples, track.sampleRate), file);
    return this.#deliver(file, async (signal) => {
      const { audio, media_type: type } = await this.#again({ ...request, response_format: format }, signal);
      return new Blob([bytesOf(audio)], { type });
    });
  }

  #downloadReport() {
    const report = JSON.stringify(this.#dubbed.report, null, 2);
    download(new Blob([report], { type: "application/json" }), this.#fileName("json"));
  }

  #downloadCaptions(captions) {
    const { request, captions: told } = this.#dubbed;
    const file = this.#fileName(captions);
    if (captions === CAPTIONS) return download(new Blob([told]), file);
    return this.#deliver(file, async (signal) => {
      return new Blob([(await this.#again({ ...request, captions }, signal)).captions]);
    });
  }

  /** The server has every cue in its cache; nothing is spoken a second time. */
  async #again(json, signal) {
    const response = await ask(PATH, { json, accept: "application/json", signal });
    return response.json();
  }

  #deliver(file, fetched) {
    return this.#job.beside(async (signal) => {
      this.#job.tell("preparing");
      download(await fetched(signal), file);
      this.#job.tell("downloaded", { file });
    });
  }

  /** film.srt → film.wav */
  #fileName(ending) {
    return `${this.#dubbed.name.replace(/\.[^.]*$/, "")}.${ending}`;
  }

  #find(selector) {
    return this.#form.querySelector(selector);
  }
}

/** Where a cue sounds, in samples of the track; nowhere, if nothing of it is heard. */
function stretchOf(cue, sampleRate) {
  return {
    first: Math.round((cue.placed_seconds ?? 0) * sampleRate),
    last: Math.round((cue.placed_end_seconds ?? 0) * sampleRate),
  };
}

/** The speakers that a file names, as the server will know them: WebVTT in voice tags, JSON in a field. */
function speakersIn(cues) {
  return new Set((namedInJson(cues) ?? namedInVtt(cues)).filter(Boolean));
}

function namedInJson(cues) {
  try {
    return JSON.parse(cues).map(({ speaker }) => String(speaker ?? "").trim().replace(/\s+/g, " "));
  } catch { // no JSON, or not as it should be, which the server will say
    return null;
  }
}

function namedInVtt(cues) {
  return [...cues.matchAll(VTT_SPEAKER)].map(([, speaker]) => unescaped(speaker).trim());
}

/** Tom &amp; Ann → Tom & Ann; whatever is written into a textarea stays text. */
const unescaped = (words) => make("textarea", { innerHTML: words }).textContent;
