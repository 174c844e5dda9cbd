/**
 * Weights in fewer bytes. `packWeights` stores an ONNX model's filters as int8 with one scale an
 * output channel where a filter has many values, as float16 where it has few. The file stays an ONNX
 * model, whose Cast and Mul nodes give the weights back as float32. `unpackWeights` does what these
 * nodes do before ONNX Runtime sees the file: left to its constant folding, the network takes nearly
 * twice the processor time in WebAssembly.
 */

import { bytesField, concat, decode, fields, integers, textField, varintField } from "./protobuf.ts";

/** Filters with fewer values than this a channel keep float16: a scale would weigh as much. */
const LEAST_FILTER = 32;

/** Tensors with fewer values than this stay as they are. */
const LEAST_SIZE = 64;

// Field numbers of onnx.proto.
const MODEL = { graph: 7, metadata: 14 } as const;
const ENTRY = { key: 1, value: 2 } as const;
const GRAPH = { node: 1, initializer: 5 } as const;
const TENSOR = { dims: 1, type: 2, floats: 4, name: 8, raw: 9 } as const;
const NODE = { input: 1, output: 2, opType: 4, attribute: 5 } as const;
const ATTRIBUTE = { name: 1, i: 3, type: 20, INT: 2 } as const;
const TYPE = { FLOAT: 1, INT8: 3, FLOAT16: 10 } as const;

const INT8 = ".packed-int8";
const SCALE = ".packed-scale";
const CODES = ".packed-codes";
const HALF = ".packed-half";

export interface Tensor {
  readonly name: string;
  readonly dims: readonly number[];
  readonly type: number;
  readonly raw: Uint8Array;
}

/** A model with its weights stored as int8, or all as float16. */
export function packWeights(model: Uint8Array, to: "int8" | "float16" = "int8"): Uint8Array<ArrayBuffer> {
  return withGraph(withoutGraphHash(model), (graph) => {
    const nodes: Uint8Array[] = [];
    const rest: Uint8Array[] = [];
    for (const field of fields(graph)) {
      const tensor = field.number === GRAPH.initializer ? readTensor(field.body) : null;
      const values = tensor?.type === TYPE.FLOAT ? floats(tensor.raw) : null;
      if (!tensor || !values || values.length < LEAST_SIZE) {
        rest.push(field.raw);
        continue;
      }
      const { name, dims } = tensor;
      const channels = dims[0]!;
      const add = (suffix: string, type: number, shape: readonly number[], raw: Uint8Array): void => {
        rest.push(bytesField(GRAPH.initializer, tensorBytes(name + suffix, type, shape, raw)));
      };
      if (to === "int8" && dims.length === 4 && values.length / channels >= LEAST_FILTER) {
        const { codes, scales } = quantized(values, channels);
        add(INT8, TYPE.INT8, dims, codes);
        add(SCALE, TYPE.FLOAT, [channels, 1, 1, 1], new Uint8Array(scales.buffer));
        nodes.push(node("Cast", [name + INT8], name + CODES, TYPE.FLOAT));
        nodes.push(node("Mul", [name + CODES, name + SCALE], name));
      } else {
        add(HALF, TYPE.FLOAT16, dims, new Uint8Array(Uint16Array.from(values, toHalf).buffer));
        nodes.push(node("Cast", [name + HALF], name, TYPE.FLOAT));
      }
    }
    // A graph's nodes are in the order of their use: what makes the weights comes first.
    return [...nodes.map((body) => bytesField(GRAPH.node, body)), ...rest];
  });
}

/** A model as it was before `packWeights`, to within what packing took; others come back as they are. */
export function unpackWeights(model: Uint8Array): Uint8Array<ArrayBuffer> {
  return withGraph(model, (graph) => {
    const tensors = new Map<string, Tensor>();
    for (const { number, body } of fields(graph)) {
      if (number !== GRAPH.initializer) continue;
      const tensor = readTensor(body);
      if (tensor.name.includes(".packed-")) tensors.set(tensor.name, tensor);
    }
    return [...fields(graph)].flatMap(({ number, body, raw }) => {
      if (number === GRAPH.node && tensors.size > 0 && inputsOf(body).some((name) => name.includes(".packed-"))) {
        return [];
      }
      if (number !== GRAPH.initializer) return [raw];
      const { name, dims } = readTensor(body);
      if (!tensors.has(name)) return [raw];
      const values = unpacked(name, tensors);
      if (!values) return [];
      const whole = tensorBytes(name.replace(/\.packed-\w+$/, ""), TYPE.FLOAT, dims, new Uint8Array(values.buffer));
      return [bytesField(GRAPH.initializer, whole)];
    });
  });
}

