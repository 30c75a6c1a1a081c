// Live sound from the microphone, and what of it is kept as a recording.

const KEPT_SECONDS = 600;
const BATCH_SECONDS = 0.05; // between two calls

/** Call `take(samples, time)` with mono samples as they are heard. Throws an Error of one line where there is no microphone. */
export async function openMicrophone(take) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("The browser gives no microphone to this address; open the page by https, or on this machine by http://127.0.0.1.");
  }
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    throw new Error(
      denied
        ? "The microphone is not allowed for this page; allow it in the browser's settings of the page, or choose a file."
        : "There is no microphone that can be used; connect one, or choose a file.",
    );
  }
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    context.close();
    throw new Error(`The microphone cannot be read (${error.message}).`);
  }
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0, processorOptions: { seconds: BATCH_SECONDS } });
  context.createMediaStreamSource(stream).connect(recorder);
  recorder.port.onmessage = ({ data }) => take(data, performance.now());
  await context.resume();
  return {
    rate: context.sampleRate,
    close() {
      recorder.port.onmessage = null;
      stream.getTracks().forEach((track) => track.stop());
      return context.close();
    },
  };
}

/** The last KEPT_SECONDS of live sound, in 16 bits. */
export class Tape {
  #pieces = [];
  #samples = 0;

  constructor(rate) {
    this.rate = rate;
  }

  push(samples) {
    this.#pieces.push(Int16Array.from(samples, (sample) => Math.round(32767 * Math.max(-1, Math.min(1, sample)))));
    this.#samples += samples.length;
    while (this.#samples > KEPT_SECONDS * this.rate) this.#samples -= this.#pieces.shift().length;
  }

  get seconds() {
    return this.#samples / this.rate;
  }

  /** Return a wav file. */
  file(name) {
    const header = new DataView(new ArrayBuffer(44));
    const size = 2 * this.#samples;
    const put = (at, text) => [...text].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
    put(0, "RIFF");
    header.setUint32(4, 36 + size, true);
    put(8, "WAVEfmt ");
    header.setUint32(16, 16, true);
    header.setUint16(20, 1, true);
    header.setUint16(22, 1, true);
    header.setUint32(24, this.rate, true);
    header.setUint32(28, 2 * this.rate, true);
    header.setUint16(32, 2, true);
    header.setUint16(34, 16, true);
    put(36, "data");
    header.setUint32(40, size, true);
    return new File([header, ...this.#pieces], name, { type: "audio/wav" });
  }
}
