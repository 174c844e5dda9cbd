/** ONNX Runtime Web's build for WebGPU, which is large: loaded only where it may be used. */

import * as ort from "onnxruntime-web/webgpu";
import glueUrl from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";

export async function open(
  model: Uint8Array,
): Promise<{ tensor: typeof ort.Tensor; session: ort.InferenceSession }> {
  ort.env.wasm.wasmPaths = {
    mjs: new URL(glueUrl, self.location.href).href,
    wasm: new URL(wasmUrl, self.location.href).href,
  };
  ort.env.wasm.numThreads = 1; // what runs on the processor is little
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(model, { executionProviders: ["webgpu"] });
  return { tensor: ort.Tensor, session };
}
