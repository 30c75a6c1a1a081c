// Frames of frame-wise models: windows of a long sound without seams (helpers/frame_windows.py), and the events in their scores
// (helpers/tagger/event_decoding.py).

import { THRESHOLD } from "./events.js";
import { Windows } from "./windows.js";

const [WINDOW, HOP] = [10, 6]; // seconds
export const LIVE_HOP = 1; // seconds
const MARGIN = 1; // seconds of a window, on each side, whose frames are dropped
const FADE = 2; // seconds in which one window takes over from another, at most the hop
const MEDIAN_FRAMES = 9;
const HALF = (MEDIAN_FRAMES - 1) / 2;
const CELL_SECONDS = 0.2; // of the timeline, whose cells hold the highest scores of their frames

/** Cut sound into windows, and make each frame of the sound of theirs, once. */
export class FrameWindows extends Windows {
  #done = 0; // frames
  #rest = []; // of the last window, those behind these

  constructor(rate, stepSeconds, hop = HOP) {
    const step = Math.round(stepSeconds * rate);
    const samples = (seconds) => step * Math.round(seconds / stepSeconds);
    super(samples(WINDOW), samples(hop), step);
    this.margin = samples(MARGIN) / step;
    this.fade = samples(Math.min(hop, FADE)) / step;
  }

  /** Take the frames of a window, lists of scores, which it may change; return those of the sound that are decided. */
  keep({ start, samples }, frames) {
    const count = Math.ceil(samples.length / this.align); // frames of what was padded are not the sound's
    const added = frames.slice(this.#done - start / this.align, count);
    this.#rest.slice(0, this.fade).forEach((before, i) => {
      const share = (i + 1) / (this.fade + 1); // of the later window
      for (let k = 0; k < before.length; k++) added[i][k] = before[k] + share * (added[i][k] - before[k]);
    });
    const known = Math.max(0, added.length - this.margin - this.fade);
    this.#rest = added.slice(known);
    this.#done += known;
    return added.slice(0, known);
  }

  /** Return the last frames of the sound. */
  rest() {
    return this.#rest.splice(0);
  }
}

/** Turn successive frames into windows, which are cells of a timeline, and events. */
export class FrameEvents {
  #held = []; // frames that the median still needs
  #started = false; // whether these begin with the mirror image of the first ones
  #done = 0; // frames
  #open = new Map(); // class -> its beginning, its medians so far
  #cells = 0;
  #cell = null;

  constructor(stepSeconds, threshold = THRESHOLD) {
    this.step = stepSeconds;
    this.threshold = threshold;
    this.framesPerCell = Math.max(1, Math.round(CELL_SECONDS / stepSeconds));
  }

  push(frames) {
    const windows = frames.flatMap((scores) => this.#fill(scores));
    this.#held.push(...frames);
    if (!this.#started && this.#held.length >= HALF) {
      this.#held.unshift(...this.#held.slice(0, HALF).reverse());
      this.#started = true;
    }
    return { windows, events: this.#started ? this.#decide() : [] };
  }

  /** Return the rest, of sound that ends at `end` seconds. */
  finish(end) {
    const mirrored = this.#held.slice().reverse();
    if (this.#held.length && !this.#started) this.#held.unshift(...repeated(mirrored, HALF).reverse());
    this.#held.push(...repeated(mirrored, HALF));
    const events = this.#decide();
    const last = Math.min(end, this.#done * this.step);
    for (const k of [...this.#open.keys()]) events.push(this.#close(k, last));
    return { windows: this.#cell ? [{ ...this.#emit(), end }] : [], events };
  }

  #fill(scores) {
    this.#cell ??= { count: 0, scores: new Float32Array(scores.length) };
    for (let k = 0; k < scores.length; k++) if (scores[k] > this.#cell.scores[k]) this.#cell.scores[k] = scores[k];
    return ++this.#cell.count === this.framesPerCell ? [this.#emit()] : [];
  }

  #emit() {
    const seconds = this.framesPerCell * this.step;
    const window = { start: this.#cells * seconds, end: (this.#cells + 1) * seconds, scores: this.#cell.scores };
    this.#cells++;
    this.#cell = null;
    return window;
  }

  #decide() {
    const events = [];
    for (; this.#held.length >= MEDIAN_FRAMES; this.#held.shift(), this.#done++) {
      const near = this.#held.slice(0, MEDIAN_FRAMES);
      for (let k = 0; k < near[0].length; k++) {
        let above = 0;
        for (const scores of near) if (scores[k] > this.threshold) above++;
        if (above > HALF) {
          if (!this.#open.has(k)) this.#open.set(k, { start: this.#done * this.step, medians: [] });
          this.#open.get(k).medians.push(near.map((scores) => scores[k]).sort((a, b) => a - b)[HALF]);
        } else if (this.#open.has(k)) {
          events.push(this.#close(k, this.#done * this.step));
        }
      }
    }
    return events;
  }

  #close(k, end) {
    const { start, medians } = this.#open.get(k);
    this.#open.delete(k);
    const mean = medians.reduce((sum, score) => sum + score, 0) / medians.length;
    return { label: k, start, end, score: Math.max(...medians), mean };
  }
}

/** Return `count` items, beginning again where there are fewer, mirrored each time. */
function repeated(items, count) {
  const both = [...items, ...items.slice().reverse()];
  return Array.from({ length: items.length ? count : 0 }, (_, i) => both[i % both.length]);
}
