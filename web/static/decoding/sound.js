// Recordings in pieces, in constant memory: their kind is told by their first bytes.

import { openFlac } from "./flac.js";
import { openMp3 } from "./mp3.js";
import { openOgg } from "./ogg.js";
import { NotStreamable, text } from "./reader.js";
import { openWav } from "./wav.js";

/** Return {rate, channels, seconds, blocks, warnings} of a file, see wav.js; throws NotStreamable for other kinds. */
export async function openSound(file) {
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const [mark, kind] = [text(head, 0, 4), text(head, 8, 4)];
  if (["RIFF", "RF64"].includes(mark) && kind === "WAVE") return openWav(file);
  if (mark === "OggS") return openOgg(file);
  if (mark === "fLaC") return openFlac(file);
  if (mark.startsWith("ID3") || (head[0] === 0xff && (head[1] & 0xe6) === 0xe2)) return openMp3(file);
  throw new NotStreamable("another kind");
}

/** The same of samples that the browser has decoded: a Float32Array for each channel. */
export function soundOf(channels, rate) {
  const [length, size] = [channels[0].length, 2 * rate];
  async function* blocks() {
    for (let start = 0; start < length; start += size) yield channels.map((samples) => samples.subarray(start, start + size));
  }
  return { rate, channels: channels.length, seconds: length / rate, blocks: blocks(), warnings: [] };
}
