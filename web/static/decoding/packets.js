// Packets of compressed sound -> samples, by the browser's WebCodecs.

import { NotStreamable } from "./reader.js";

const MAX_QUEUE = 64;

/** Throw NotStreamable unless the browser decodes packets of this kind. */
export async function requireDecoder(config) {
  const supported = "AudioDecoder" in globalThis && (await AudioDecoder.isConfigSupported(config).catch(() => ({}))).supported;
  if (!supported) throw new NotStreamable("the browser does not decode its packets");
}

/**
 * Yield a Float32Array for each channel from an async iterable of packets, Uint8Arrays. `skip` samples are left out at the beginning,
 * and everything behind `total().` What cannot be decoded ends the sound, with a line in `warnings`.
 */
export async function* decodePackets(config, packets, { skip = 0, total = () => Infinity, warnings }) {
  const decoded = [];
  let failure = null;
  let wake = () => {};
  const decoder = new AudioDecoder({
    output: (data) => decoded.push(data),
    error: (error) => {
      failure = error;
      wake();
    },
  });
  decoder.ondequeue = () => wake();
  let [skipped, given] = [0, 0];
  function* samples() {
    for (const data of decoded.splice(0)) {
      const drop = Math.min(skip - skipped, data.numberOfFrames);
      const count = Math.min(data.numberOfFrames - drop, total() - given);
      if (count > 0) {
        yield Array.from({ length: config.numberOfChannels }, (_, channel) => {
          const plane = new Float32Array(data.numberOfFrames);
          const planeIndex = Math.min(channel, data.numberOfChannels - 1); // some files change to mono
          data.copyTo(plane, { planeIndex, format: "f32-planar" });
          return plane.subarray(drop, drop + count);
        });
        given += count;
      }
      skipped += drop;
      data.close();
    }
  }
  try {
    decoder.configure(config);
    let timestamp = 0;
    for await (const data of packets) {
      if (failure) break;
      decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: timestamp++ * 20000, data }));
      while (decoder.decodeQueueSize > MAX_QUEUE && !failure) await new Promise((resolve) => (wake = resolve));
      yield* samples();
    }
    if (!failure) await decoder.flush();
  } catch (error) {
    failure ??= error;
  } finally {
    if (decoder.state !== "closed") decoder.close();
  }
  yield* samples();
  if (failure && !given) throw new NotStreamable(failure.message);
  if (failure) warnings.push("it is damaged; what follows the damage is left out");
}
