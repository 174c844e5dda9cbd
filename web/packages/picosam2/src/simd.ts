/**
 * The network without ONNX Runtime: its layers on a few kilobytes of WebAssembly, on one thread. The
 * same weights in float32, so the logits equal ONNX Runtime's to rounding.
 */

import { PLANES } from "./guidance.ts";
import { RELAXED, SIMD } from "./kernels.ts";
import type { ModelFacts } from "./metadata.ts";
import { type Graph, type Layer, layersOf, readGraph, UnknownNetwork, type Values } from "./network.ts";
import type { Runtime } from "./predictor.ts";

export const IMAGE = "image";
const GUIDANCE = "guidance";
const LOGITS = "logits";
const PAGE = 65536;

/** What kernels/kernels.ts exports. */
export interface Kernels {
  readonly memory: WebAssembly.Memory;
  pointwise(
    x: number, w: number, residual: number, y: number, pixels: number, k: number, n: number, low: number, high: number,
  ): void;
  depthwise(
    x: number, w: number, y: number, height: number, width: number, up: number, channels: number, size: number,
    stride: number, pad: number, outHeight: number, outWidth: number, low: number, high: number,
  ): void;
  patches(
    x: number, y: number, height: number, width: number, channels: number, size: number, stride: number, pad: number,
    row: number, outWidth: number,
  ): void;
  add(x: number, residual: number, y: number, count: number, low: number, high: number): void;
}

/** Channels are stored in fours. */
const fours = (channels: number): number => Math.ceil(channels / 4) * 4;

interface Size {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

export interface Plane extends Size {
  readonly at: number;
}

/** As stored. */
const floats = ({ height, width, channels }: Size): number => height * width * fours(channels);

const alike = (a: Size, b: Size): boolean =>
  a.height === b.height && a.width === b.width && a.channels === b.channels;

/** The layers' calls, and the planes that they read first and leave last. */
interface Plan {
  readonly steps: readonly (() => void)[];
  readonly inputs: ReadonlyMap<string, Plane>;
  readonly outputs: readonly Plane[];
}

/** Layers on the kernels, with a memory of their own. */
export class Compiled {
  private constructor(
    readonly kernels: Kernels,
    private readonly plans: readonly Plan[],
  ) {}

  /**
   * Several ways through one network, which run in turn and share their memory; the first has all the
   * filters. Inputs are planes of 3 channels and `side` x `side`. Throws `UnknownNetwork`.
   */
  static async open(ways: readonly (readonly Layer[])[], side: number, outputs: readonly string[]): Promise<Compiled> {
    const { instance } = await WebAssembly.instantiate(binary(), { env: { abort } });
    const kernels = instance.exports as unknown as Kernels;
    const weights = new Memory(kernels.memory, 1024);
    const packed = packedWeights(ways[0]!, weights);
    const plans = ways.map((layers) =>
      planned(layers, packed, kernels, new Memory(kernels.memory, weights.end), side, outputs),
    );
    return new Compiled(kernels, plans);
  }

  input(name: string, way = 0): Plane {
    return this.plans[way]!.inputs.get(name)!;
  }

  outputs(way = 0): readonly Plane[] {
    return this.plans[way]!.outputs;
  }

  run(way = 0): void {
    for (const step of this.plans[way]!.steps) step();
  }

  /** An output's channel (height, width) into `out`, from `to` on. */
  read({ at, height, width, channels }: Plane, channel: number, out: Float32Array, to: number): void {
    const [size, stored] = [height * width, fours(channels)];
    const values = new Float32Array(this.kernels.memory.buffer, at, size * stored);
    for (let i = 0, from = channel; i < size; i++, from += stored) out[to + i] = values[from]!;
  }
}

/** Turns 8 bits into what the network takes: a byte has 256 values, so a table a channel is quicker than arithmetic. */
export class Normalizer {
  private readonly tables: readonly Float32Array[];

