// Change of the sample rate by a windowed sinc, computed phase by phase, for sound that comes in pieces of any size.

const PASS = 0.913; // end of the passband, as a part of the lower Nyquist frequency; the stopband begins at 1, as soxr's "HQ"
const ATTENUATION = 100; // dB in the stopband
const BETA = 0.1102 * (ATTENUATION - 8.7); // of the Kaiser window (Kaiser, 1974)
const MAX_PHASES = 8192; // ratios that need more take the nearest phase

/** The output does not depend on how the input was cut; sample n of it is the input at the time n / toRate. */
export class Resampler {
  #held; // input that later output needs, and where it begins
  #offset;
  #received = 0; // input samples
  #produced = 0; // output samples

  constructor(fromRate, toRate) {
    const divisor = gcd(fromRate, toRate);
    this.up = toRate / divisor;
    this.down = fromRate / divisor;
    if (this.up === this.down) return;
    const scale = Math.min(1, toRate / fromRate); // of the cutoff, against the input's Nyquist frequency
    const width = Math.PI * (1 - PASS) * scale; // of the transition, in radians a sample
    this.half = Math.ceil((ATTENUATION - 8) / (2.285 * width) / 2); // taps on each side
    this.phases = Math.min(this.up, MAX_PHASES);
    this.filters = makeFilters(this.phases, this.half, (scale * (1 + PASS)) / 2);
    this.#held = new Float32Array(this.half); // zeros come before the sound
    this.#offset = -this.half;
  }

  push(samples) {
    this.#received += samples.length;
    return this.#apply(samples, false);
  }

  /** Return what is left. */
  finish() {
    return this.#apply(new Float32Array(this.half ? this.half + 1 : 0), true);
  }

  #apply(samples, last) {
    if (this.up === this.down) return samples;
    const input = new Float32Array(this.#held.length + samples.length);
    input.set(this.#held);
    input.set(samples, this.#held.length);
    const end = this.#offset + input.length;
    // output n needs the input up to floor(n down / up) + half, or one more where it takes the nearest phase
    const computable = Math.floor(((end - this.half - 1) * this.up - 1) / this.down) + 1;
    const total = Math.round((this.#received * this.up) / this.down);
    const count = Math.max(0, (last ? total : Math.min(computable, total)) - this.#produced);
    const output = new Float32Array(count);
    const taps = 2 * this.half;
    const filters = this.filters;
    for (let n = 0; n < count; n++) {
      const position = (this.#produced + n) * this.down; // in steps of 1 / up samples
      let whole = Math.floor(position / this.up);
      let phase = position - whole * this.up;
      if (this.phases < this.up) phase = Math.round((phase * this.phases) / this.up);
      if (phase === this.phases) {
        phase = 0;
        whole++;
      }
      const first = whole - this.half + 1 - this.#offset;
      const filter = phase * taps;
      let sum = 0;
      for (let k = 0; k < taps; k++) sum += filters[filter + k] * input[first + k];
      output[n] = sum;
    }
    this.#produced += count;
    const needed = Math.floor((this.#produced * this.down) / this.up) - this.half + 1;
    const from = Math.max(0, Math.min(needed - this.#offset, input.length));
    this.#held = input.slice(from);
    this.#offset += from;
    return output;
  }
}

/** Return, for each phase, the 2 half taps from sample 1 - half to half around the one at or before the output. */
function makeFilters(phases, half, cutoff) {
  const filters = new Float64Array(phases * 2 * half);
  for (let phase = 0; phase < phases; phase++) {
    let sum = 0;
    for (let k = 0; k < 2 * half; k++) {
      const time = k + 1 - half - phase / phases; // in input samples
      const x = Math.PI * cutoff * time;
      const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - (time / half) ** 2)));
      sum += filters[phase * 2 * half + k] = (Math.abs(x) < 1e-12 ? 1 : Math.sin(x) / x) * window;
    }
    for (let k = 0; k < 2 * half; k++) filters[phase * 2 * half + k] /= sum; // every phase passes a constant as it is
  }
  return filters;
}

/** The modified Bessel function of the first kind and order 0. */
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}
