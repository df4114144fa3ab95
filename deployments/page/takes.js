// Takes: what came of a request, once for each sample; cards to choose among them, and the segments of one.
import { clock, make, rounded, sign } from "./dom.js";
import { knows, label, phrase, quote, say } from "./language.js";
import { bytesOf } from "./server.js";
import { Track } from "./track.js";
import { Waveform } from "./waveform.js";

export class Take {
  track = new Track();
  segments = []; // rows of the manifest
  seed = null;

  /** `request` is what was asked for, so that the same can be asked for in another format. */
  constructor(request) {
    this.request = request;
  }

  /** Make one of an entry in the answer's `audios`. */
  static from(audio, request) {
    const take = new Take(request);
    take.seed = audio.seed;
    take.track.append(bytesOf(audio.audio));
    for (const segment of audio.manifest.segments) take.add(segment);
    take.track.end();
    return take;
  }

  add(segment) {
    this.segments.push(segment);
    this.track.add({ first: segment.start_sample, last: segment.end_sample });
  }

  /** The request that gives this very take again. */
  get again() {
    return { ...this.request, n: 1, seed: this.seed };
  }
}

/** Return a card for the take; `actions` are show, play, download and reuse. */
export function takeCard(take, number, actions) {
  const picture = document.createElement("canvas");
  picture.className = "waveform";
  const show = label(make("button", { type: "button", className: "show" }, picture), "show_sample", { number });
  const play = label(make("button", { type: "button", className: "play" }, sign("play")), "play_sample", { number });
  const seed = say(make("button", { type: "button", className: "plain reuse" }), "use_seed");
  const file = say(make("button", { type: "button", className: "plain" }), "download");
  const title = make("span", { className: "number", textContent: String(number) });
  const seconds = make("span", { className: "quiet", textContent: `${rounded(take.track.seconds)} s` });
  const told = say(make("p", { className: "quiet seed" }), "seed_told", { seed: take.seed });
  show.addEventListener("click", actions.show);
  play.addEventListener("click", actions.play);
  seed.addEventListener("click", actions.reuse);
  file.addEventListener("click", actions.download);
  const draw = () => new Waveform(picture).draw(take.track, 0);
  new ResizeObserver(draw).observe(picture);
  picture.addEventListener("theme", draw);
  const head = make("div", { className: "row" }, play, title, seconds);
  return make("li", {}, head, show, told, make("div", { className: "row" }, seed, file));
}

/** Return the row of a segment; `play` plays that stretch. */
export function segmentRow(segment, play) {
  const number = segment.index + 1;
  const button = label(make("button", { type: "button", className: "play" }, sign("play")), "play_segment", { number });
  button.addEventListener("click", play);
  const time = `${clock(segment.start_seconds)}–${clock(segment.end_seconds)}`;
  const words = make("p", { className: "words", textContent: segment.text });
  const facts = make("p", { className: "note facts" }, make("span", { textContent: time }), ...remarks(segment));
  return make("li", {}, button, make("div", {}, words, facts));
}

function remarks(segment) {
  const lengths = { got: rounded(segment.got_seconds), asked: rounded(segment.asked_seconds) };
  const ended = segment.finish_reason === "stop" ? "" : "fault";
  const nodes = [
    phrase("got_of_asked", lengths),
    serverWord("finish", segment.finish_reason, ended),
  ];
  const also = (key, values) => nodes.push(phrase(key, values));
  if (segment.attempts > 1) also("attempts", { attempts: segment.attempts });
  if (segment.candidates) also("best_of_told", { candidates: segment.candidates.length });
  if (segment.cached) also("cached");
  return [...nodes, ...segment.faults.map((fault) => make("span", { className: "fault", textContent: fault }))];
}

/** Show a word of the server's in the reader's language where the page knows it, else as it is. */
export function serverWord(kind, word, className = "fault") {
  const node = make("span", { className });
  const key = `${kind}_${word}`;
  if (knows(key)) say(node, key);
  else quote(node, word);
  return node;
}
