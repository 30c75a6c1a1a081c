// From the channels of a recording to one, by the rules of datasets/channels.py: a weighted mean, or the loudest channel where the
// mean loses more than 12 dB, decided for each 10 s.

const STRETCH_SECONDS = 10;
const MAX_STRETCH = 1 << 24; // values held of a stretch
const MAX_LOSS = 10 ** 1.2;
const SILENCE = 1e-9; // mean power
const MAX_PEAK = 100; // full scale is 1
const H = Math.SQRT1_2;
const WEIGHTS = {
  // of FL FR FC (LFE) BL BR (SL SR); ITU-R BS.775-4
  5: [0.5, 0.5, H, H / 2, H / 2],
  6: [0.5, 0.5, H, 0, H / 2, H / 2],
  8: [0.5, 0.5, H, 0, H / 2, H / 2, H / 2, H / 2],
};

/** Mix pieces of any size. Throws where samples are no sound: NaN, infinite, or far above full scale. */
export class Mixer {
  #filled = 0;

  constructor(channels, rate) {
    this.weights = WEIGHTS[channels] ?? new Array(channels).fill(1);
    this.length = Math.max(1, Math.min(STRETCH_SECONDS * rate, Math.floor(MAX_STRETCH / channels)));
    this.stretch = channels > 1 ? Array.from({ length: channels }, () => new Float32Array(this.length)) : null;
    this.cancels = false; // whether channels cancelled each other somewhere
  }

  /** Take a Float32Array for each channel, all of one length; return a list of mixed Float32Arrays. */
  push(channels) {
    channels.forEach(check);
    if (!this.stretch) return channels[0].length ? [channels[0]] : [];
    const mixed = [];
    for (let start = 0; start < channels[0].length; ) {
      const count = Math.min(this.length - this.#filled, channels[0].length - start);
      channels.forEach((samples, c) => this.stretch[c].set(samples.subarray(start, start + count), this.#filled));
      this.#filled += count;
      start += count;
      if (this.#filled === this.length) mixed.push(...this.finish());
    }
    return mixed;
  }

  /** Return what is left. */
  finish() {
    if (!this.#filled) return [];
    const channels = this.stretch.map((samples) => samples.subarray(0, this.#filled));
    this.#filled = 0;
    return [this.#mix(channels)];
  }

  #mix(channels) {
    const total = this.weights.reduce((sum, weight) => sum + weight);
    const mixed = new Float32Array(channels[0].length);
    channels.forEach((samples, c) => {
      const weight = this.weights[c] / total;
      if (weight) for (let n = 0; n < mixed.length; n++) mixed[n] += weight * samples[n];
    });
    const least = Math.max(SILENCE * mixed.length, ((MAX_LOSS * channels.length) / 2) * energy(mixed));
    const powers = channels.map(energy);
    let heard = this.weights.map((weight) => weight > 0);
    if (!powers.some((power, c) => heard[c] && power)) heard = heard.map(() => true); // low frequencies are all there is
    const those = powers.filter((_, c) => heard[c]);
    if (those.reduce((sum, power) => sum + power, 0) / those.length <= least) return mixed;
    this.cancels = true;
    return channels[powers.indexOf(Math.max(...those))].slice();
  }
}

function energy(samples) {
  let sum = 0;
  for (let n = 0; n < samples.length; n++) sum += samples[n] * samples[n];
  return sum;
}

function check(samples) {
  for (let n = 0; n < samples.length; n++) {
    if (!(Math.abs(samples[n]) <= MAX_PEAK)) {
      const what = Number.isFinite(samples[n]) ? `a sample of ${samples[n].toPrecision(3)}, where full scale is 1` : "samples that are no numbers";
      throw new Error(`it holds ${what}; convert it again`);
    }
  }
}
