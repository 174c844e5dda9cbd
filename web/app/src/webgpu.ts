/** ONNX Runtime Web's build for WebGPU, which is large: loaded only where it may be used. */

import * as ort from "onnxruntime-web/jspi";
import glueUrl from "onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.jspi.wasm?url";
import { type ModelFacts, OrtRuntime } from "picosam2/custom";

export async function open(model: Uint8Array, facts: ModelFacts): Promise<OrtRuntime> {
  ort.env.wasm.wasmPaths = {
    mjs: new URL(glueUrl, self.location.href).href,
    wasm: new URL(wasmUrl, self.location.href).href,
  };
  ort.env.wasm.numThreads = 1; // what runs on the processor is little
  ort.env.logLevel = "error";
  return OrtRuntime.open(ort, model, facts, { executionProviders: ["webgpu"] });
}
