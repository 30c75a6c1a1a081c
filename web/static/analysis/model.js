// An exported model in ONNX Runtime: waveforms in, scores out.

import { readMetadata } from "./metadata.js";
import { openSession, Tensor } from "./runtime.js";
import { padded, shortestSamples } from "./windows.js";

const MAX_DIFFERENCE = 0.01; // of scores on a graphics card

export class Model {
  #running = Promise.resolve(); // a session computes one waveform at a time

  /** Load the bytes of a file of export.py. Throws an Error of one line for anything else.
   *
   * `device` is "processor" or "graphics card". What fails there, now or later, is computed on the processor; `fellBack` is called with
   * the reason. */
  static async load(bytes, device, fellBack) {
    const model = new Model(bytes, readMetadata(bytes), device, fellBack);
    await model.#open();
    if (model.device !== "processor") await model.#compare();
    return model;
  }

  constructor(bytes, metadata, device, fellBack) {
    Object.assign(this, { bytes, metadata, device, fellBack });
    this.rate = metadata.sample_rate;
    this.shortest = shortestSamples(metadata.clip_seconds, this.rate);
  }

  get hasFrames() {
    return this.session.outputNames.includes("frame_scores") && this.metadata.step_seconds > 0;
  }

  /** Return the scores of a mono waveform, a Float32Array of one for each class. */
  async scores(samples) {
    return (await this.#run(samples, "scores")).data;
  }

  /** Return the scores of each step of a waveform, a list of Float32Arrays. */
  async frames(samples) {
    const { data, dims } = await this.#run(samples, "frame_scores");
    const [, steps, classes] = dims;
    return Array.from({ length: steps }, (_, step) => data.slice(step * classes, (step + 1) * classes));
  }

  async release() {
    await this.#running;
    await this.session.release();
  }

  async #open() {
    try {
      this.session = await openSession(this.bytes, this.device);
    } catch (error) {
      if (this.device !== "processor") return this.#fallBack(error);
      throw new Error(`ONNX Runtime cannot read it (${oneLine(error)}); export the model again`);
    }
    if (this.session.inputNames.length !== 1 || !this.session.outputNames.includes("scores")) {
      throw new Error("it does not turn one waveform into scores; export the model again");
    }
    if (this.device === "processor") this.bytes = null; // else they are needed to fall back
  }

  /** Fall back where a card, its driver or ONNX Runtime computes other scores than the processor. */
  async #compare() {
    const noise = Float32Array.from({ length: this.rate }, (_, n) => 0.1 * Math.sin(n * n * 0.7));
    const found = await this.scores(noise);
    if (this.device === "processor") return;
    const known = await Model.load(this.bytes, "processor");
    const expected = await known.scores(noise);
    await known.release();
    if (found.some((score, k) => Math.abs(score - expected[k]) > MAX_DIFFERENCE)) await this.#fallBack("its scores are wrong");
  }

  async #fallBack(error) {
    this.device = "processor";
    await this.#open();
    this.fellBack(oneLine(error));
  }

  #run(samples, output) {
    const waveform = padded(samples, this.shortest);
    const result = this.#running.then(() =>
      this.#compute(waveform, output).catch(async (error) => {
        if (this.device === "processor") throw error;
        await this.#fallBack(error);
        return this.#compute(waveform, output);
      }),
    );
    this.#running = result.catch(() => {});
    return result;
  }

  async #compute(waveform, output) {
    const tensor = new Tensor("float32", waveform, [1, waveform.length]);
    const result = (await this.session.run({ [this.session.inputNames[0]]: tensor }, [output]))[output];
    if (!result.data.every(Number.isFinite)) throw new Error("the model computes values that are not finite; use another model");
    return result;
  }
}

function oneLine(error) {
  return String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 200);
}