  constructor({ mean, std }: Pick<ModelFacts, "mean" | "std">) {
    this.tables = mean.map((mean, c) => {
      const scale = Math.fround(1 / (255 * std[c]!));
      const shift = Math.fround(mean / std[c]!);
      return Float32Array.from({ length: 256 }, (_, v) => Math.fround(v * scale) - shift);
    });
  }

  /** A crop (S, S, 3) into a plane of the memory. */
  fill(memory: WebAssembly.Memory, { at }: Plane, crop: Uint8Array): void {
    const into = new Float32Array(memory.buffer, at, (crop.length / 3) * 4);
    const [red, green, blue] = this.tables as [Float32Array, Float32Array, Float32Array];
    for (let from = 0, to = 0; from < crop.length; from += 3, to += 4) {
      into[to] = red[crop[from]!]!;
      into[to + 1] = green[crop[from + 1]!]!;
      into[to + 2] = blue[crop[from + 2]!]!;
      into[to + 3] = 0;
    }
  }
}

export class SimdRuntime implements Runtime {
  private readonly normalizer: Normalizer;

  private constructor(
    readonly facts: ModelFacts,
    private readonly network: Compiled,
    /** The ways through the network with guidance (null for one that takes none), and without. */
    private readonly guided: number | null,
    private readonly plain: number,
  ) {
    this.normalizer = new Normalizer(facts);
  }

  /** Rejects with `UnknownNetwork` if the file's network has other operators than the kernels. */
  static async open(model: Uint8Array, facts: ModelFacts): Promise<SimdRuntime> {
    const graph = readable(model);
    const plain = layersOf(graph, facts.guidance ? GUIDANCE : null);
    const ways = facts.guidance ? [layersOf(graph), plain] : [plain];
    const { inputSize, outputSize, channels } = facts;
    const network = await Compiled.open(ways, inputSize, [LOGITS]);
    const expected = { height: outputSize, width: outputSize, channels };
    if (ways.some((_, way) => !alike(network.outputs(way)[0]!, expected))) {
      throw new UnknownNetwork("logits of another size than its description says");
    }
    return new SimdRuntime(facts, network, facts.guidance ? 0 : null, ways.length - 1);
  }

  /** Crops (B, S, S, 3) RGB 8 bits, with guidance (B, 3, S, S) or none, to logits (B, K, s, s). */
  run(crops: Uint8Array, batch: number, guidance: Float32Array | null = null): Promise<Float32Array> {
    const { network, guided, plain } = this;
    const { inputSize, outputSize, channels } = this.facts;
    const [inside, outside] = [inputSize * inputSize, outputSize * outputSize];
    const out = new Float32Array(batch * channels * outside);
    for (let b = 0; b < batch; b++) {
      const planes = guidance?.subarray(b * PLANES * inside, (b + 1) * PLANES * inside);
      const way = guided !== null && planes?.some((value) => value !== 0) ? guided : plain;
      const crop = crops.subarray(b * inside * 3, (b + 1) * inside * 3);
      this.normalizer.fill(network.kernels.memory, network.input(IMAGE, way), crop);
      if (way === guided) this.interleave(network.input(GUIDANCE, way), planes!);
      network.run(way);
      const [logits] = network.outputs(way);
      for (let c = 0; c < channels; c++) network.read(logits!, c, out, (b * channels + c) * outside);
    }
    return Promise.resolve(out);
  }

  release(): Promise<void> {
    return Promise.resolve();
  }

