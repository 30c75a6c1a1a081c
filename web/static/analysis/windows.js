// Overlapping windows over sound of any length, and which windows a whole recording is averaged over: the rules of AudioTagger
// in Python (helpers/tagger/windows.py and averaging.py), against which tests/web compares them.

const WHOLE_SECONDS = 10; // windows of whole recordings
const MAX_LONGER = 0.1; // of such a window, that the last one may be longer
const MAX_PADDING = 60; // seconds that short recordings may be padded to

/**
 * Cut sound that comes in pieces of any size into overlapping windows.
 *
 * Windows begin at 0, hop, 2 hop, ... as long as they fit. If sound is left after the last of them, one more window is moved back
 * so that it ends with the sound. Sound shorter than a window is one window of its own length. A window is {start, samples}, with
 * the first sample as a number and a Float32Array.
 */
export class Windows {
  #buffer = new Float32Array(0);
  #filled = 0; // samples in the buffer
  #end = 0; // samples seen
  #next = 0; // start of the next window
  #covered = 0; // end of the last window

  /** All in samples, 1 or more. The last window begins at a multiple of `align`, so it may be longer by less than that. */
  constructor(window, hop, align = 1) {
    this.window = window;
    this.hop = hop;
    this.align = align;
  }

  /** Return the windows that more samples complete. */
  push(samples) {
    const complete = [];
    for (let start = 0; start < samples.length; start += this.window) {
      this.#append(samples.subarray(start, start + this.window));
      while (this.#next + this.window <= this.#end) {
        complete.push(this.#cut(this.#next, this.window));
        this.#covered = this.#next + this.window;
        this.#next += this.hop;
      }
    }
    return complete;
  }

  /** Return the window that ends with the sound, none if the last one did. */
  finish() {
    if (this.#covered === this.#end) return [];
    const start = Math.floor(Math.max(0, this.#end - this.window) / this.align) * this.align;
    this.#covered = this.#end;
    return [this.#cut(start, this.#end - start)];
  }

  #append(piece) {
    if (this.#filled + piece.length > this.#buffer.length) {
      const kept = Math.min(this.#filled, this.window + this.align - 1); // later windows need no more
      const buffer = new Float32Array(Math.max(4 * this.window, kept + piece.length));
      buffer.set(this.#buffer.subarray(this.#filled - kept, this.#filled));
      this.#buffer = buffer;
      this.#filled = kept;
    }
    this.#buffer.set(piece, this.#filled);
    this.#filled += piece.length;
    this.#end += piece.length;
  }

  #cut(start, length) {
    const offset = start - (this.#end - this.#filled);
    return { start, samples: this.#buffer.slice(offset, offset + length) };
  }
}

/** Cut a whole recording into windows side by side. The last one may be longer by MAX_LONGER, so that a clip of little more than a
 * window is computed once. */
export class SideBySide {
  #windows;
  #last = null; // held back, as it may become longer

  constructor(window) {
    this.#windows = new Windows(window, window);
    this.window = window;
  }

  push(samples) {
    return this.#windows.push(samples).flatMap((window) => this.#replace(window));
  }

  finish() {
    const [rest] = this.#windows.finish();
    const before = rest ? this.#merge(rest) : [];
    return this.#last ? [...before, this.#last] : before;
  }

  #merge(rest) {
    const added = rest.start + rest.samples.length - (this.#last ? this.#last.start + this.#last.samples.length : 0);
    if (!this.#last || added > MAX_LONGER * this.window) return this.#replace(rest);
    const samples = new Float32Array(this.#last.samples.length + added);
    samples.set(this.#last.samples);
    samples.set(rest.samples.subarray(rest.samples.length - added), this.#last.samples.length);
    this.#last = { start: this.#last.start, samples };
    return [];
  }

  #replace(window) {
    const before = this.#last ? [this.#last] : [];
    this.#last = window;
    return before;
  }
}

/** The mean over the windows of a recording, each weighted with the time it adds to those before. */
export class Mean {
  #end = 0; // in samples, of the windows so far
  #sums = null;

  /** Add the scores of the window that ends at sample `end`. */
  add(end, scores) {
    this.#sums ??= new Float64Array(scores.length);
    const weight = end - this.#end;
    this.#end = end;
    for (let k = 0; k < scores.length; k++) this.#sums[k] += weight * scores[k];
  }

  /** Return the mean so far, null if there is none yet. */
  result() {
    return this.#sums && Float32Array.from(this.#sums, (sum) => sum / this.#end);
  }
}

/** Return the samples that shorter sound is padded to with zeros, from the seconds of the clips of a model's training, or null. */
export function shortestSamples(clipSeconds, rate) {
  return Math.round(Math.min(clipSeconds ?? 0, MAX_PADDING) * rate);
}

/** Return the samples of the windows that a whole recording is averaged over. */
export function wholeSamples(clipSeconds, rate) {
  return Math.round(Math.max(WHOLE_SECONDS, Math.min(clipSeconds ?? 0, MAX_PADDING)) * rate);
}

/** Return samples with zeros behind them up to a length. */
export function padded(samples, length) {
  if (samples.length >= length) return samples;
  const longer = new Float32Array(length);
  longer.set(samples);
  return longer;
}
