/**
 * A network of few operators, read from its ONNX file as layers that `kernels/kernels.ts` computes:
 * convolutions of 1x1, one filter a channel, or few input channels, each with what is added to it and
 * its clamp. A file with anything else is refused, and runs in ONNX Runtime.
 */

import { decode, fields, integers } from "./protobuf.ts";
import { floats, readTensor, type Tensor, unpackWeights } from "./weights.ts";

// Field numbers of onnx.proto.
const MODEL = { graph: 7 } as const;
const GRAPH = { node: 1, initializer: 5 } as const;
const NODE = { input: 1, output: 2, opType: 4, attribute: 5, domain: 7 } as const;
const ATTRIBUTE = { name: 1, i: 3, s: 4, t: 5, ints: 8 } as const;

/** onnx.proto's numbers for types. */
export const TYPE = { FLOAT: 1, UINT8: 2, INT8: 3, INT32: 6, INT64: 7 } as const;

/** The attributes whose meaning is known here; another one may change what an operator does. */
const ATTRIBUTES: Readonly<Record<string, readonly string[]>> = {
  Add: [],
  Clip: [], // before opset 11 its limits were attributes
  Conv: ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
  Relu: [],
  // What is listed beside the first three has no effect on `nearest`.
  Resize: [
    "mode", "coordinate_transformation_mode", "nearest_mode",
    "antialias", "cubic_coeff_a", "exclude_outside", "extrapolation_value", "keep_aspect_ratio_policy",
  ],
};

/** A file whose network has other operators than these. */
export class UnknownNetwork extends Error {}

export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly output: string;
  readonly numbers: ReadonlyMap<string, readonly number[]>;
  readonly texts: ReadonlyMap<string, string>;
}