  private interleave({ at }: Plane, planes: Float32Array): void {
    const size = planes.length / PLANES;
    const into = new Float32Array(this.network.kernels.memory.buffer, at, size * 4);
    for (let i = 0, to = 0; i < size; i++, to += 4) {
      for (let c = 0; c < PLANES; c++) into[to + c] = planes[c * size + i]!;
      into[to + 3] = 0;
    }
  }
}

/** A file's graph. Throws `UnknownNetwork` if it cannot be read. */
export function readable(model: Uint8Array): Graph {
  try {
    return readGraph(model);
  } catch {
    throw new UnknownNetwork("a graph that cannot be read");
  }
}

function abort(): never {
  throw new Error("the network failed");
}

/** With fused multiplications and additions where the browser has them. */
function binary(): Uint8Array<ArrayBuffer> {
  const bytes = (base64: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const relaxed = bytes(RELAXED);
  return WebAssembly.validate(relaxed) ? relaxed : bytes(SIMD);
}

/** Blocks of a WebAssembly memory, which grows as they need it. */
class Memory {
  private readonly free: { at: number; bytes: number }[] = [];

  constructor(
    private readonly memory: WebAssembly.Memory,
    /** Where what was given so far ends. */
    public end: number,
  ) {}

  take(floats: number): number {
    const bytes = floats * 4;
    const fitting = this.free.filter((block) => block.bytes >= bytes).sort((a, b) => a.bytes - b.bytes);
    const [block] = fitting;
    if (block) {
      this.free.splice(this.free.indexOf(block), 1);
      if (block.bytes > bytes) this.free.push({ at: block.at + bytes, bytes: block.bytes - bytes });
      return block.at;
    }
    const at = this.end;
    this.end += bytes;
    const missing = this.end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE));
    return at;
  }

  write(values: Float32Array): number {
    const at = this.take(values.length);
    new Float32Array(this.memory.buffer, at, values.length).set(values);
    return at;
  }

  give(at: number, floats: number): void {
    this.free.push({ at, bytes: floats * 4 });
  }
}

/** Where each layer's biases and filters lie. */
function packedWeights(layers: readonly Layer[], memory: Memory): ReadonlyMap<Values, number> {
  return new Map(
    layers.flatMap(({ kind, filters, bias }) => {
      if (!filters) return [];
      return [[filters, memory.write(kind === "depthwise" ? taps(filters, bias) : blocks(filters, bias))]];
    }),
  );
}

/** (channels, 1, size, size) as the biases, then a row of channels a tap. */
function taps({ dims, data }: Values, bias: Float32Array | null): Float32Array {
  const [channels, , size] = dims as [number, number, number, number];
  const stored = fours(channels);
  const out = new Float32Array((1 + size * size) * stored);
  if (bias) out.set(bias);
  for (let c = 0; c < channels; c++) {
    for (let tap = 0; tap < size * size; tap++) out[(1 + tap) * stored + c] = data[c * size * size + tap]!;
  }
  return out;
}

/** (out, in, size, size) as blocks of eight output channels: biases, then a row a tap and input channel. */
function blocks({ dims, data }: Values, bias: Float32Array | null): Float32Array {
  const [outputs, inputs, size] = dims as [number, number, number, number];
  const [stored, k] = [fours(outputs), size * size * fours(inputs)];
  const out = new Float32Array(stored * (k + 1));
  for (let o = 0; o < outputs; o++) {
    const block = o - (o % 8);
    const wide = Math.min(8, stored - block);
    const start = block * (k + 1) + (o - block);
    out[start] = bias?.[o] ?? 0;
    for (let c = 0; c < inputs; c++) {
      for (let tap = 0; tap < size * size; tap++) {
        out[start + (1 + tap * fours(inputs) + c) * wide] = data[(o * inputs + c) * size * size + tap]!;
      }
    }
  }
  return out;
}

