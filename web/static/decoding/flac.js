// FLAC: frames, which begin with a marker and a checksum but do not say their length.

import { decodePackets, requireDecoder } from "./packets.js";
import { NotStreamable, Reader, text } from "./reader.js";

const MAX_FRAME = 1 << 22; // bytes
const BLOCK_SIZES = [0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768];

/** Return {rate, channels, seconds, blocks, warnings} as wav.js. */
export async function openFlac(file) {
  const reader = new Reader(file);
  const head = (await reader.bytes(42)).slice(0, 42);
  if (text(head, 0, 4) !== "fLaC" || (head[4] & 127) !== 0 || head.length < 42) throw new NotStreamable("its header is damaged");
  const rate = (head[18] << 12) | (head[19] << 4) | (head[20] >> 4);
  const channels = ((head[20] >> 1) & 7) + 1;
  const total = (head[21] & 15) * 2 ** 32 + new DataView(head.buffer).getUint32(22);
  reader.skip(4);
  for (let isLast = false; !isLast; ) {
    const block = await reader.bytes(4);
    if (block.length < 4) throw new NotStreamable("it has no frames");
    isLast = block[0] > 127;
    reader.skip(4 + (block[1] << 16) + (block[2] << 8) + block[3]);
  }
  head[4] |= 128; // the description has no other block
  const config = { codec: "flac", sampleRate: rate, numberOfChannels: channels, description: head };
  await requireDecoder(config);
  const warnings = [];
  const longest = (head[15] << 16) | (head[16] << 8) | head[17]; // bytes of a frame; 0 where it is not known
  const blocks = decodePackets(config, frames(reader, longest || MAX_FRAME, warnings), { warnings });
  return { rate, channels, seconds: total ? total / rate : null, blocks, warnings };
}

async function* frames(reader, longest, warnings) {
  let bytes = await reader.bytes(16);
  let header = parseHeader(bytes, 0);
  while (header) {
    let at = 2;
    let next = null;
    for (; ; at++) {
      if (at + 16 > bytes.length) {
        const before = bytes.length;
        bytes = await reader.bytes(before + 1);
        if (bytes.length === before) break; // the last frame
      }
      if (bytes[at] === 0xff && (next = parseHeader(bytes, at)) && next.number === header.next && next.isVariable === header.isVariable) break;
      if (at > MAX_FRAME) throw new NotStreamable("a frame is damaged");
    }
    const isLast = at + 16 > bytes.length;
    if (isLast && bytes.length > longest) warnings.push("what is behind its last frame is left out");
    yield bytes.slice(0, isLast ? bytes.length : at);
    if (isLast) return;
    reader.skip(at);
    bytes = await reader.bytes(16);
    header = next;
  }
}

/** Return the number of a frame, and that of the next one, where a header with a right checksum begins. */
function parseHeader(bytes, at) {
  if (bytes[at] !== 0xff || (bytes[at + 1] & 0xfe) !== 0xf8) return null;
  const isVariable = (bytes[at + 1] & 1) === 1;
  let end = at + 4;
  const lead = bytes[end++];
  const more = lead < 0x80 ? 0 : Math.clz32(~(lead << 24)) - 1; // bytes that follow, as in UTF-8
  let number = lead < 0x80 ? lead : lead & (0x3f >> more);
  for (let i = 0; i < more; i++) number = number * 64 + (bytes[end++] & 0x3f);
  const code = bytes[at + 2] >> 4;
  let size = BLOCK_SIZES[code];
  if (code === 6) size = bytes[end++] + 1;
  if (code === 7) size = ((bytes[end] << 8) | bytes[end + 1]) + 1;
  if (code === 7) end += 2;
  const rateCode = bytes[at + 2] & 15;
  end += rateCode === 12 ? 1 : rateCode === 13 || rateCode === 14 ? 2 : 0;
  if (end >= bytes.length || !size || crc8(bytes, at, end) !== bytes[end]) return null;
  return { number, isVariable, next: number + (isVariable ? size : 1) };
}

function crc8(bytes, start, end) {
  let crc = 0;
  for (let i = start; i < end; i++) {
    crc ^= bytes[i];
    for (let bit = 0; bit < 8; bit++) crc = crc & 128 ? ((crc << 1) ^ 7) & 255 : crc << 1;
  }
  return crc;
}
