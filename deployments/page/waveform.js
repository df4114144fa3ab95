// The picture of a track: bars, marks where its stretches begin, and how far it has been played.

const BAR = 3; // CSS pixels from one bar to the next
const GAP = 1;

export class Waveform {
  #canvas;

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** Draw the track as far as it is there; `position` is the sample that sounds. */
  draw(track, position) {
    const pixels = window.devicePixelRatio;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    this.#canvas.width = width * pixels; // which also wipes what was there
    this.#canvas.height = height * pixels;
    if (!width || !track.sampleRate) return;
    const paint = this.#canvas.getContext("2d");
    paint.scale(pixels, pixels);
    const style = getComputedStyle(this.#canvas);
    const perPixel = samplesShown(track) / width;

    paint.fillStyle = style.getPropertyValue("--wave-mark");
    for (const { first } of track.stretches) if (first) paint.fillRect(Math.round(first / perPixel), 0, 1, height);

    for (let x = 0; x + BAR <= width; x += BAR) {
      const first = Math.round(x * perPixel);
      if (first >= track.length) break;
      const last = Math.min(track.length, Math.round((x + BAR) * perPixel));
      const bar = Math.max(1, track.peak(first, last) * height);
      paint.fillStyle = style.getPropertyValue(first < position ? "--wave-played" : "--wave");
      paint.fillRect(x, (height - bar) / 2, BAR - GAP, bar);
    }

    paint.fillStyle = style.getPropertyValue("--wave-played");
    if (position) paint.fillRect(Math.min(width - 1, position / perPixel), 0, 1.5, height);
  }

  /** Return the sample below a pointer. */
  sampleAt(event, track) {
    const box = this.#canvas.getBoundingClientRect();
    return Math.round(((event.clientX - box.left) / box.width) * samplesShown(track));
  }
}

/** A growing track is drawn on the width that the whole will need. */
function samplesShown(track) {
  return track.complete ? track.length : Math.max(track.length, track.expectedSeconds * track.sampleRate);
}
