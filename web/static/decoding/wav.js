// WAV files of PCM or floating point, RF64 among them, of any size.

import { NotStreamable, Reader, text } from "./reader.js";

const BLOCK_SECONDS = 2;
const MAX_BLOCK = 1 << 24; // bytes
const [PCM, FLOAT, EXTENSIBLE] = [1, 3, 0xfffe];
const UNKNOWN = 0xffffffff; // a size that a recorder which was cut off, or RF64, leaves

/** Return {rate, channels, seconds, blocks} of a file, blocks being an async iterable of a Float32Array for each channel. */
export async function openWav(file) {
  const reader = new Reader(file);
  reader.skip(12);
  let format = null;
  let dataSize = UNKNOWN; // of ds64
  for (;;) {
    const bytes = await reader.bytes(64);
    if (bytes.length < 8) throw new NotStreamable("it has no samples");
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const [name, size] = [text(bytes, 0, 4), view.getUint32(4, true)];
    reader.skip(8);
    if (name === "fmt ") format = readFormat(view, Math.min(size, bytes.length - 8));
    if (name === "ds64" && bytes.length >= 24) dataSize = Number(view.getBigUint64(16, true));
    if (name === "data") {
      if (!format) throw new NotStreamable("its format is missing");
      const there = file.size - reader.position;
      const said = size === UNKNOWN || size === 0 ? dataSize : size;
      return sound(reader, format, Math.min(said, there), said !== UNKNOWN && said > there);
    }
    reader.skip(size + (size % 2));
  }
}

function readFormat(view, size) {
  if (size < 16) throw new NotStreamable("its format is damaged");
  let kind = view.getUint16(8, true);
  const bits = view.getUint16(22, true);
  if (kind === EXTENSIBLE && size >= 26) kind = view.getUint16(32, true);
  const read = READERS[`${kind} ${bits}`];
  const [channels, rate, frame] = [view.getUint16(10, true), view.getUint32(12, true), view.getUint16(20, true)];
  if (!read || !channels || !rate || frame !== (channels * bits) / 8) throw new NotStreamable("a rare format");
  return { channels, rate, frame, read };
}

const READERS = {
  [`${PCM} 8`]: (view, at) => (view.getUint8(at) - 128) / 128,
  [`${PCM} 16`]: (view, at) => view.getInt16(at, true) / 32768,
  [`${PCM} 24`]: (view, at) => (view.getUint16(at, true) + 65536 * view.getInt8(at + 2)) / 8388608,
  [`${PCM} 32`]: (view, at) => view.getInt32(at, true) / 2147483648,
  [`${FLOAT} 32`]: (view, at) => view.getFloat32(at, true),
  [`${FLOAT} 64`]: (view, at) => view.getFloat64(at, true),
};

function sound(reader, { channels, rate, frame, read }, size, isCut) {
  const total = Math.floor(size / frame);
  if (!total) throw new NotStreamable("it has no samples");
  async function* blocks() {
    for (let done = 0; done < total; ) {
      const count = Math.min(BLOCK_SECONDS * rate, Math.ceil(MAX_BLOCK / frame), total - done);
      const bytes = await reader.bytes(count * frame);
      const view = new DataView(bytes.buffer, bytes.byteOffset, count * frame);
      const width = frame / channels;
      yield Array.from({ length: channels }, (_, c) => {
        const samples = new Float32Array(count);
        for (let n = 0, at = c * width; n < count; n++, at += frame) samples[n] = read(view, at);
        return samples;
      });
      reader.skip(count * frame);
      done += count;
    }
  }
  const warnings = isCut ? ["it is shorter than its header says"] : [];
  return { rate, channels, seconds: total / rate, blocks: blocks(), warnings };
}
