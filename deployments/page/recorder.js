// Records the microphone, and turns what a browser can read into a wav, which the server can.
import { text } from "./language.js";
import { wavFile } from "./wav.js";

// What phones and browsers record in, and the server doesn't read.
const TO_CONVERT = /^(audio|video)\/(mp4|x-m4a|m4a|aac|webm|3gpp)/;

export class Recorder {
  #recorder = null;
  #pieces = [];

  get recording() {
    return this.#recorder?.state === "recording";
  }

  async start() {
    if (!navigator.mediaDevices) throw new Error(text("insecure")); // absent on plain http
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    this.#pieces = [];
    this.#recorder = new MediaRecorder(stream);
    this.#recorder.addEventListener("dataavailable", ({ data }) => this.#pieces.push(data));
    this.#recorder.start();
  }

  /** Return what was recorded, as a wav. */
  async stop() {
    const recorder = this.#recorder;
    const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
    recorder.stop();
    await stopped;
    for (const microphone of recorder.stream.getTracks()) microphone.stop();
    return asWav(new Blob(this.#pieces));
  }
}

/** Return a file that the server reads, as far as that is known here: the file itself, or a wav of its sound. */
export async function readable(file) {
  if (!TO_CONVERT.test(file.type)) return file;
  return asWav(file).catch(() => file); // the server says better than this browser what is wrong with it
}

/** Mix a recording down to one channel. */
async function asWav(blob) {
  const context = new AudioContext();
  try {
    const sound = await context.decodeAudioData(await blob.arrayBuffer());
    const samples = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++) {
      const one = sound.getChannelData(channel);
      for (let at = 0; at < samples.length; at++) samples[at] += one[at] / sound.numberOfChannels;
    }
    return wavFile(samples, sound.sampleRate);
  } finally {
    context.close();
  }
}
