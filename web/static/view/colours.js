// Colours of the theme, and the map of the spectrogram.

/** Magma (van der Walt and Smith, CC0): lightness rises evenly. */
const MAGMA =
  "000004 0b0924 20114b 3b0f70 57157e 721f81 8c2981 a8327d c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf".split(" ");

/** 256 colours as canvas pixels. */
export const MAP = Uint32Array.from({ length: 256 }, (_, value) => {
  const place = (value / 255) * (MAGMA.length - 1);
  const index = Math.min(MAGMA.length - 2, Math.floor(place));
  const channel = (shift) => {
    const [from, to] = [MAGMA[index], MAGMA[index + 1]].map((colour) => (parseInt(colour, 16) >> shift) & 255);
    return Math.round(from + (place - index) * (to - from));
  };
  return ((255 << 24) | (channel(0) << 16) | (channel(8) << 8) | channel(16)) >>> 0; // little-endian: alpha, blue, green, red
});

/** Return the theme's colours by name, as styles.css has them at the moment. */
export function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return Object.fromEntries(["ink", "muted", "line", "track", "accent", "event"].map((name) => [name, colour(name)]));
}

/** Fit a canvas to its size on the page; return its context, in pixels of the page, and that size. */
export function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
