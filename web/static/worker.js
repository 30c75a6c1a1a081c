// All that takes time: decoding, resampling, the picture, the model. Messages in and out are plain objects with a `type`.

import { Analysis, WindowTimeline } from "./analysis/analysis.js";
import { Mixer } from "./analysis/channels.js";
import { Model } from "./analysis/model.js";
import { Resampler } from "./analysis/resampler.js";
import { Spectrogram } from "./analysis/spectrogram.js";
import { NotStreamable } from "./decoding/reader.js";
import { openSound, soundOf } from "./decoding/sound.js";

const STEP_SECONDS = 2; // of sound between two messages
const MAX_RATE = 768000; // Hz
let model = null;
let live = null;
const cancelled = new Set();

const handlers = {
  /** Load a model from the address of a file, or its bytes. */
  async load({ url, bytes, name }) {
    const before = model;
    try {
      model = await Model.load(bytes ?? new Uint8Array(await (await fetch(url)).arrayBuffer()));
      await before?.release();
      const { metadata, hasFrames } = model;
      postMessage({ type: "model", name, metadata, hasFrames });
    } catch (error) {
      postMessage({ type: "modelFailed", name, message: error.message });
    }
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
    live = {
      resampler: new Resampler(rate, model.rate),
      spectrogram: new Spectrogram(model.rate),
      timeline: new WindowTimeline(model, resolution),
      waiting: [],
      busy: false,
    };
    postMessage({ type: "liveOpened", columnSeconds: live.spectrogram.columnSeconds });
  },

  /** Take samples of live sound, whose last one was heard at `time`. Windows that are late are left out. */
  async liveSamples({ samples, time }) {
    if (!live) return;
    const mono = live.resampler.push(samples);
    postMessage({ type: "livePart", columns: live.spectrogram.push(mono) });
    for (const window of live.timeline.windows.push(mono)) live.waiting.push({ window, time });
    if (live.busy) return;
    live.busy = true;
    const session = live;
    while (session === live && session.waiting.length) {
      const { window, time: heard } = session.waiting.splice(0).at(-1);
      const started = performance.now();
      try {
        const { windows, events } = await session.timeline.compute([window]);
        if (session === live) postMessage({ type: "liveWindow", ...windows[0], events, heard, computeSeconds: (performance.now() - started) / 1000 });
      } catch (error) {
        if (session === live) postMessage({ type: "liveFailed", message: error.message });
        return;
      }
      await breath();
    }
    session.busy = false;
  },

  liveStop() {
    live = null;
  },
};

onmessage = ({ data }) => handlers[data.type](data);

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
