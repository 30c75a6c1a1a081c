// Live sound in the page: from the microphone to the worker, and what it computes on the screen.

import { openMicrophone, Tape } from "./microphone.js";
import { clock } from "./view/format.js";
import { drawAxis, drawSpectrogram, drawWaveform, Picture } from "./view/picture.js";
import { $ } from "./view/texts.js";
import { Track } from "./view/timeline.js";

const RESOLUTION = { window: 2, hop: 0.5 }; // seconds
const SPAN = 12; // seconds that are seen
const KEPT_SECONDS = 30; // of scores and events

export class Live {
  #picture = null;
  #events = [];
  #track = new Track(KEPT_SECONDS);
  #latency = null;

  /** Ask for the microphone, and send what it hears to the worker. Throws an Error of one line where there is none. */
  static async open(worker, metadata, hasFrames) {
    const live = new Live();
    Object.assign(live, { worker, metadata, hasFrames });
    live.microphone = await openMicrophone((samples, time) => {
      live.tape?.push(samples);
      if (live.tape) worker.postMessage({ type: "liveSamples", samples, time }, [samples.buffer]);
    });
    live.tape = new Tape(live.microphone.rate);
    worker.postMessage({ type: "liveStart", rate: live.microphone.rate, resolution: RESOLUTION });
    return live;
  }

  /** Return the seconds that were heard and a file of the last of them. */
  async close() {
    this.worker.postMessage({ type: "liveStop" });
    await this.microphone.close();
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
    return { seconds: this.tape.seconds, file: this.tape.file(`microphone ${time}.wav`) };
  }

  get about() {
    const kept = "The last 10 minutes are kept in this page until it is closed.";
    if (!this.hasFrames) return `Each bar is the score of the last ${RESOLUTION.window} s, computed every ${RESOLUTION.hop} s. ${kept}`;
    const step = Math.round(1000 * this.metadata.step_seconds);
    return `Scores of steps of ${step} ms, computed every second; the first after 10 s. ${kept}`;
  }

  /** The worker is ready. */
  opened(columnSeconds) {
    this.#picture = new Picture(columnSeconds, true);
  }

  heard(columns) {
    this.#picture?.append(columns);
  }

  /** Take windows and events; return the newest scores. */
  computed({ windows, events, heard, lag }) {
    windows.forEach((window) => this.#track.push(window));
    const { end, scores } = windows.at(-1);
    this.#events = [...this.#events, ...events].filter((event) => event.end > end - KEPT_SECONDS);
    this.#latency = lag + (performance.now() - heard) / 1000;
    return scores;
  }

  draw(timeline) {
    if (!this.#picture) return;
    const end = this.#picture.seconds;
    const view = { start: end - SPAN, span: SPAN };
    $("clock").textContent = [clock(end), this.#latency === null ? "listening" : `latency ${this.#latency.toFixed(2)} s`].join(" \u00b7 ");
    drawSpectrogram($("spectrogram"), this.#picture, view, this.metadata.sample_rate);
    drawWaveform($("waveform"), this.#picture, view);
    drawAxis($("axis"), view, end);
    timeline.draw(this.#track, this.#events, this.metadata.labels, view);
  }
}
