// A sound that may still be growing, and where its stretches lie.
import { WavReader } from "./wav.js";

const BLOCK = 256; // samples whose peak is kept, so that hours are drawn as fast as seconds

export class Track extends EventTarget {
  length = 0; // samples
  complete = false;
  expectedSeconds = 0; // of the whole, while it is growing
  stretches = []; // [{first, last}] in samples: segments or cues
  #reader = new WavReader();
  #samples = new Float32Array(1 << 16);
  #peaks = [];

  get sampleRate() {
    return this.#reader.sampleRate;
  }

  get seconds() {
    return this.length ? this.length / this.sampleRate : 0;
  }

  /** What has come so far. */
  get samples() {
    return this.#samples.subarray(0, this.length);
  }

  /** Take the next piece of the wav file. */
  append(bytes) {
    const coming = this.#reader.read(bytes);
    if (this.length + coming.length > this.#samples.length) {
      const wider = new Float32Array(2 * (this.length + coming.length));
      wider.set(this.samples);
      this.#samples = wider;
    }
    this.#samples.set(coming, this.length);
    this.length += coming.length;
    this.#keepPeaks();
    this.dispatchEvent(new Event("grown"));
  }

  add(stretch) {
    this.stretches.push(stretch);
    this.dispatchEvent(new Event("grown"));
  }

  end() {
    this.complete = true;
    this.dispatchEvent(new Event("grown"));
  }

  /** Return how loud it gets between two samples, 0..1. */
  peak(first, last) {
    if (last - first < 2 * BLOCK) return loudest(this.samples.subarray(first, last));
    return loudest(this.#peaks.slice(Math.floor(first / BLOCK), Math.ceil(last / BLOCK)));
  }

  /** The last block may have been incomplete, so it is looked at again. */
  #keepPeaks() {
    this.#peaks.pop();
    for (let at = this.#peaks.length * BLOCK; at < this.length; at += BLOCK) {
      this.#peaks.push(loudest(this.samples.subarray(at, at + BLOCK)));
    }
  }
}

function loudest(values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}
