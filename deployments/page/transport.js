// What a track is heard and seen with: button, picture, time.
import { clock } from "./dom.js";
import { label, text, translate } from "./language.js";
import { Player } from "./player.js";
import { Waveform } from "./waveform.js";

const STEP_SECONDS = 1; // of an arrow key

export class Transport {
  player = new Player();
  #button;
  #canvas;
  #time;
  #waveform;
  #onStretch;
  #stretch = -1; // the one that sounds, or -1
  #grown = () => this.#drawSoon();
  #frame = 0; // asked for, or 0: one at a time, however much happens in between

  /** `onStretch(index)` is told which stretch of the track sounds, -1 for none, whenever that changes. */
  constructor(root, onStretch) {
    root.append(document.getElementById("player").content.cloneNode(true));
    translate(root);
    this.#button = root.querySelector(".play");
    this.#canvas = root.querySelector("canvas");
    this.#time = root.querySelector(".time");
    this.#waveform = new Waveform(this.#canvas);
    this.#onStretch = onStretch;
    this.#button.addEventListener("click", () => this.player.toggle());
    this.player.addEventListener("changed", () => this.#show());
    this.#canvas.addEventListener("pointerdown", (event) => this.#seekWith(event));
    this.#canvas.addEventListener("pointermove", (event) => event.buttons && this.#seekWith(event));
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    this.#canvas.addEventListener("theme", () => this.#draw());
  }

  load(track) {
    this.player.track?.removeEventListener("grown", this.#grown);
    track.addEventListener("grown", this.#grown);
    this.player.load(track);
  }

  #show() {
    label(this.#button, this.player.playing ? "pause" : "play");
    this.#button.classList.toggle("sounding", this.player.playing);
    this.#drawSoon();
  }

  #drawSoon() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
      if (this.player.playing) this.#drawSoon();
    });
  }

  #draw() {
    const { track, position } = this.player;
    if (!track) return;
    const rate = track.sampleRate ?? 1;
    const [now, whole] = [clock(position / rate), clock(track.seconds)];
    this.#button.disabled = !track.length;
    this.#waveform.draw(track, position);
    this.#time.textContent = `${now} / ${whole}`;
    this.#canvas.setAttribute("aria-valuemax", track.seconds.toFixed(1));
    this.#canvas.setAttribute("aria-valuenow", (position / rate).toFixed(1));
    this.#canvas.setAttribute("aria-valuetext", text("position_told", { position: now, length: whole }));
    this.#tellStretch();
  }

  #tellStretch() {
    const { playing, position, track } = this.player;
    const index = playing ? track.stretches.findIndex(({ first, last }) => position >= first && position < last) : -1;
    if (index === this.#stretch) return;
    this.#stretch = index;
    this.#onStretch(index);
  }

  #seekWith(event) {
    const { track } = this.player;
    if (track?.length) this.player.seek(this.#waveform.sampleAt(event, track));
  }

  #key(event) {
    const { track, position } = this.player;
    if (!track?.length) return;
    const step = STEP_SECONDS * track.sampleRate;
    const targets = { ArrowLeft: position - step, ArrowRight: position + step, Home: 0, End: track.length };
    if (event.key === " ") this.player.toggle();
    else if (event.key in targets) this.player.seek(targets[event.key]);
    else return;
    event.preventDefault();
  }
}
