// Collects samples on the audio thread and hands them on in batches.

class Recorder extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.batch = new Float32Array(128 * Math.max(1, Math.round((processorOptions.seconds * sampleRate) / 128)));
    this.filled = 0;
  }

  process([input]) {
    const [samples] = input;
    if (!samples) return true;
    this.batch.set(samples, this.filled);
    this.filled += samples.length;
    if (this.filled === this.batch.length) {
      this.port.postMessage(this.batch.slice());
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