/** The layers' calls, and where their planes lie: a plane's memory is used again after its last use. */
function planned(
  layers: readonly Layer[],
  weights: ReadonlyMap<Values, number>,
  kernels: Kernels,
  memory: Memory,
  side: number,
  outputs: readonly string[],
): Plan {
  const uses = new Map<string, number>();
  const count = (name: string, by: number): number => {
    const now = (uses.get(name) ?? 0) + by;
    uses.set(name, now);
    return now;
  };
  for (const { input, residual } of layers) for (const name of [input, residual]) if (name) count(name, 1);
  for (const name of outputs) count(name, 1); // by whoever reads them
  const planes = new Map<string, Plane>();
  const place = (name: string, height: number, width: number, channels: number): Plane => {
    const size = { height, width, channels };
    const plane = { at: memory.take(floats(size)), ...size };
    planes.set(name, plane);
    return plane;
  };
  const inputs = new Map(
    [IMAGE, GUIDANCE].filter((name) => uses.has(name)).map((name) => [name, place(name, side, side, 3)]),
  );
  const steps = layers.map((layer) => {
    const { kind, residual, output, filters, stride, pad, doubled, low, high } = layer;
    const x = planes.get(layer.input);
    const added = residual === null ? null : planes.get(residual);
    if (!x || added === undefined) throw new UnknownNetwork("layers that are not in the order of their use");
    const [height, width] = doubled ? [x.height * 2, x.width * 2] : [x.height, x.width];
    const r = added?.at ?? 0;
    let step: () => void;
    let y: Plane;
    if (kind === "double") {
      y = place(output, height, width, x.channels);
      step = () => double(kernels.memory, x, y);
    } else if (!filters) {
      y = place(output, height, width, x.channels);
      step = () => kernels.add(x.at, r, y.at, floats(y), low, high);
    } else {
      const [outputs, inner, size] = filters.dims as [number, number, number, number];
      const expected = kind === "depthwise" ? outputs : inner;
      if (expected !== x.channels) throw new UnknownNetwork("a convolution of other channels than it gets");
      const rows = Math.floor((height + 2 * pad - size) / stride) + 1;
      const columns = Math.floor((width + 2 * pad - size) / stride) + 1;
      y = place(output, rows, columns, outputs);
      const [w, stored, storedInput] = [weights.get(filters)!, fours(outputs), fours(x.channels)];
      if (kind === "depthwise") {
        step = () =>
          kernels.depthwise(
            x.at, w, y.at, height, width, doubled ? 1 : 0, stored, size, stride, pad, rows, columns, low, high,
          );
      } else if (size === 1 && stride === 1 && pad === 0) {
        step = () => kernels.pointwise(x.at, w, r, y.at, rows * columns, storedInput, stored, low, high);
      } else {
        const k = size * size * storedInput;
        const row = memory.take(columns * k);
        const line = columns * stored * 4;
        step = () => {
          for (let i = 0; i < rows; i++) {
            const [from, to] = [r && r + i * line, y.at + i * line];
            kernels.patches(x.at, row, height, width, storedInput, size, stride, pad, i, columns);
            kernels.pointwise(row, w, from, to, columns, k, stored, low, high);
          }
        };
        memory.give(row, columns * k);
      }
    }
    // ONNX repeats what is smaller: the kernels do not.
    if (added && !alike(added, y)) throw new UnknownNetwork("a sum of planes of different sizes");
    for (const name of [layer.input, residual]) {
      if (name === null || count(name, -1) > 0) continue;
      const plane = planes.get(name)!;
      memory.give(plane.at, floats(plane));
    }
    return step;
  });
  const last = outputs.map((name) => {
    const plane = planes.get(name);
    if (!plane) throw new UnknownNetwork(`no ${name}`);
    return plane;
  });
  return { steps, inputs, outputs: last };
}

/** Each pixel of `x` four times. */
function double(memory: WebAssembly.Memory, x: Plane, y: Plane): void {
  const stored = fours(x.channels);
  const from = new Float32Array(memory.buffer, x.at, floats(x));
  const to = new Float32Array(memory.buffer, y.at, floats(y));
  const line = y.width * stored;
  for (let row = 0; row < x.height; row++) {
    const start = 2 * row * line;
    for (let column = 0; column < x.width; column++) {
      const at = (row * x.width + column) * stored;
      const pixel = from.subarray(at, at + stored);
      to.set(pixel, start + 2 * column * stored);
      to.set(pixel, start + (2 * column + 1) * stored);
    }
    to.copyWithin(start + line, start, start + line);
  }
}
