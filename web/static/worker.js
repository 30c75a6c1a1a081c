// All that takes time: decoding, resampling, the picture, the model. Messages in and out are plain objects with a `type`.

import { Analysis } from "./analysis/analysis.js";
import { Mixer } from "./analysis/channels.js";
import { LiveAnalysis } from "./analysis/live.js";
import { Model } from "./analysis/model.js";
import { Resampler } from "./analysis/resampler.js";
import { hasGraphicsCard } from "./analysis/runtime.js";
import { NotStreamable } from "./decoding/reader.js";
import { openSound, soundOf } from "./decoding/sound.js";

const STEP_SECONDS = 2; // of sound between two messages
const MAX_RATE = 768000; // Hz
let model = null;
let live = null;
let loading = Promise.resolve(); // models are loaded one after the other
const cancelled = new Set();

const handlers = {
  /** Load a model from an address or a file, for the "processor" or the "graphics card". */
  load(message) {
    loading = loading.then(() => load(message));
  },

  /** Analyse a file, or samples that the page has decoded. */
  async analyse({ id, file, channels, rate, resolution }) {
    const started = performance.now();
    try {
      const sound = channels ? soundOf(channels, rate) : await openSound(file);
      const analysis = new Analysis(model, resolution);
      postMessage({ type: "opened", id, columnSeconds: analysis.spectrogram.columnSeconds, seconds: sound.seconds });
      for await (const samples of monoAt(model.rate, sound)) {
        if (cancelled.delete(id)) return;
        postMessage({ type: "part", id, ...(await analysis.push(samples)), seconds: analysis.samples / model.rate });
        await breath();
      }
      if (!analysis.samples) throw new Error("it holds no sound");
      const computeSeconds = (performance.now() - started) / 1000;
      postMessage({ type: "done", id, ...(await analysis.finish()), computeSeconds, warnings: sound.warnings });
    } catch (error) {
      const type = error instanceof NotStreamable && !channels ? "undecoded" : "failed";
      postMessage({ type, id, message: error.message });
    }
  },

  cancel({ id }) {
    cancelled.add(id);
  },

  /** Begin to take live sound. */
  liveStart({ rate, resolution }) {
    const computed = (scores) => postMessage({ type: "liveScores", ...scores });
    const failed = ({ message }) => postMessage({ type: "liveFailed", message });
    live = new LiveAnalysis(model, rate, resolution, computed, failed);
    postMessage({ type: "liveOpened", columnSeconds: live.spectrogram.columnSeconds });
  },

  /** Take samples of live sound, whose last one was heard at `time`. */
  liveSamples({ samples, time }) {
    if (live) postMessage({ type: "livePart", columns: live.push(samples, time) });
  },

  liveStop() {
    live?.close();
    live = null;
  },
};

onmessage = ({ data }) => handlers[data.type](data);

async function load({ source, device }) {
  const before = model;
  try {
    const content = await (source instanceof Blob ? source : await fetch(source)).arrayBuffer().catch(() => null);
    if (!content) throw new Error("it cannot be read; choose a file that export.py has written");
    model = await Model.load(new Uint8Array(content), device, (message) => postMessage({ type: "fellBack", message }));
    await before?.release();
    const { metadata, hasFrames } = model;
    postMessage({ type: "model", source, metadata, hasFrames });
  } catch (error) {
    postMessage({ type: "modelFailed", source, message: error.message });
  }
  if (!before && (await hasGraphicsCard())) postMessage({ type: "hasGraphicsCard" });
}

/** Yield mono samples of a sound at a rate, in pieces of up to STEP_SECONDS. */
async function* monoAt(rate, sound) {
  if (sound.rate > MAX_RATE) throw new Error(`it has a sample rate of ${sound.rate} Hz; convert it to ${MAX_RATE} Hz or less`);
  const mixer = new Mixer(sound.channels, sound.rate);
  const resampler = new Resampler(sound.rate, rate);
  const size = Math.round(STEP_SECONDS * rate);
  function* pieces(samples) {
    for (let start = 0; start < samples.length; start += size) yield samples.subarray(start, start + size);
  }
  for await (const channels of sound.blocks) {
    for (const mixed of mixer.push(channels)) yield* pieces(resampler.push(mixed));
  }
  for (const mixed of mixer.finish()) yield* pieces(resampler.push(mixed));
  yield* pieces(resampler.finish());
  if (mixer.cancels) sound.warnings.push("its channels cancel when mixed; the loudest is taken alone where they do");
}

/** Let messages in, such as those that cancel. */
function breath() {
  return new Promise((resolve) => setTimeout(resolve));
}

postMessage({ type: "ready" });
