// ONNX Runtime: the part that computes on the processor, and the one for graphics cards (WebGPU), which is fetched when it is asked for.

import * as processor from "../runtime/ort.wasm.bundle.min.mjs";
import { inSinglePrecision } from "./single_precision.js";

prepare(processor, "ort-wasm-simd-threaded.wasm");
export const { Tensor } = processor;

/** Return a session of a model's bytes on the "processor" or the "graphics card"; throws where that cannot be. */
export async function openSession(bytes, device) {
  if (device === "processor") return processor.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  if (!(await hasGraphicsCard())) throw new Error("the browser finds none");
  const card = await import("../runtime/ort.webgpu.bundle.min.mjs");
  prepare(card, "ort-wasm-simd-threaded.asyncify.wasm");
  // in the other layout, 1.30 computes grouped convolutions wrongly whose groups have other than a multiple of 4 outputs: the front end's
  const executionProviders = [{ name: "webgpu", preferredLayout: "NCHW" }];
  return card.InferenceSession.create(inSinglePrecision(bytes), { executionProviders, logSeverityLevel: 3 }); // errors
}

/** Whether the browser gives access to a graphics card. */
export async function hasGraphicsCard() {
  return Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
}

function prepare(runtime, file) {
  runtime.env.wasm.wasmPaths = { wasm: new URL(`../runtime/${file}`, import.meta.url).href };
  runtime.env.wasm.numThreads = 1; // more need headers that many static hosts do not send
  runtime.env.logLevel = "error";
}
