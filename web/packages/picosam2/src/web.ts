/**
 * ONNX Runtime Web in a browser: on WebAssembly (SIMD, and threads where the page is cross-origin
 * isolated) for networks that `simd.ts` does not know, on WebGPU where the page offers it and it proves
 * to give the same logits in less time.
 */

import type { ModelFacts } from "./metadata.ts";
import type { Runtime } from "./predictor.ts";
import { OrtRuntime } from "./runtime.ts";

/** The largest difference of a logit between WebAssembly and WebGPU: both compute in float32. */
const TOLERANCE = 0.05;

/** Crops of a measurement: as many as a click has windows. */
const TESTED = 5;

/** Where ONNX Runtime's WebAssembly is: addresses, or what was already fetched from there. */
export interface WasmSource {
  readonly mjs?: string;
  readonly wasm?: string;
  readonly binary?: ArrayBuffer;
}

/** Opens a session on WebAssembly. The number of threads holds for the whole worker or page. */
export async function openWasm(
  model: Uint8Array,
  facts: ModelFacts,
  threads: number,
  source: WasmSource = {},
): Promise<OrtRuntime> {
  const wasm = await import("onnxruntime-web/wasm"); // fetched only where it is needed
  const { env } = wasm;
  if (source.mjs || source.wasm) {
    env.wasm.wasmPaths = {
      ...(source.mjs && { mjs: source.mjs }),
      ...(source.wasm && { wasm: source.wasm }),
    };
  }
  if (source.binary) env.wasm.wasmBinary = source.binary;
  env.wasm.numThreads = threads;
  env.logLevel = "error";
  return OrtRuntime.open(wasm, model, facts, {
    executionProviders: ["wasm"],
    // Threads that wait by spinning take the processor from whatever else runs on the device.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  });
}

/** Whether there is a graphics processor to try, and the user does not save data. */
export async function mayUseGpu(): Promise<boolean> {
  if (!("gpu" in navigator)) return false;
  const { gpu, connection } = navigator as typeof navigator & {
    gpu: { requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null> };
    connection?: { saveData?: boolean };
  };
  if (connection?.saveData) return false;
  const adapter = await gpu.requestAdapter();
  return adapter !== null && adapter.info?.isFallbackAdapter !== true;
}

/** Runs on the processor, and from `adopt` on on a graphics processor as long as that works. */
export class SwitchingRuntime implements Runtime {
  private gpu: OrtRuntime | null = null;

  constructor(
    readonly facts: ModelFacts,
    private readonly cpu: Runtime & { release(): Promise<void> },
  ) {}

  async run(crops: Uint8Array, batch: number, guidance: Float32Array | null = null): Promise<Float32Array> {
    if (this.gpu) {
      try {
        return await this.gpu.run(crops, batch, guidance);
      } catch {
        this.gpu = null; // the device was lost, as it is when a laptop changes graphics
      }
    }
    return this.cpu.run(crops, batch, guidance);
  }

  /** The self-test: from now on runs on `gpu` if it agrees and is faster. */
  async adopt(gpu: OrtRuntime): Promise<boolean> {
    try {
      const [gpuMs, got] = await measure(gpu);
      const [cpuMs, expected] = await measure(this.cpu);
      const agrees =
        got.length === expected.length &&
        got.every((value, i) => Math.abs(value - expected[i]!) <= TOLERANCE);
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

  async release(): Promise<void> {
    await this.gpu?.release();
    await this.cpu.release();
  }
}

/** Milliseconds of a click's crops (the best of three runs), and their logits. */
export async function measure(runtime: Runtime): Promise<[number, Float32Array]> {
  const size = runtime.facts.inputSize ** 2 * 3;
  // Waves of rising frequency: every crop differs, and no value is trivial.
  const crops = Uint8Array.from({ length: TESTED * size }, (_, i) => {
    const wave = 1 + Math.floor(i / size);
    return 127.5 + 127 * Math.sin((i % size) * 0.0137 * wave + wave);
  });
  let logits = await runtime.run(crops, TESTED); // the first run allocates or compiles
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const before = performance.now();
    logits = await runtime.run(crops, TESTED);
    times.push(performance.now() - before);
  }
  return [Math.min(...times), logits];
}
