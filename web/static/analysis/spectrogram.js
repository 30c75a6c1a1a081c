// The picture of sound: log-mel bands and the waveform's extremes, one column every 10 ms. It is for the eye; the models have front
// ends of their own.

const SIZE = 1024; // samples of a Fourier transform
const COLUMN_SECONDS = 0.01;
export const BANDS = 96;
export const FLOOR = -100; // dB against a sine of full scale, of value 0; 255 is 0 dB

/** Turn mono sound in pieces of any size into {bands: Uint8Array (columns x BANDS), extremes: Int8Array (columns x 2)}. */
export class Spectrogram {
  #held = new Float32Array(SIZE / 2); // the middle of a column's frame is its beginning
  #real = new Float64Array(SIZE);
  #imaginary = new Float64Array(SIZE);
  #power = new Float64Array(SIZE / 2);

  constructor(rate) {
    this.hop = Math.round(COLUMN_SECONDS * rate);
    this.columnSeconds = this.hop / rate;
    this.window = Float64Array.from({ length: SIZE }, (_, n) => (0.5 - 0.5 * Math.cos((2 * Math.PI * n) / SIZE)) * (4 / SIZE));
    this.filters = melFilters(rate);
  }

  push(samples) {
    const input = new Float32Array(this.#held.length + samples.length);
    input.set(this.#held);
    input.set(samples, this.#held.length);
    const count = Math.max(0, Math.floor((input.length - SIZE) / this.hop) + 1);
    const part = { bands: new Uint8Array(count * BANDS), extremes: new Int8Array(count * 2) };
    for (let column = 0; column < count; column++) {
      const frame = input.subarray(column * this.hop, column * this.hop + SIZE);
      this.#bands(frame, part.bands.subarray(column * BANDS, (column + 1) * BANDS));
      extremes(frame.subarray(SIZE / 2, SIZE / 2 + this.hop), part.extremes.subarray(2 * column, 2 * column + 2));
    }
    this.#held = input.slice(count * this.hop);
    return part;
  }

  /** Return the columns of what is left. */
  finish() {
    return this.push(new Float32Array(SIZE / 2));
  }

  #bands(frame, bands) {
    for (let n = 0; n < SIZE; n++) this.#real[n] = frame[n] * this.window[n];
    this.#imaginary.fill(0);
    transform(this.#real, this.#imaginary);
    for (let k = 0; k < SIZE / 2; k++) this.#power[k] = this.#real[k] ** 2 + this.#imaginary[k] ** 2;
    for (let band = 0; band < BANDS; band++) {
      const { first, weights } = this.filters[band];
      let power = 1e-12;
      for (let k = 0; k < weights.length; k++) power += weights[k] * this.#power[first + k];
      bands[band] = Math.max(0, Math.min(255, Math.round(255 * (1 - (10 * Math.log10(power)) / FLOOR))));
    }
  }
}

export function toMel(hertz) {
  return 2595 * Math.log10(1 + hertz / 700);
}

/** Triangles, whose largest weight is 1, from 0 Hz to half of the rate; low ones take at least the nearest bin. */
function melFilters(rate) {
  const toBin = (mel) => (700 * (10 ** (mel / 2595) - 1) * SIZE) / rate;
  const step = toMel(rate / 2) / (BANDS + 1);
  return Array.from({ length: BANDS }, (_, band) => {
    const [low, middle, high] = [0, 1, 2].map((edge) => toBin((band + edge) * step));
    const first = Math.min(Math.ceil(low), Math.round(middle));
    const last = Math.min(SIZE / 2 - 1, Math.max(Math.floor(high), Math.round(middle)));
    const weights = Array.from({ length: last - first + 1 }, (_, k) => {
      const bin = first + k;
      return Math.max(0, bin < middle ? (bin - low) / (middle - low) : (high - bin) / (high - middle));
    });
    weights[Math.round(middle) - first] = Math.max(weights[Math.round(middle) - first], 0.5);
    return { first, weights };
  });
}

/** The fast Fourier transform in place, of a power of two (Cooley and Tukey, 1965). */
function transform(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let length = 2; length <= size; length <<= 1) {
    const half = length >> 1;
    const stride = SIZE / length;
    for (let start = 0; start < size; start += length) {
      for (let k = 0; k < half; k++) {
        const c = COSINES[k * stride];
        const s = SINES[k * stride];
        const a = start + k;
        const b = a + half;
        const r = real[b] * c + imaginary[b] * s;
        const i = imaginary[b] * c - real[b] * s;
        real[b] = real[a] - r;
        imaginary[b] = imaginary[a] - i;
        real[a] += r;
        imaginary[a] += i;
      }
    }
  }
}

const COSINES = Float64Array.from({ length: SIZE / 2 }, (_, n) => Math.cos((2 * Math.PI * n) / SIZE));
const SINES = Float64Array.from({ length: SIZE / 2 }, (_, n) => Math.sin((2 * Math.PI * n) / SIZE));

function extremes(samples, pair) {
  let [low, high] = [0, 0];
  for (const sample of samples) {
    if (sample < low) low = sample;
    else if (sample > high) high = sample;
  }
  pair[0] = Math.max(-127, Math.round(127 * low));
  pair[1] = Math.min(127, Math.round(127 * high));
}
