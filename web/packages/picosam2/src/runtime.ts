/**
 * ONNX Runtime Web: on WebAssembly always (SIMD, and threads where the page is cross-origin
 * isolated), on WebGPU where there is one that proves to give the same logits in less time.
 */

import type * as Ort from "onnxruntime-web";
import * as wasm from "onnxruntime-web/wasm";
import glueUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import type { ModelFacts } from "./metadata";
import type { Runtime } from "./predictor";

/** Whether the build holds what WebGPU needs (PICOSAM2_WEBGPU=0 leaves it out). */
declare const __WEBGPU__: boolean;

/** More threads than this gain nothing on a network of this size. */
const MOST_THREADS = 4;

/** The largest difference of a logit between WebAssembly and WebGPU: both compute in float32. */
const TOLERANCE = 0.05;

/** Crops of the self-test: as many as a click has windows. */
const TESTED = 5;

/** A session of either kind. */
class Session {
  constructor(
    private readonly tensor: typeof Ort.Tensor,
    private readonly session: Ort.InferenceSession,
    private readonly facts: ModelFacts,
  ) {}

  async run(crops: Uint8Array, batch: number): Promise<Float32Array> {
    const side = this.facts.inputSize;
    const shape = [batch, 3, side, side];
    const input = new this.tensor("float32", normalize(crops, batch, this.facts), shape);
    const { logits } = await this.session.run({ [this.session.inputNames[0]!]: input }, ["logits"]);
    const data = await logits?.getData();
    if (!(data instanceof Float32Array)) throw new Error("the model gives no logits");
    return data;
  }

  async release(): Promise<void> {
    await this.session.release();
  }
}

export class WebRuntime implements Runtime {
  private gpu: Session | null = null;

  private constructor(
    readonly facts: ModelFacts,
    readonly threads: number,
    private readonly cpu: Session,
  ) {}

  static async open(model: Uint8Array, facts: ModelFacts): Promise<WebRuntime> {
    const threads = self.crossOriginIsolated
      ? Math.max(1, Math.min(MOST_THREADS, navigator.hardwareConcurrency))
      : 1;
    wasm.env.wasm.wasmPaths = {
      mjs: new URL(glueUrl, self.location.href).href,
      wasm: new URL(wasmUrl, self.location.href).href,
    };
    wasm.env.wasm.numThreads = threads;
    wasm.env.logLevel = "error";
    const session = await wasm.InferenceSession.create(model, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
      // Threads that wait by spinning take the processor from whatever else runs on the device.
      extra: { session: { intra_op: { allow_spinning: "0" } } },
    });
    return new WebRuntime(facts, threads, new Session(wasm.Tensor, session, facts));
  }

  async run(crops: Uint8Array, batch: number): Promise<Float32Array> {
    if (this.gpu) {
      try {
        return await this.gpu.run(crops, batch);
      } catch {
        this.gpu = null; // the device was lost, as it is when a laptop changes graphics
      }
    }
    return this.cpu.run(crops, batch);
  }

  /** Whether there is a graphics processor to try, and the user does not save data. */
  static async mayUseGpu(): Promise<boolean> {
    if (!__WEBGPU__ || !("gpu" in navigator)) return false;
    const { gpu, connection } = navigator as typeof navigator & {
      gpu: { requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null> };
      connection?: { saveData?: boolean };
    };
    if (connection?.saveData) return false;
    const adapter = await gpu.requestAdapter();
    return adapter !== null && adapter.info?.isFallbackAdapter !== true;
  }

  /** Loads the graphics session; `adopt` decides about it. Null where that fails. */
  static async openGpu(model: Uint8Array, facts: ModelFacts): Promise<Session | null> {
    if (!__WEBGPU__) return null;
    try {
      const { open } = await import("./webgpu");
      const { tensor, session } = await open(model);
      return new Session(tensor, session, facts);
    } catch {
      return null;
    }
  }

  /** The self-test: from now on runs on `gpu` if it agrees and is faster. */
  async adopt(gpu: Session): Promise<boolean> {
    const size = this.facts.inputSize ** 2 * 3;
    // Waves of rising frequency: every crop differs, and no value is trivial.
    const crops = Uint8Array.from({ length: TESTED * size }, (_, i) => {
      const wave = 1 + Math.floor(i / size);
      return 127.5 + 127 * Math.sin((i % size) * 0.0137 * wave + wave);
    });
    const timed = async (session: Session): Promise<[number, Float32Array]> => {
      let logits = await session.run(crops, TESTED); // the first run compiles
      const times: number[] = [];
      for (let i = 0; i < 3; i++) {
        const before = performance.now();
        logits = await session.run(crops, TESTED);
        times.push(performance.now() - before);
      }
      return [Math.min(...times), logits];
    };
    try {
      const [gpuMs, found] = await timed(gpu);
      const [cpuMs, expected] = await timed(this.cpu);
      const agrees =
        found.length === expected.length &&
        found.every((value, i) => Math.abs(value - expected[i]!) <= TOLERANCE);
      if (agrees && gpuMs < cpuMs) {
        this.gpu = gpu;
        return true;
      }
    } catch {
      // A graphics processor that cannot run the network is none.
    }
    await gpu.release().catch(() => undefined);
    return false;
  }
}

/** Crops (B, S, S, 3) 8 bits to the network's input (B, 3, S, S), as `images.normalize`. */
export function normalize(crops: Uint8Array, batch: number, facts: ModelFacts): Float32Array {
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
