// Which model is used, and where it is computed.

import { bytes } from "./view/format.js";
import { $, alarm, say } from "./view/texts.js";

const BUNDLED = "models/mn04_distilled.onnx";
const MAX_BYTES = 1e9;

export class Models {
  #model = null; // {source, metadata, hasFrames}

  /** `loading()` is called, and awaited, before a model is loaded; `loaded(model)` after it, with the one before if it failed. */
  constructor(worker, { loading, loaded }) {
    Object.assign(this, { worker, loading, loaded });
    $("choose-model").addEventListener("click", () => $("model-file").click());
    $("model-file").addEventListener("change", () => {
      this.choose($("model-file").files[0]);
      $("model-file").value = "";
    });
    $("device").addEventListener("change", () => this.#load(this.#model.source));
  }

  /** Load the bundled model. */
  start() {
    this.#load(new URL(BUNDLED, document.baseURI).href);
  }

  /** Load a file of export.py. */
  choose(file) {
    if (file?.size > MAX_BYTES) alarm(`${file.name}: it has ${bytes(file.size)}; a model has ${bytes(MAX_BYTES)} at most.`);
    else if (file) this.#load(file);
  }

  /** Take a message of the worker. */
  model(model) {
    this.#model = model;
    say(`Model ${model.metadata.model_name} is ready.`);
    this.#show();
  }

  modelFailed({ source, message }) {
    alarm(`${source.name ?? source.split("/").pop()}: ${message}.`);
    this.#show();
  }

  hasGraphicsCard() {
    $("device-label").hidden = false;
  }

  fellBack({ message }) {
    $("device").value = "processor";
    alarm(`The graphics card cannot be used (${message}); the processor computes instead.`);
  }

  async #load(source) {
    alarm(null);
    $("device").disabled = true;
    await this.loading();
    if (this.#model) $("model-about").textContent = "loading";
    this.worker.postMessage({ type: "load", source, device: $("device").value });
  }

  #show() {
    const { metadata, hasFrames } = this.#model ?? {};
    $("model-name").textContent = metadata?.model_name ?? "none";
    if (metadata) {
      const steps = hasFrames ? `, steps of ${Math.round(1000 * metadata.step_seconds)} ms` : "";
      $("model-about").textContent = `${metadata.num_classes} classes${steps}`;
      $("resolution-label").hidden = hasFrames;
    }
    $("device").disabled = !metadata;
    this.loaded(this.#model);
  }
}
