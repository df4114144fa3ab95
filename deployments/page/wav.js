// Reads 16-bit wav as it comes in, and writes it. Streams have no length in their header, so none is believed.

const FULL_SCALE = 32768;
const HEADER_BYTES = 44;

/** Takes a mono wav in pieces of any size and gives its samples back. */
export class WavReader {
  sampleRate = null; // Hz, once the header has come
  #unread = new Uint8Array(0);

  /** Return the samples that are complete now, -1..1. */
  read(bytes) {
    const held = new Uint8Array(this.#unread.length + bytes.length);
    held.set(this.#unread);
    held.set(bytes, this.#unread.length);
    const start = this.sampleRate ? 0 : this.#readHeader(held);
    const count = start === null ? 0 : (held.length - start) >> 1;
    this.#unread = held.slice(start === null ? 0 : start + 2 * count);
    const view = new DataView(held.buffer);
    return Float32Array.from({ length: count }, (_, index) => view.getInt16(start + 2 * index, true) / FULL_SCALE);
  }

  /** Return where the samples begin, or null while that is not there yet. */
  #readHeader(held) {
    const view = new DataView(held.buffer);
    const nameAt = (at) => String.fromCharCode(...held.subarray(at, at + 4));
    for (let at = 12; at + 8 <= held.length; at += 8 + view.getUint32(at + 4, true)) {
      if (nameAt(at) === "data") return at + 8;
      if (nameAt(at) === "fmt " && at + 16 <= held.length) this.sampleRate = view.getUint32(at + 12, true);
    }
    this.sampleRate = null;
    return null;
  }
}

/** Return the samples [N], -1..1, as a mono file. */
export function wavFile(samples, sampleRate) {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + 2 * samples.length));
  const name = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  name(0, "RIFF");
  view.setUint32(4, view.byteLength - 8, true);
  name(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // whole numbers
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, 2 * sampleRate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  name(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => {
    const scaled = Math.max(-FULL_SCALE, Math.min(FULL_SCALE - 1, Math.round(sample * FULL_SCALE)));
    view.setInt16(HEADER_BYTES + 2 * index, scaled, true);
  });
  return new Blob([view], { type: "audio/wav" });
}
