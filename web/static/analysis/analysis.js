// One recording, or live sound, on its way through the model: mono samples at the model's rate in; columns of the picture, scores of
// windows, events and the mean over the whole out.

import { EventTracker } from "./events.js";
import { FrameEvents, FrameWindows } from "./frames.js";
import { Spectrogram } from "./spectrogram.js";
import { Mean, SideBySide, wholeSamples, Windows } from "./windows.js";

/** Windows {start, end, scores} in seconds, one after the other. */
export class Analysis {
  #known = new Map(); // scores of windows that the mean may share, by their first sample

  /** `resolution`: seconds of window and hop. A frame-wise model has steps of its own instead. */
  constructor(model, resolution) {
    this.model = model;
    this.spectrogram = new Spectrogram(model.rate);
    this.whole = new SideBySide(wholeSamples(model.metadata.clip_seconds, model.rate));
    this.mean = new Mean();
    this.samples = 0;
    this.timeline = model.hasFrames ? new FrameTimeline(model) : new WindowTimeline(model, resolution);
  }

  /** Return {columns, windows, events} of more samples. */
  async push(samples) {
    this.samples += samples.length;
    const columns = this.spectrogram.push(samples);
    const { windows, events } = await this.timeline.push(samples, (window, scores) => this.#remember(window, scores));
    for (const window of this.whole.push(samples)) await this.#average(window);
    return { columns, windows, events };
  }

  /** Return the same of what is left, and the mean scores of the whole. */
  async finish() {
    const columns = this.spectrogram.finish();
    const { windows, events } = await this.timeline.finish((window, scores) => this.#remember(window, scores));
    for (const window of this.whole.finish()) await this.#average(window);
    return { columns, windows, events, scores: this.mean.result(), seconds: this.samples / this.model.rate };
  }

  #remember(window, scores) {
    if (window.samples.length === this.whole.window && window.start % this.whole.window === 0) this.#known.set(window.start, scores);
  }

  async #average(window) {
    const { start, samples } = window;
    const known = samples.length === this.whole.window ? this.#known.get(start) : undefined;
    this.#known.delete(start);
    this.mean.add(start + samples.length, known ?? (await this.model.scores(samples)));
  }
}

/** Scores and events of overlapping windows. */
export class WindowTimeline {
  #tracker = new EventTracker();

  constructor(model, { window, hop }) {
    this.model = model;
    this.windows = new Windows(Math.round(window * model.rate), Math.round(hop * model.rate));
  }

  push(samples, remember) {
    return this.compute(this.windows.push(samples), remember);
  }

  async finish(remember) {
    const rest = await this.compute(this.windows.finish(), remember);
    return { windows: rest.windows, events: [...rest.events, ...this.#tracker.finish()] };
  }

  async compute(cut, remember = () => {}) {
    const [windows, events] = [[], []];
    for (const window of cut) {
      const scores = await this.model.scores(window.samples);
      const [start, end] = [window.start, window.start + window.samples.length].map((sample) => sample / this.model.rate);
      remember(window, scores);
      windows.push({ start, end, scores });
      events.push(...this.#tracker.push(start, end, scores));
    }
    return { windows, events };
  }
}

/** Scores and events of the steps of a frame-wise model. */
export class FrameTimeline {
  constructor(model, hop) {
    this.model = model;
    this.windows = new FrameWindows(model.rate, model.metadata.step_seconds, hop);
    this.tracker = new FrameEvents(model.metadata.step_seconds);
    this.end = 0; // seconds
  }

  push(samples) {
    this.end += samples.length / this.model.rate;
    return this.compute(this.windows.push(samples));
  }

  async finish() {
    const before = await this.compute(this.windows.finish());
    const rest = this.tracker.push(this.windows.rest());
    const after = this.tracker.finish(this.end);
    return { windows: [before, rest, after].flatMap(({ windows }) => windows), events: [before, rest, after].flatMap(({ events }) => events) };
  }

  async compute(cut) {
    const frames = [];
    for (const window of cut) frames.push(...this.windows.keep(window, await this.model.frames(window.samples)));
    return this.tracker.push(frames);
  }
}
