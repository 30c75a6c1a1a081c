// Live sound on its way through the model.

import { FrameTimeline, WindowTimeline } from "./analysis.js";
import { LIVE_HOP } from "./frames.js";
import { Resampler } from "./resampler.js";
import { Spectrogram } from "./spectrogram.js";

const MAX_LATE = 10; // windows of a frame-wise model

export class LiveAnalysis {
  #waiting = []; // windows that are complete, and when their last sample was heard
  #busy = false;
  #closed = false;

  /** Sound of a rate in Hz. `resolution`: seconds of window and hop; a frame-wise model has steps of its own instead.
   *
   * `computed` is called with {windows, events, heard, lag}: when the last sample of the newest window was heard, and the seconds by which
   * it is ahead of the newest scores. `failed` is called with an Error, which ends it. */
  constructor(model, rate, resolution, computed, failed) {
    Object.assign(this, { model, computed, failed });
    this.resampler = new Resampler(rate, model.rate);
    this.spectrogram = new Spectrogram(model.rate);
    this.timeline = model.hasFrames ? new FrameTimeline(model, LIVE_HOP) : new WindowTimeline(model, resolution);
  }

  /** Take samples whose last one was heard at `time`; return columns of the picture. */
  push(samples, time) {
    const mono = this.resampler.push(samples);
    for (const window of this.timeline.windows.push(mono)) this.#waiting.push({ window, time });
    if (!this.#busy) this.#compute().catch((error) => this.#closed || this.failed(error));
    return this.spectrogram.push(mono);
  }

  close() {
    this.#closed = true;
  }

  async #compute() {
    this.#busy = true;
    while (this.#waiting.length && !this.#closed) {
      const { window, time: heard } = this.#next();
      const { windows, events } = await this.timeline.compute([window]);
      const end = (window.start + window.samples.length) / this.model.rate;
      if (windows.length && !this.#closed) this.computed({ windows, events, heard, lag: end - windows.at(-1).end });
      await new Promise((resolve) => setTimeout(resolve)); // messages come in
    }
    this.#busy = false;
  }

  /** Of windows that are late, only the last one is computed. Those of frames need the ones before. */
  #next() {
    if (!this.model.hasFrames) return this.#waiting.splice(0).at(-1);
    if (this.#waiting.length > MAX_LATE) throw new Error("the model is too slow for live sound on this device; record first, or choose a smaller one");
    return this.#waiting.shift();
  }
}
