// MP3: frames, and what an encoder says about the beginning and the end.

import { decodePackets, requireDecoder } from "./packets.js";
import { NotStreamable, Reader, text } from "./reader.js";

const BITRATES = {
  // kbit/s, of layer 3
  1: [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  2: [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};
const RATES = [44100, 48000, 32000];
const DECODER_DELAY = 529; // samples, of every decoder
const MAX_FRAME = 2881; // bytes
const SEARCH = 1 << 16; // bytes that may come before the first frame

/** Return {rate, channels, seconds, blocks, warnings} as wav.js; seconds are null where the file does not say. */
export async function openMp3(file) {
  const reader = new Reader(file);
  const head = await reader.bytes(10);
  if (text(head, 0, 3) === "ID3") reader.skip(10 + (head[6] << 21) + (head[7] << 14) + (head[8] << 7) + head[9]);
  const first = await findFrame(reader);
  if (!first) throw new NotStreamable("it has no frames");
  const config = { codec: "mp3", sampleRate: first.rate, numberOfChannels: first.channels };
  await requireDecoder(config);
  const tag = readTag(await reader.bytes(first.length), first);
  if (tag) reader.skip(first.length);
  const { skip, total } = tag ?? { skip: 0, total: Infinity };
  const warnings = [];
  const blocks = decodePackets(config, frames(reader, first, warnings), { skip, total: () => total, warnings });
  return { rate: first.rate, channels: first.channels, seconds: Number.isFinite(total) ? total / first.rate : null, blocks, warnings };
}

function parseHeader(bytes, at) {
  if (bytes[at] !== 0xff || (bytes[at + 1] & 0xe6) !== 0xe2) return null; // layer 3
  const version = (bytes[at + 1] >> 3) & 3; // 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
  const bitrate = BITRATES[version === 3 ? 1 : 2][bytes[at + 2] >> 4];
  let rate = RATES[(bytes[at + 2] >> 2) & 3];
  if (version === 1 || !bitrate || !rate) return null;
  rate /= version === 3 ? 1 : version === 2 ? 2 : 4;
  const samples = version === 3 ? 1152 : 576;
  const length = Math.floor(((samples / 8) * 1000 * bitrate) / rate) + ((bytes[at + 2] >> 1) & 1);
  return { rate, samples, length, version, channels: bytes[at + 3] >> 6 === 3 ? 1 : 2 };
}

/** Move to the next frame that another one of the same rate follows, or the end. */
async function findFrame(reader) {
  for (let searched = 0; searched < SEARCH; searched++) {
    const bytes = await reader.bytes(2 * MAX_FRAME);
    if (bytes.length < 4) return null;
    const frame = parseHeader(bytes, 0);
    if (frame) {
      const next = parseHeader(bytes, frame.length);
      if (next ? next.rate === frame.rate : bytes.length <= frame.length) return frame;
    }
    reader.skip(1);
  }
  return null;
}

async function* frames(reader, first, warnings) {
  for (;;) {
    const bytes = await reader.bytes(MAX_FRAME);
    let frame = bytes.length >= 4 ? parseHeader(bytes, 0) : null;
    if (!frame || frame.rate !== first.rate) frame = await findFrame(reader);
    if (!frame) {
      if ((await reader.bytes(4)).length < 4) return;
      throw new NotStreamable("frames are missing");
    }
    if (frame.rate !== first.rate || frame.channels > first.channels) {
      warnings.push(`its ${frame.rate === first.rate ? "number of channels" : "sample rate"} changes; what follows is left out`);
      return;
    }
    const data = (await reader.bytes(frame.length)).slice(0, frame.length);
    if (data.length < frame.length) return;
    yield data;
    reader.skip(frame.length);
  }
}

/** Read the first frame of most encoders, which holds no sound but the number of frames and the encoder's delay and padding. */
function readTag(bytes, frame) {
  const at = 4 + (frame.version === 3 ? (frame.channels === 1 ? 17 : 32) : frame.channels === 1 ? 9 : 17);
  if (!["Xing", "Info"].includes(text(bytes, at, 4))) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const flags = view.getUint32(at + 4);
  const count = flags & 1 ? view.getUint32(at + 8) : null;
  const lame = at + 8 + (flags & 1 && 4) + (flags & 2 && 4) + (flags & 4 && 100) + (flags & 8 && 4);
  const hasDelay = lame + 24 <= frame.length && /^(LAME|Lav[cf])/.test(text(bytes, lame, 4));
  const delay = hasDelay ? (bytes[lame + 21] << 4) | (bytes[lame + 22] >> 4) : 0;
  const padding = hasDelay ? ((bytes[lame + 22] & 15) << 8) | bytes[lame + 23] : 0;
  const total = count ? Math.max(0, count * frame.samples - delay - padding) : Infinity;
  return { skip: hasDelay ? delay + DECODER_DELAY : 0, total };
}
