// The encoding of protocol buffers, in which ONNX files are written.

/** Yield number, value (a number, or bytes as a view) and the bytes as a whole of each field of a message. Throws a RangeError for what is
 * no message. */
export function* fields(bytes) {
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (position >= bytes.length || scale > 2 ** 63) throw new RangeError("no number");
      const byte = bytes[position++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (position < bytes.length) {
    const start = position;
    const key = varint();
    const kind = key % 8;
    if (kind === 0) {
      const value = varint();
      yield [Math.floor(key / 8), value, bytes.subarray(start, position)];
      continue;
    }
    const size = { 1: 8, 2: -1, 5: 4 }[kind];
    if (size === undefined) throw new RangeError("no field");
    const length = size < 0 ? varint() : size;
    if (length > bytes.length - position) throw new RangeError("too long");
    const value = bytes.subarray(position, (position += length));
    yield [Math.floor(key / 8), value, bytes.subarray(start, position)];
  }
}

/** Return a field of a number, or of bytes. */
export function field(number, value) {
  if (typeof value === "number") return joined([varint(8 * number), varint(value)]);
  return joined([varint(8 * number + 2), varint(value.length), value]);
}

/** Return pieces of bytes as one. */
export function joined(pieces) {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  pieces.reduce((offset, piece) => (bytes.set(piece, offset), offset + piece.length), 0);
  return bytes;
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Uint8Array.from([...bytes, value]);
}
