// An exported model in ONNX Runtime: waveforms in, scores out.

import * as ort from "../runtime/ort.wasm.bundle.min.mjs";
import { readMetadata } from "./metadata.js";
import { padded, shortestSamples } from "./windows.js";

ort.env.wasm.wasmPaths = { wasm: new URL("../runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more need headers that many static hosts do not send
ort.env.logLevel = "error";

export class Model {
  #running = Promise.resolve(); // a session computes one waveform at a time

  /** Load the bytes of a file of export.py. Throws an Error of one line for anything else. */
  static async load(bytes) {
    const metadata = readMetadata(bytes);
    let session;
    try {
      session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    } catch (error) {
      throw new Error(`ONNX Runtime cannot read it (${oneLine(error)}); export the model again`);
    }
    if (session.inputNames.length !== 1 || !session.outputNames.includes("scores")) {
      throw new Error("it does not turn one waveform into scores; export the model again");
    }
    return new Model(session, metadata);
  }

  constructor(session, metadata) {
    this.session = session;
    this.metadata = metadata;
    this.rate = metadata.sample_rate;
    this.shortest = shortestSamples(metadata.clip_seconds, this.rate);
    this.hasFrames = session.outputNames.includes("frame_scores") && metadata.step_seconds > 0;
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

  #run(samples, output) {
    const waveform = padded(samples, this.shortest);
    const compute = async () => {
      const tensor = new ort.Tensor("float32", waveform, [1, waveform.length]);
      const result = (await this.session.run({ [this.session.inputNames[0]]: tensor }, [output]))[output];
      if (!result.data.every(Number.isFinite)) throw new Error("the model computes values that are not finite; use another model");
      return result;
    };
    const result = this.#running.then(compute);
    this.#running = result.catch(() => {});
    return result;
  }
}

function oneLine(error) {
  return String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 200);
}
