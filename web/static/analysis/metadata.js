// What a file of export.py says about itself. ONNX Runtime gives no access to it, so this reads the few fields of ModelProto
// (onnx.proto) that hold it and skips all others.

import { fields } from "./protobuf.js";

const KEY = "efficientat";
const VERSION = 2;
const [METADATA_PROPS, ENTRY_KEY, ENTRY_VALUE] = [14, 1, 2];
const MAX_CLASSES = 100000;

/** Return the metadata of the bytes of an exported model. Throws an Error whose message is one line for anything else. */
export function readMetadata(bytes) {
  let text = null;
  try {
    for (const [number, value] of fields(bytes)) {
      if (number !== METADATA_PROPS) continue;
      const entry = new Map(fields(value));
      if (decode(entry.get(ENTRY_KEY)) === KEY) text = decode(entry.get(ENTRY_VALUE));
    }
  } catch {
    throw new Error("it is not an ONNX file; choose a file that export.py has written");
  }
  if (text === null) throw new Error("it is not a model of this project; choose a file that export.py has written");
  let metadata;
  try {
    metadata = JSON.parse(text);
  } catch {
    throw new Error("its metadata are damaged; export the model again");
  }
  check(metadata);
  return metadata;
}

function check(metadata) {
  const require = (name, isRight) => {
    if (!isRight) throw new Error(`its ${name} is ${String(JSON.stringify(metadata?.[name])).slice(0, 50)}; export the model again`);
  };
  const isWhole = (name, low, high) => Number.isInteger(metadata[name]) && metadata[name] >= low && metadata[name] <= high;
  const isPositiveOrNone = (value) => value === null || value === undefined || (Number.isFinite(value) && value > 0);
  require("format_version", metadata?.format_version === VERSION);
  if (metadata.input !== "waveform") throw new Error("it does not take waveforms; export it without --network_only");
  require("sample_rate", isWhole("sample_rate", 1000, 192000));
  require("num_classes", isWhole("num_classes", 1, MAX_CLASSES));
  require("single_label", typeof metadata.single_label === "boolean");
  require("clip_seconds", isPositiveOrNone(metadata.clip_seconds));
  require("step_seconds", isPositiveOrNone(metadata.step_seconds));
  require("model_name", typeof metadata.model_name === "string");
  const { labels } = metadata;
  require("labels", Array.isArray(labels) && labels.every((label) => typeof label === "string"));
  if (labels.length !== metadata.num_classes) {
    throw new Error(`it has ${labels.length} labels for ${metadata.num_classes} classes; export the model again`);
  }
}

function decode(bytes) {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes ?? new Uint8Array(0));
}
