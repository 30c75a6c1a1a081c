// Recordings, one after the other through the worker.

import { bytes } from "./view/format.js";
import { Picture } from "./view/picture.js";
import { Track } from "./view/timeline.js";

const SHORT_SECONDS = 300; // up to which windows are short by default
const [SHORT, LONG] = [{ window: 4, hop: 1 }, { window: 10, hop: 2.5 }]; // seconds
const MAX_WHOLE_BYTES = 500e6; // of files that the browser decodes as a whole
const MAX_WHOLE_SECONDS = 1800;
const MAX_UNKNOWN_BYTES = 25e6; // of these, where nothing says how long they are
const DECODE_RATE = 48000; // Hz

/** A file and what is known of it. `state` is waiting, working, done, failed or removed. */
export class Recording {
  constructor(file) {
    this.file = file;
    this.name = file.name;
    this.url = URL.createObjectURL(file);
    this.reset();
  }

  reset() {
    Object.assign(this, { state: "waiting", run: null, message: "", picture: null, track: new Track(), events: [], scores: null });
    Object.assign(this, { seconds: 0, expected: null, warnings: [], computeSeconds: null });
  }

  /** Return how much is done, from 0 to 1, or null where the length is not known. */
  get progress() {
    return this.expected ? Math.min(1, this.seconds / this.expected) : null;
  }
}

export class Queue {
  recordings = [];
  #current = null;
  #ready = false;
  #runs = 0; // analyses so far; messages of one that was given up are not taken for another's

  /** `resolution()` returns null (automatic) or {window, hop} in seconds; `changed(recording)` is told of everything that happens. */
  constructor(worker, resolution, changed) {
    Object.assign(this, { worker, resolution, changed });
  }

  set ready(ready) {
    this.#ready = ready;
    this.#next();
  }

  add(files) {
    const added = [...files].map((file) => new Recording(file));
    this.recordings.push(...added);
    added.forEach(this.changed);
    this.#next();
    return added;
  }

  remove(recording) {
    this.recordings = this.recordings.filter((other) => other !== recording);
    URL.revokeObjectURL(recording.url);
    this.#giveUp([recording]);
    recording.state = "removed";
    this.changed(recording);
    this.#next();
  }

  /** Analyse recordings again. */
  restart(recordings = this.recordings) {
    this.#giveUp(recordings);
    for (const recording of recordings) {
      recording.reset();
      this.changed(recording);
    }
    this.#next();
  }

  /** Take a message of the worker. */
  take({ type, id, ...message }) {
    const recording = this.#current;
    if (!recording || recording.run !== id) return;
    if (type === "opened") {
      recording.picture = new Picture(message.columnSeconds);
      recording.expected = message.seconds ?? recording.expected;
    } else if (type === "part") {
      append(recording, message);
    } else if (type === "done") {
      append(recording, message);
      const { scores, warnings, computeSeconds } = message;
      Object.assign(recording, { scores, warnings, computeSeconds });
      this.#end("done");
    } else if (type === "undecoded") {
      this.#decode(recording, id);
    } else if (type === "failed") {
      this.#fail(message.message);
    }
    this.changed(recording);
  }

  async #next() {
    if (!this.#ready || this.#current) return;
    const recording = this.recordings.find(({ state }) => state === "waiting");
    if (!recording) return;
    this.#current = recording;
    const id = ++this.#runs;
    Object.assign(recording, { run: id, state: "working" });
    this.changed(recording);
    const { file, url } = recording;
    const expected = file.size ? await duration(url) : null;
    if (recording.run !== id) return;
    recording.expected = expected;
    if (file.size) this.worker.postMessage({ type: "analyse", id, file, resolution: this.#resolution(recording) });
    else this.#fail("it is empty");
  }

  /** Let the browser decode as a whole what the worker does not read piece by piece. */
  async #decode(recording, id) {
    const { file, expected } = recording;
    const isShort = expected ? expected <= MAX_WHOLE_SECONDS && file.size <= MAX_WHOLE_BYTES : file.size <= MAX_UNKNOWN_BYTES;
    if (!isShort) {
      const limits = `${MAX_WHOLE_SECONDS / 60} minutes and ${bytes(MAX_WHOLE_BYTES)}, or ${bytes(MAX_UNKNOWN_BYTES)} of unknown length`;
      return this.#fail(`it has ${bytes(file.size)} and is no wav, mp3, flac or ogg; others may have ${limits}; convert it to flac`);
    }
    try {
      const buffer = await new OfflineAudioContext(1, 1, DECODE_RATE).decodeAudioData(await file.arrayBuffer());
      if (recording.run !== id) return;
      const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
      this.worker.postMessage({ type: "analyse", id, channels, rate: buffer.sampleRate, resolution: this.#resolution(recording) });
    } catch {
      if (recording.run === id) this.#fail("the browser finds no sound in it that it can decode");
    }
  }

  #fail(message) {
    this.#current.message = message;
    this.#end("failed");
  }

  #end(state) {
    const recording = this.#current;
    recording.state = state;
    this.#current = null;
    this.changed(recording);
    this.#next();
  }

  #giveUp(recordings) {
    if (!recordings.includes(this.#current)) return;
    this.worker.postMessage({ type: "cancel", id: this.#current.run });
    this.#current.run = null;
    this.#current = null;
  }

  #resolution(recording) {
    return this.resolution() ?? (recording.expected > SHORT_SECONDS ? LONG : SHORT);
  }
}

function append(recording, { columns, windows, events, seconds }) {
  recording.picture.append(columns);
  windows.forEach((window) => recording.track.push(window));
  recording.events.push(...events);
  recording.seconds = seconds;
}

/** Return the seconds that the browser's player finds in a file, null where it finds none. */
function duration(url) {
  return new Promise((resolve) => {
    const player = new Audio();
    player.preload = "metadata";
    player.onloadedmetadata = () => resolve(Number.isFinite(player.duration) ? player.duration : null);
    player.onerror = () => resolve(null);
    setTimeout(resolve, 3000, null);
    player.src = url;
  });
}
