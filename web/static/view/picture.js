// What is kept of a recording for the eye, and drawing it: the log-mel spectrogram, the waveform, the axis of time.

import { BANDS, FLOOR, toMel } from "../analysis/spectrogram.js";
import { MAP, prepare, theme } from "./colours.js";
import { clock } from "./format.js";

const MAX_COLUMNS = 1 << 16; // then two columns become one: memory stays constant
const RANGE = 75; // dB from the brightest to black
const TICKS = [200, 500, 1000, 2000, 4000, 8000]; // Hz

/** Columns of sound of any length. With `rolling`, only the last ones are kept. */
export class Picture {
  constructor(columnSeconds, rolling = false) {
    this.columnSeconds = columnSeconds;
    this.rolling = rolling;
    this.capacity = rolling ? 1 << 12 : 1 << 10;
    this.bands = new Uint8Array(this.capacity * BANDS);
    this.extremes = new Int8Array(this.capacity * 2);
    this.count = 0;
    this.dropped = 0; // columns before the first one
    this.merge = 1; // columns that came for each that is kept
    this.phase = 0; // of these, how many the last one has
    this.loudest = 0;
    this.peak = 1;
  }

  get seconds() {
    return (this.dropped + this.count) * this.columnSeconds;
  }

  append({ bands, extremes }) {
    for (let column = 0; column < extremes.length / 2; column++) {
      if (this.phase === 0) this.#add();
      const at = this.count - 1;
      for (let band = 0; band < BANDS; band++) {
        const value = bands[column * BANDS + band];
        if (value > this.bands[at * BANDS + band]) this.bands[at * BANDS + band] = value;
        if (value > this.loudest) this.loudest = value;
      }
      const [low, high] = [extremes[2 * column], extremes[2 * column + 1]];
      this.extremes[2 * at] = Math.min(this.extremes[2 * at], low);
      this.extremes[2 * at + 1] = Math.max(this.extremes[2 * at + 1], high);
      this.peak = Math.max(this.peak, -low, high);
      this.phase = (this.phase + 1) % this.merge;
    }
  }

  #add() {
    if (this.count === this.capacity) {
      if (this.rolling) this.#drop();
      else if (this.capacity < MAX_COLUMNS) this.#grow();
      else this.#halve();
    }
    this.count++;
  }

  #drop() {
    const half = this.capacity / 2;
    this.bands.copyWithin(0, half * BANDS);
    this.extremes.copyWithin(0, half * 2);
    this.#clear(half);
    this.dropped += half;
  }

  #grow() {
    this.capacity *= 2;
    for (const name of ["bands", "extremes"]) {
      const longer = new this[name].constructor(this[name].length * 2);
      longer.set(this[name]);
      this[name] = longer;
    }
  }

  #halve() {
    const half = this.capacity / 2;
    for (let column = 0; column < half; column++) {
      for (let band = 0; band < BANDS; band++) {
        const pair = this.bands.subarray(2 * column * BANDS + band);
        this.bands[column * BANDS + band] = Math.max(pair[0], pair[BANDS]);
      }
      const [a, b, c, d] = this.extremes.subarray(4 * column, 4 * column + 4);
      this.extremes.set([Math.min(a, c), Math.max(b, d)], 2 * column);
    }
    this.#clear(half);
    this.columnSeconds *= 2;
    this.merge *= 2;
  }

  #clear(count) {
    this.bands.fill(0, count * BANDS);
    this.extremes.fill(0, count * 2);
    this.count = count;
  }
}

const scratch = document.createElement("canvas");

/** Draw the part of a picture from `view.start` on, `view.span` seconds long. */
export function drawSpectrogram(canvas, picture, view, rate) {
  const { context, width, height } = prepare(canvas);
  const first = view.start / picture.columnSeconds - picture.dropped;
  const columns = view.span / picture.columnSeconds;
  const count = Math.max(1, Math.min(Math.ceil(columns), Math.round(width * 1.5)));
  [scratch.width, scratch.height] = [count, BANDS];
  const pixels = new ImageData(count, BANDS);
  const colours = new Uint32Array(pixels.data.buffer);
  const scale = -FLOOR / RANGE;
  const low = picture.loudest - 255 / scale;
  for (let x = 0; x < count; x++) {
    const from = Math.floor(first + (x * columns) / count);
    const to = Math.min(picture.count, Math.max(from + 1, Math.floor(first + ((x + 1) * columns) / count)));
    for (let band = 0; band < BANDS; band++) {
      let value = 0;
      for (let column = Math.max(0, from); column < to; column++) value = Math.max(value, picture.bands[column * BANDS + band]);
      const level = Math.max(0, Math.min(255, Math.round((value - low) * scale)));
      colours[(BANDS - 1 - band) * count + x] = MAP[value ? level : 0];
    }
  }
  scratch.getContext("2d").putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(scratch, 0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const hertz of TICKS) {
    const y = height * (1 - toMel(hertz) / toMel(rate / 2));
    if (y < 8 || y > height - 6) continue;
    const text = hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`;
    context.fillStyle = "rgb(0 0 4 / 55%)";
    context.fillRect(4, y - 7, context.measureText(text).width + 6, 14);
    context.fillStyle = "rgb(255 255 255 / 88%)";
    context.fillText(text, 7, y + 0.5);
  }
}

export function drawWaveform(canvas, picture, view) {
  const { context, width, height } = prepare(canvas);
  context.fillStyle = theme().accent;
  const gain = (height / 2 - 3) / Math.max(32, picture.peak); // quiet sound becomes visible, and stays smaller than loud one
  for (let x = 0; x < width; x++) {
    const at = (pixel) => (view.start + (pixel / width) * view.span) / picture.columnSeconds - picture.dropped;
    const from = Math.max(0, Math.floor(at(x)));
    const to = Math.min(picture.count, Math.max(from + 1, Math.floor(at(x + 1))));
    let [low, high] = [0, 0];
    for (let column = from; column < to; column++) {
      low = Math.min(low, picture.extremes[2 * column]);
      high = Math.max(high, picture.extremes[2 * column + 1]);
    }
    if (from < to) context.fillRect(x, height / 2 - high * gain - 0.5, 1, (high - low) * gain + 1);
  }
}

/** Draw the times of a view, which in live sound count back from the end. */
export function drawAxis(canvas, view, end = null) {
  const { context, width, height } = prepare(canvas);
  const { muted, line } = theme();
  const step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200].find((s) => (s / view.span) * width >= 64) ?? 14400;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "bottom";
  const zero = end ?? 0;
  for (let n = Math.ceil((view.start - zero) / step - 1e-9); zero + n * step <= view.start + view.span + 1e-9; n++) {
    const x = ((zero + n * step - view.start) / view.span) * width;
    context.fillStyle = line;
    context.fillRect(Math.min(width - 1, Math.round(x)), 0, 1, 5);
    context.fillStyle = muted;
    const text = end === null ? clock(n * step, step < 1 ? 1 : 0) : n === 0 ? "now" : `${n * step} s`;
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.max(0, Math.min(width - 2 * half, x - half)), height);
  }
}