/** The float32 values that a stored tensor stands for; null for a scale, which goes with its codes. */
function unpacked(name: string, tensors: ReadonlyMap<string, Tensor>): Float32Array<ArrayBuffer> | null {
  const { raw, dims } = tensors.get(name)!;
  if (name.endsWith(HALF)) return Float32Array.from(new Uint16Array(raw.slice().buffer), fromHalf);
  if (!name.endsWith(INT8)) return null;
  const scales = floats(tensors.get(name.replace(INT8, SCALE))!.raw);
  const codes = new Int8Array(raw.slice().buffer);
  const size = codes.length / dims[0]!;
  return Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / size)]!);
}

/** Each channel's scale is the one, of a few, that leaves the least squared error. */
function quantized(values: Float32Array, channels: number): { codes: Uint8Array; scales: Float32Array<ArrayBuffer> } {
  const size = values.length / channels;
  const codes = new Int8Array(values.length);
  const scales = new Float32Array(channels);
  const code = (value: number, scale: number): number => Math.min(Math.max(Math.round(value / scale), -127), 127);
  for (let c = 0; c < channels; c++) {
    const part = values.subarray(c * size, (c + 1) * size);
    const peak = part.reduce((most, v) => Math.max(most, Math.abs(v)), 0) || 1;
    let least = Infinity;
    for (const share of [1, 0.95, 0.9, 0.85, 0.8]) {
      const scale = Math.fround((peak * share) / 127);
      const error = part.reduce((sum, v) => sum + (code(v, scale) * scale - v) ** 2, 0);
      if (error >= least) continue;
      least = error;
      scales[c] = scale;
    }
    for (let i = 0; i < size; i++) codes[c * size + i] = code(part[i]!, scales[c]!);
  }
  return { codes: new Uint8Array(codes.buffer), scales };
}

/** IEEE 754 binary16, rounded to nearest. */
export function toHalf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  const mantissa = Math.round((size / 2 ** exponent - 1) * 1024);
  return sign | ((exponent + 15 + (mantissa >> 10)) << 10) | (mantissa & 1023);
}

/** The number of a binary16. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

// --- ONNX ---------------------------------------------------------------------------------------

function withGraph(model: Uint8Array, change: (graph: Uint8Array) => Uint8Array[]): Uint8Array<ArrayBuffer> {
  // A Node Buffer's slice is no copy: read it as plain bytes.
  const bytes = new Uint8Array(model.buffer, model.byteOffset, model.byteLength);
  return concat(
    [...fields(bytes)].map(({ number, body, raw }) =>
      number === MODEL.graph ? bytesField(MODEL.graph, concat(change(body))) : raw,
    ),
  );
}

/** The model without the hash of its graph in its description, for a graph that is stored in another way. */
function withoutGraphHash(model: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(model.buffer, model.byteOffset, model.byteLength);
  return concat(
    [...fields(bytes)].map(({ number, body, raw }) => {
      if (number !== MODEL.metadata) return raw;
      const entry = new Map([...fields(body)].map((field) => [field.number, field.body]));
      const key = decode(entry.get(ENTRY.key)!);
      if (key !== "picosam2") return raw;
      const description = JSON.parse(decode(entry.get(ENTRY.value)!)) as Record<string, unknown>;
      delete description["graph_sha256"];
      const value = textField(ENTRY.value, JSON.stringify(description));
      return bytesField(MODEL.metadata, concat([textField(ENTRY.key, key), value]));
    }),
  );
}

export function readTensor(bytes: Uint8Array): Tensor {
  let [name, type, raw] = ["", 0, new Uint8Array(0) as Uint8Array];
  const dims: number[] = [];
  for (const field of fields(bytes)) {
    if (field.number === TENSOR.dims) dims.push(...integers(field));
    else if (field.number === TENSOR.type) type = field.value;
    else if (field.number === TENSOR.name) name = decode(field.body);
    else if (field.number === TENSOR.raw || field.number === TENSOR.floats) raw = field.body;
  }
  return { name, dims, type, raw };
}

export function floats(raw: Uint8Array): Float32Array {
  return new Float32Array(raw.slice().buffer);
}

function tensorBytes(name: string, type: number, dims: readonly number[], raw: Uint8Array): Uint8Array {
  return concat([
    ...dims.map((dim) => varintField(TENSOR.dims, dim)),
    varintField(TENSOR.type, type),
    textField(TENSOR.name, name),
    bytesField(TENSOR.raw, raw),
  ]);
}

function node(opType: string, inputs: readonly string[], output: string, to: number | null = null): Uint8Array {
  const attribute = [textField(ATTRIBUTE.name, "to"), varintField(ATTRIBUTE.i, to ?? 0), varintField(ATTRIBUTE.type, ATTRIBUTE.INT)];
  return concat([
    ...inputs.map((name) => textField(NODE.input, name)),
    textField(NODE.output, output),
    textField(NODE.opType, opType),
    ...(to === null ? [] : [bytesField(NODE.attribute, concat(attribute))]),
  ]);
}

function inputsOf(bytes: Uint8Array): string[] {
  return [...fields(bytes)].filter(({ number }) => number === NODE.input).map(({ body }) => decode(body));
}
