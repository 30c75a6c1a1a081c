// The bytes of a file, read piece by piece.

const PIECE = 1 << 18;

/** A kind of file, or damage, that is not read piece by piece here; the browser may still decode it as a whole. */
export class NotStreamable extends Error {}

export class Reader {
  #buffer = new Uint8Array(0);
  #end = 0; // bytes read of the file

  constructor(file) {
    this.file = file;
    this.position = 0; // in the file
  }

  /** Return at least `count` bytes from the position on, fewer at the end of the file. */
  async bytes(count) {
    if (this.#buffer.length < count && this.#end < this.file.size) {
      const end = Math.min(this.file.size, this.#end + Math.max(PIECE, count - this.#buffer.length));
      const piece = new Uint8Array(await this.file.slice(this.#end, end).arrayBuffer());
      const joined = new Uint8Array(this.#buffer.length + piece.length);
      joined.set(this.#buffer);
      joined.set(piece, this.#buffer.length);
      this.#buffer = joined;
      this.#end = end;
    }
    return this.#buffer;
  }

  skip(count) {
    this.position += count;
    if (count <= this.#buffer.length) {
      this.#buffer = this.#buffer.subarray(count);
    } else {
      this.#buffer = new Uint8Array(0);
      this.#end = Math.min(this.position, this.file.size);
    }
  }
}

export function text(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}
