// Plays tracks through WebAudio, also while they are still growing. One thing sounds at a time.

const PIECE_SECONDS = 20; // handed to the browser at once; a film's track is not copied as a whole
const PIECES_AHEAD = 2;
const LEAD_SECONDS = 0.02; // a start that lies in the past would cut the first samples off

let context = null;
let sounding = null; // a player, or an audio element

/** Call it with what begins to sound. */
export function hushOthers(next) {
  if (sounding !== next) sounding?.pause();
  sounding = next;
}

/** Browsers let a page make sound only if this was first called from a click or a key. */
export function wakeSound() {
  context ??= new AudioContext();
  if (context.state !== "running") context.resume().catch(() => {}); // "interrupted": iOS, when the page was left
}

export class Player extends EventTarget {
  track = null;
  #playing = false;
  #resting = 0; // sample, while nothing sounds
  #last = Infinity; // sample to stop at
  #pieces = []; // {first, last, startsAt, source}: samples, and seconds of the context's clock
  #grown = () => this.#schedule();

  load(track) {
    this.pause();
    this.track?.removeEventListener("grown", this.#grown);
    this.track = track;
    this.track.addEventListener("grown", this.#grown);
    this.#resting = 0;
    this.#tell();
  }

  get playing() {
    return this.#playing;
  }

  /** The sample that sounds now. */
  get position() {
    if (!this.#playing) return this.#resting;
    const now = context.currentTime;
    const piece = this.#pieces.findLast((one) => one.startsAt <= now);
    if (!piece) return this.#resting;
    return Math.min(piece.last, piece.first + Math.round((now - piece.startsAt) * this.track.sampleRate));
  }

  /** Play from one sample to another; of a growing track also what isn't there yet. */
  play(first = this.#resting, last = Infinity) {
    wakeSound();
    hushOthers(this);
    this.#silence();
    this.#playing = true;
    this.#resting = first < this.track.length || !this.track.complete ? first : 0;
    this.#last = last;
    this.#schedule();
    this.#tell();
  }

  pause() {
    if (!this.#playing) return;
    this.#resting = this.position;
    this.#silence();
    this.#tell();
  }

  toggle() {
    if (this.#playing) this.pause();
    else this.play();
  }

  seek(sample) {
    const target = Math.max(0, Math.min(sample, this.track.length));
    if (this.#playing) this.play(target);
    else this.#resting = target;
    this.#tell();
  }

  #schedule() {
    if (!this.#playing) return;
    const { track } = this;
    const end = Math.min(this.#last, track.length);
    let first = this.#pieces.at(-1)?.last ?? this.#resting;
    while (first < end && this.#unheard.length < PIECES_AHEAD) {
      const last = Math.min(end, first + PIECE_SECONDS * track.sampleRate);
      this.#pieces.push(this.#sound(first, last));
      first = last;
    }
    if (first >= end && !this.#unheard.length && (track.complete || first >= this.#last)) this.#finish(first);
  }

  get #unheard() {
    return this.#pieces.filter((piece) => !piece.heard);
  }

  #sound(first, last) {
    const { track } = this;
    const buffer = context.createBuffer(1, last - first, track.sampleRate);
    buffer.copyToChannel(track.samples.subarray(first, last), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    const before = this.#pieces.at(-1);
    const joins = before ? before.startsAt + (before.last - before.first) / track.sampleRate : 0;
    const piece = { first, last, source, heard: false, startsAt: Math.max(joins, context.currentTime + LEAD_SECONDS) };
    source.connect(context.destination);
    source.onended = () => {
      piece.heard = true;
      // This one tells the position until the next begins. Those before it would be 345 MB in an hour.
      this.#pieces.splice(0, this.#pieces.indexOf(piece));
      this.#schedule();
    };
    source.start(piece.startsAt);
    return piece;
  }

  /** Rest where a stretch ended; a whole track is rewound. */
  #finish(at) {
    this.#silence();
    this.#resting = at >= this.track.length ? 0 : at;
    this.#tell();
  }

  #silence() {
    this.#playing = false;
    for (const { source } of this.#pieces) {
      source.onended = null;
      source.stop();
    }
    this.#pieces = [];
  }

  #tell() {
    this.dispatchEvent(new Event("changed"));
  }
}
