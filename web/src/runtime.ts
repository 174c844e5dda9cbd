/** ONNX Runtime Web on WebAssembly: SIMD, and threads where the page is cross-origin isolated. */

import * as ort from "onnxruntime-web/wasm";
import glueUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import type { ModelFacts } from "./metadata";
import type { Runtime } from "./predictor";

/** More threads than this gain nothing on a network of this size. */
const MOST_THREADS = 4;

export class WasmRuntime implements Runtime {
  private constructor(
    readonly facts: ModelFacts,
    readonly threads: number,
    private readonly session: ort.InferenceSession,
  ) {}

  static async open(model: Uint8Array, facts: ModelFacts): Promise<WasmRuntime> {
    const threads = self.crossOriginIsolated
      ? Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency))
      : 1;
    ort.env.wasm.wasmPaths = {
      mjs: new URL(glueUrl, self.location.href).href,
      wasm: new URL(wasmUrl, self.location.href).href,
    };
    ort.env.wasm.numThreads = threads;
    ort.env.logLevel = "error";
    const session = await ort.InferenceSession.create(model, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
      // Threads that wait by spinning take the processor from whatever else runs on the device.
      extra: { session: { intra_op: { allow_spinning: "0" } } },
    });
    return new WasmRuntime(facts, threads, session);
  }

  async run(crops: Uint8Array, batch: number): Promise<Float32Array> {
    const side = this.facts.inputSize;
    const input = new ort.Tensor("float32", normalise(crops, batch, this.facts), [
      batch, 3, side, side,
    ]);
    const { logits } = await this.session.run({ [this.session.inputNames[0]!]: input }, ["logits"]);
    const data = logits?.data;
    if (!(data instanceof Float32Array)) throw new Error("the model gives no logits");
    return data;
  }
}

/** Crops (B, S, S, 3) 8 bits to the network's input (B, 3, S, S), as `images.normalise`. */
export function normalise(crops: Uint8Array, batch: number, facts: ModelFacts): Float32Array {
  const size = facts.inputSize * facts.inputSize;
  const out = new Float32Array(batch * 3 * size);
  for (let c = 0; c < 3; c++) {
    const scale = Math.fround(1 / (255 * facts.std[c]!));
    const shift = Math.fround(facts.mean[c]! / facts.std[c]!);
    for (let b = 0; b < batch; b++) {
      let from = b * size * 3 + c;
      const to = (b * 3 + c) * size;
      for (let i = 0; i < size; i++, from += 3) {
        out[to + i] = Math.fround(crops[from]! * scale) - shift;
      }
    }
  }
  return out;
}
