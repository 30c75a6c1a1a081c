// Constants in float64, which the exported front end has two of, as float32: ONNX Runtime's part for graphics cards has no float64.

import { field, fields, joined } from "./protobuf.js";

const [GRAPH, INITIALIZER, DATA_TYPE, RAW_DATA] = [7, 5, 2, 9]; // of ModelProto, GraphProto and TensorProto of onnx.proto
const [FLOAT, DOUBLE] = [1, 11];

/** Return the bytes of an ONNX model whose constants in float64 are rounded to float32. */
export function inSinglePrecision(model) {
  return changed(model, GRAPH, (graph) => changed(graph, INITIALIZER, toSingle));
}

function changed(message, number, change) {
  return joined(Array.from(fields(message), ([own, value, whole]) => (own === number ? field(number, change(value)) : whole)));
}

function toSingle(tensor) {
  const entries = new Map(fields(tensor));
  if (entries.get(DATA_TYPE) !== DOUBLE || !entries.has(RAW_DATA)) return tensor;
  const values = Float32Array.from(new Float64Array(entries.get(RAW_DATA).slice().buffer));
  const rest = Array.from(fields(tensor)).filter(([number]) => number !== DATA_TYPE && number !== RAW_DATA);
  return joined([...rest.map(([, , whole]) => whole), field(DATA_TYPE, FLOAT), field(RAW_DATA, new Uint8Array(values.buffer))]);
}