export interface Values {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

/** Integers of a file: weights in 8 bits, zero points, shapes. */
export interface Codes {
  readonly dims: readonly number[];
  /** onnx.proto's number. */
  readonly type: number;
  readonly data: ArrayLike<number>;
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly constants: ReadonlyMap<string, Values>;
  readonly codes: ReadonlyMap<string, Codes>;
}

/** What the layers of a graph are made from. */
export type PlainGraph = Pick<Graph, "nodes" | "constants">;

/** One step: `output` = clamp(convolution of `input` + `residual`, `low`, `high`). */
export interface Layer {
  readonly kind: "conv" | "depthwise" | "add" | "double";
  readonly input: string;
  readonly residual: string | null;
  readonly output: string;
  /** Filters (out, in, size, size), or (channels, 1, size, size), and biases; null without a convolution. */
  readonly filters: Values | null;
  readonly bias: Float32Array | null;
  readonly stride: number;
  readonly pad: number;
  /** Whether the input is doubled first, by repeating its pixels. */
  readonly doubled: boolean;
  readonly low: number;
  readonly high: number;
}

/** The graph of a model file, packed or not. */
export function readGraph(model: Uint8Array): Graph {
  const nodes: Node[] = [];
  const constants = new Map<string, Values>();
  const codes = new Map<string, Codes>();
  const keep = (name: string, tensor: Tensor): void => {
    constants.set(name, valuesOf(tensor));
    const data = integersOf(tensor);
    if (data) codes.set(name, { dims: tensor.dims, type: tensor.type, data });
  };
  for (const { number, body } of fields(unpackWeights(model))) {
    if (number !== MODEL.graph) continue;
    for (const field of fields(body)) {
      if (field.number === GRAPH.initializer) {
        const tensor = readTensor(field.body);
        keep(tensor.name, tensor);
      } else if (field.number === GRAPH.node) {
        const { node, constant } = readNode(field.body);
        if (constant) keep(node.output, constant);
        else nodes.push(node);
      }
    }
  }
  return { nodes, constants, codes };
}

/** Other than float32 has no values here: what uses it is refused. */
function valuesOf({ dims, type, raw }: Tensor): Values {
  return { dims, data: type === TYPE.FLOAT ? floats(raw) : new Float32Array(0) };
}

function integersOf({ type, raw }: Tensor): ArrayLike<number> | null {
  const { buffer } = raw.slice();
  switch (type) {
    case TYPE.UINT8: return new Uint8Array(buffer);
    case TYPE.INT8: return new Int8Array(buffer);
    case TYPE.INT32: return new Int32Array(buffer);
    case TYPE.INT64: return Array.from(new BigInt64Array(buffer), Number);
    default: return null;
  }
}

function readNode(bytes: Uint8Array): { node: Node; constant: Tensor | null } {
  const inputs: string[] = [];
  let [op, output, domain] = ["", "", ""];
  let constant: Tensor | null = null;
  const numbers = new Map<string, readonly number[]>();
  const texts = new Map<string, string>();
  for (const { number, body } of fields(bytes)) {
    if (number === NODE.input) inputs.push(decode(body));
    else if (number === NODE.output) output = decode(body);
    else if (number === NODE.opType) op = decode(body);
    else if (number === NODE.domain) domain = decode(body);
    else if (number === NODE.attribute) {
      let name = "";
      const values: number[] = [];
      for (const field of fields(body)) {
        if (field.number === ATTRIBUTE.name) name = decode(field.body);
        else if (field.number === ATTRIBUTE.s) texts.set(name, decode(field.body));
        else if (field.number === ATTRIBUTE.i || field.number === ATTRIBUTE.ints) values.push(...integers(field));
        else if (field.number === ATTRIBUTE.t) constant = readTensor(field.body);
      }
      numbers.set(name, values);
    }
  }
  if (domain && domain !== "ai.onnx") op = `${domain}.${op}`; // another operator, whatever its name
  return { node: { op, inputs, output, numbers, texts }, constant: op === "Constant" ? constant : null };
}

/** A graph's layers in the order of their use. `zeros` names an input whose values are all zero. */
export function layersOf(graph: PlainGraph, zeros: string | null = null): Layer[] {
  const { nodes, renamed } = withoutZeros(graph, zeros);
  const { constants } = graph;
  const uses = new Map<string, Node[]>();
  for (const node of nodes) {
    for (const name of node.inputs) uses.set(renamed(name), [...(uses.get(renamed(name)) ?? []), node]);
  }
  /** The only node that uses a value. */
  const only = (name: string): Node | null => {
    const users = uses.get(name) ?? [];
    return users.length === 1 ? users[0]! : null;
  };
  const layers: Layer[] = [];
  const ready = new Set<string>();
  const merged = new Set<Node>();
  const doubled = new Map<string, string>();
  for (const node of nodes) {
    checkAttributes(node);
    if (merged.has(node)) continue;
    const inputs = node.inputs.map(renamed);
    let output = node.output;
    let kind: Layer["kind"] = "add";
    let residual: string | null = null;
    let [filters, bias] = [null, null] as [Values | null, Float32Array | null];
    let [stride, pad, low, high] = [1, 0, -Infinity, Infinity];
    const limit = (clamp: Node): void => {
      [low, high] = limits(clamp, constants);
      output = clamp.output;
      merged.add(clamp);
    };
    if (node.op === "Resize") {
      checkDoubling(node, constants);
      if (only(output)?.op === "Conv") doubled.set(output, inputs[0]!);
      else {
        layers.push({
          kind: "double", input: inputs[0]!, residual: null, output, filters: null, bias: null,
          stride: 1, pad: 0, doubled: true, low: -Infinity, high: Infinity,
        });
        ready.add(output);
      }
      continue;
    } else if (node.op === "Conv") {
      ({ kind, filters, bias, stride, pad } = convolution(node, constants));
      const sum = only(output);
      const other = sum?.op === "Add" ? sum.inputs.map(renamed).find((name) => name !== output) : undefined;
      if (kind === "conv" && sum && other && ready.has(other)) {
        residual = other;
        output = sum.output;
        merged.add(sum);
      }
    } else if (node.op === "Add") residual = inputs[1]!;
    else limit(node);
    const next = only(output);
    const limited = low !== -Infinity || high !== Infinity;
    if (next && (next.op === "Relu" || next.op === "Clip") && !limited) limit(next);
    const source = doubled.get(inputs[0]!);
    if (source && kind !== "depthwise") throw new UnknownNetwork("a Resize before a full convolution");
    const input = source ?? inputs[0]!;
    layers.push({ kind, input, residual, output, filters, bias, stride, pad, doubled: source !== undefined, low, high });
    ready.add(output);
  }
  return layers;
}

/** The nodes that matter where an input is zero, and the names of what such a sum leaves as it is. */
function withoutZeros(
  { nodes, constants }: PlainGraph,
  zeros: string | null,
): { nodes: Node[]; renamed: (name: string) => string } {
  const zero = new Set(zeros === null ? [] : [zeros]);
  const same = new Map<string, string>();
  const renamed = (name: string): string => same.get(name) ?? name;
  const left = nodes.filter((node) => {
    const [first, second] = node.inputs.map(renamed);
    if (node.op === "Add" && (zero.has(first!) || zero.has(second!))) {
      same.set(node.output, zero.has(first!) ? second! : first!);
      return false;
    }
    if (!zero.has(first!)) return true;
    if (node.op === "Conv" && node.inputs[2]) return true;
    if (node.op === "Clip" || node.op === "Relu") {
      const [low, high] = limits(node, constants);
      if (low > 0 || high < 0) return true;
    }
    zero.add(node.output);
    return false;
  });
  if (left.some((node) => node.inputs.some((name) => zero.has(renamed(name))))) {
    throw new UnknownNetwork("an input of zeros that has an effect");
  }
  return { nodes: left, renamed };
}

function checkAttributes({ op, numbers, texts }: Node): void {
  const known = ATTRIBUTES[op];
  if (!known) throw new UnknownNetwork(`the operator ${op}`);
  for (const name of [...numbers.keys(), ...texts.keys()]) {
    if (!known.includes(name)) throw new UnknownNetwork(`the attribute ${name} of ${op}`);
  }
}

function limits({ op, inputs }: Node, constants: Graph["constants"]): [low: number, high: number] {
  if (op === "Relu") return [0, Infinity];
  const limit = (input: string | undefined, otherwise: number): number => {
    if (!input) return otherwise;
    const value = constants.get(input)?.data;
    if (value?.length !== 1) throw new UnknownNetwork("a Clip whose limits are not float32 numbers in the file");
    return value[0]!;
  };
  return [limit(inputs[1], -Infinity), limit(inputs[2], Infinity)];
}

function checkDoubling(node: Node, constants: Graph["constants"]): void {
  const scales = constants.get(node.inputs[2] ?? "")?.data ?? [];
  const nearest =
    node.texts.get("mode") === "nearest" &&
    node.texts.get("coordinate_transformation_mode") === "asymmetric" &&
    node.texts.get("nearest_mode") === "floor";
  if (!nearest || [...scales].join() !== "1,1,2,2") throw new UnknownNetwork("a Resize that does not double");
}

function convolution(
  node: Node,
  constants: Graph["constants"],
): Pick<Layer, "kind" | "filters" | "bias" | "stride" | "pad"> {
  const { numbers, texts } = node;
  const filters = constants.get(node.inputs[1]!);
  if (!filters) throw new UnknownNetwork("a convolution whose filters are computed");
  if (filters.dims.length !== 4) throw new UnknownNetwork("a convolution of other than two dimensions");
  const [out, perGroup, size, width] = filters.dims as [number, number, number, number];
  if (filters.data.length !== out * perGroup * size * width) {
    throw new UnknownNetwork("filters that are not float32, or not in the file");
  }
  const same = (name: string, otherwise: number): number => {
    const [first = otherwise, ...rest] = numbers.get(name) ?? [];
    if (rest.some((value) => value !== first)) throw new UnknownNetwork(`a convolution with uneven ${name}`);
    return first;
  };
  const group = same("group", 1);
  const depthwise = group > 1 && group === out && perGroup === 1;
  if ((group > 1 && !depthwise) || same("dilations", 1) !== 1 || size !== width) {
    throw new UnknownNetwork("a convolution of another kind");
  }
  const pad = same("pads", 0);
  if ((texts.get("auto_pad") ?? "NOTSET") !== "NOTSET" || pad >= size) {
    throw new UnknownNetwork("a convolution that is padded in another way");
  }
  const bias = node.inputs[2] ? constants.get(node.inputs[2])?.data : null;
  if (bias === undefined || (bias && bias.length !== out)) {
    throw new UnknownNetwork("biases that are not float32 numbers in the file");
  }
  return { kind: depthwise ? "depthwise" : "conv", filters, bias, stride: same("strides", 1), pad };
}
