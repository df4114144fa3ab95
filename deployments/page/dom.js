// The few things done to documents everywhere.

export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
const SIGNS = { play: "M5 3.2v13.6L17 10z", stop: "M4.5 4.5h11v11h-11z" };

export function sign(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 20 20");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", SIGNS[name]);
  path.setAttribute("fill", "currentColor");
  picture.append(path);
  return picture;
}

/** 83.25 → 1:23.3 */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const [minutes, rest] = [Math.floor(tenths / 600), (tenths % 600) / 10];
  return `${minutes}:${rest < 10 ? "0" : ""}${rest.toFixed(1)}`;
}

export const rounded = (seconds, digits = 2) => Number(seconds).toFixed(digits);

/** wav_float32 → wav */
export const fileEnding = (format) => format.split("_")[0];

export function download(blob, fileName) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: fileName }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // a browser may ask where to put it before it reads
}
