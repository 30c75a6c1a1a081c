// Ogg with Vorbis or Opus: pages, and the packets in them.

import { decodePackets, requireDecoder } from "./packets.js";
import { NotStreamable, Reader, text } from "./reader.js";

const MAX_PACKET = 1 << 26; // bytes; comments may hold pictures

/** Return {rate, channels, seconds, blocks, warnings} as wav.js; seconds are null, as only the last page says them. */
export async function openOgg(file) {
  const stream = { reader: new Reader(file), serial: null, granule: -1, isLast: false, warnings: [] };
  const packets = packetsOf(stream);
  const next = async () => (await packets.next()).value ?? new Uint8Array(0);
  const identification = await next();
  const view = new DataView(identification.buffer, identification.byteOffset, identification.length);
  let config;
  let preSkip = 0;
  if (text(identification, 1, 6) === "vorbis" && identification.length >= 30) {
    const headers = [identification, await next(), await next()];
    const channels = identification[11];
    config = { codec: "vorbis", sampleRate: view.getUint32(12, true), numberOfChannels: channels, description: laced(headers) };
  } else if (text(identification, 0, 8) === "OpusHead" && identification.length >= 19) {
    await next(); // comments
    preSkip = view.getUint16(10, true);
    config = { codec: "opus", sampleRate: 48000, numberOfChannels: identification[9], description: identification };
  } else {
    throw new NotStreamable("another codec");
  }
  await requireDecoder(config);
  const { warnings } = stream;
  const total = () => (stream.isLast && stream.granule >= 0 ? stream.granule - preSkip : Infinity);
  const blocks = decodePackets(config, packets, { total, warnings });
  return { rate: config.sampleRate, channels: config.numberOfChannels, seconds: null, blocks, warnings };
}

/** Join the three headers of Vorbis as Matroska and WebCodecs have them. */
function laced(headers) {
  const sizes = headers.slice(0, 2).flatMap(({ length }) => [...new Array(Math.floor(length / 255)).fill(255), length % 255]);
  return new Uint8Array([2, ...sizes, ...headers[0], ...headers[1], ...headers[2]]);
}

/** Yield the packets of the first stream of a file. */
async function* packetsOf(stream) {
  const { reader } = stream;
  let parts = []; // of a packet that continues
  let held = 0; // bytes in them
  for (;;) {
    const head = await reader.bytes(27 + 255);
    if (head.length < 27) return;
    if (text(head, 0, 4) !== "OggS") throw new NotStreamable("a page is damaged");
    const view = new DataView(head.buffer, head.byteOffset, head.length);
    const serial = view.getUint32(14, true);
    const table = head.slice(27, 27 + head[26]);
    stream.serial ??= serial;
    const start = 27 + table.length;
    const size = table.reduce((sum, length) => sum + length, 0);
    const page = (await reader.bytes(start + size)).slice(start, start + size);
    reader.skip(start + size);
    if ((head[5] & 2) !== 0 && stream.granule > 0) {
      stream.warnings.push("several recordings are joined in it; those behind the first one are left out");
      return;
    }
    if (serial !== stream.serial || page.length < size) continue;
    stream.isLast = (head[5] & 4) !== 0;
    const granule = Number(view.getBigInt64(6, true));
    if (granule >= 0) stream.granule = granule;
    let at = 0;
    for (const length of table) {
      parts.push(page.subarray(at, at + length));
      held += length;
      if (held > MAX_PACKET) throw new NotStreamable("a packet is too long");
      at += length;
      if (length === 255) continue;
      const packet = new Uint8Array(held);
      parts.reduce((offset, part) => (packet.set(part, offset), offset + part.length), 0);
      [parts, held] = [[], 0];
      if (packet.length) yield packet;
    }
  }
}
