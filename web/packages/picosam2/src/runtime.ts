/** The network in ONNX Runtime, whichever package of it: crops in, logits out. */

import { PLANES } from "./guidance.ts";
import type { ModelFacts } from "./metadata.ts";
import type { Runtime } from "./predictor.ts";
import { unpackWeights } from "./weights.ts";

/** The name of the input for guidance, in networks that have one. */
const GUIDANCE = "guidance";

/** What is used of onnxruntime-web and onnxruntime-node, which share their API. */
export interface OrtModule {
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: {
    create(model: Uint8Array, options?: Record<string, unknown>): Promise<OrtSession>;
  };
}

interface OrtTensor {
  getData(): Promise<unknown>;
  dispose(): void;
}

export interface OrtSession {
  readonly inputNames: readonly string[];
  run(feeds: Record<string, OrtTensor>, fetches: readonly string[]): Promise<Record<string, OrtTensor>>;
  release(): Promise<void>;
}

export class OrtRuntime implements Runtime {
  private constructor(
    readonly facts: ModelFacts,
    private readonly ort: OrtModule,
    private readonly session: OrtSession,
  ) {}

  /** Opens a model file's bytes with one of ONNX Runtime's packages. */
  static async open(
    ort: OrtModule,
    model: Uint8Array,
    facts: ModelFacts,
    options: Record<string, unknown> = {},
  ): Promise<OrtRuntime> {
    const session = await ort.InferenceSession.create(unpackWeights(model), {
      graphOptimizationLevel: "all",
      ...options,
    });
    return new OrtRuntime(facts, ort, session);
  }

  /** Crops (B, S, S, 3) RGB 8 bits, with guidance (B, 3, S, S) or none, to logits (B, K, s, s). */
  async run(crops: Uint8Array, batch: number, guidance: Float32Array | null = null): Promise<Float32Array> {
    const { inputSize: side } = this.facts;
    const shape = [batch, 3, side, side];
    const { inputNames } = this.session;
    const image = inputNames.find((name) => name !== GUIDANCE)!;
    const feeds: Record<string, OrtTensor> = {
      [image]: new this.ort.Tensor("float32", normalize(crops, batch, this.facts), shape),
    };
    if (inputNames.includes(GUIDANCE)) {
      const planes = guidance ?? new Float32Array(batch * PLANES * side * side);
      feeds[GUIDANCE] = new this.ort.Tensor("float32", planes, [batch, PLANES, side, side]);
    }
    const { logits } = await this.session.run(feeds, ["logits"]);
    const data = await logits?.getData();
    if (!(data instanceof Float32Array)) throw new Error("the model gives no logits");
    return data;
  }

  async release(): Promise<void> {
    await this.session.release();
  }
}

/** Crops (B, S, S, 3) 8 bits to the network's input (B, 3, S, S), as `images.normalize` in Python. */
export function normalize(crops: Uint8Array, batch: number, facts: ModelFacts): Float32Array {
  const size = facts.inputSize * facts.inputSize;
  const out = new Float32Array(batch * 3 * size);
  // A byte has 256 values: one table a channel is quicker than arithmetic a pixel.
  const table = new Float32Array(256);
  for (let c = 0; c < 3; c++) {
    const scale = Math.fround(1 / (255 * facts.std[c]!));
    const shift = Math.fround(facts.mean[c]! / facts.std[c]!);
    for (let v = 0; v < 256; v++) table[v] = Math.fround(v * scale) - shift;
    for (let b = 0; b < batch; b++) {
      let from = b * size * 3 + c;
      const to = (b * 3 + c) * size;
      for (let i = 0; i < size; i++, from += 3) out[to + i] = table[crops[from]!]!;
    }
  }
  return out;
}
