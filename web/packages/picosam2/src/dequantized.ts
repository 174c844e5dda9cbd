/**
 * An INT8 network (QDQ, as `picosam2 quantize` writes it) as one of float32: 8-bit weights times their
 * scales, and for each rounding of an activation its clamp, which holds the ReLU that was merged into it.
 * What the rounding would cost is left out.
 */

import { type Codes, type Node, type PlainGraph, type Graph, TYPE, UnknownNetwork, type Values } from "./network.ts";

/** The numbers that an activation's codes can be. */
const RANGE: Readonly<Record<number, readonly [number, number]>> = {
  [TYPE.UINT8]: [0, 255],
  [TYPE.INT8]: [-128, 127],
};

/** The orders of axes to and from channels last. */
const [LAST, FIRST] = ["0,2,3,1", "0,3,1,2"];

/** Scales that double height and width. */
const DOUBLING: Values = { dims: [4], data: Float32Array.of(1, 1, 2, 2) };
const DOUBLING_NAME = "picosam2.doubling";

/** A graph without the operators of quantization; one that has none comes back with the same layers. */
export function dequantized(graph: Graph): PlainGraph {
  const constants = new Map(graph.constants);
  const same = new Map<string, string>();
  const renamed = (name: string): string => same.get(name) ?? name;
  const nodes: Node[] = [];
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(renamed);
    const [input, scale, zero] = inputs as [string, string?, string?];
    if (node.op === "DequantizeLinear") {
      const codes = graph.codes.get(input);
      if (codes) constants.set(node.output, weights(node, codes, graph, scale, zero));
      else same.set(node.output, input);
    } else if (node.op === "QuantizeLinear") {
      const [low, high] = limits(graph, scale, zero);
      const names = [`${node.output}.low`, `${node.output}.high`] as const;
      constants.set(names[0], { dims: [], data: Float32Array.of(low) });
      constants.set(names[1], { dims: [], data: Float32Array.of(high) });
      nodes.push({ ...node, op: "Clip", inputs: [input, ...names], numbers: new Map(), texts: new Map() });
    } else nodes.push({ ...node, inputs });
  }
  constants.set(DOUBLING_NAME, DOUBLING);
  return { nodes: doubled(nodes, graph), constants };
}

function weights(node: Node, codes: Codes, graph: Graph, scale = "", zero = ""): Values {
  const scales = graph.constants.get(scale)?.data;
  const zeros = zero ? graph.codes.get(zero)?.data : [];
  const { dims, data } = codes;
  const size = dims.reduce((product, dim) => product * dim, 1);
  const [axis = 1] = node.numbers.get("axis") ?? [];
  const perChannel = scales !== undefined && scales.length > 1;
  if (!scales || !zeros || data.length !== size || (perChannel && (axis !== 0 || scales.length !== dims[0]))) {
    throw new UnknownNetwork("weights that are stored in another way");
  }
  const one = perChannel ? size / dims[0]! : size;
  const values = Float32Array.from(data, (code, i) => {
    const channel = Math.floor(i / one);
    return (code - (zeros[zeros.length > 1 ? channel : 0] ?? 0)) * scales[perChannel ? channel : 0]!;
  });
  return { dims, data: values };
}

/** The least and the largest value that an activation keeps. */
function limits(graph: Graph, scale = "", zero = ""): [number, number] {
  const step = graph.constants.get(scale)?.data;
  const codes = graph.codes.get(zero);
  const range = codes && RANGE[codes.type];
  if (step?.length !== 1 || codes?.data.length !== 1 || !range) {
    throw new UnknownNetwork("activations that are rounded in another way");
  }
  const [low, high] = range.map((code) => (code - codes.data[0]!) * step[0]!);
  return [low!, high!];
}

/** Channels last, each pixel repeated by Expand, channels first again: as one Resize. */
function doubled(nodes: readonly Node[], graph: Graph): Node[] {
  const users = new Map<string, Node[]>();
  for (const node of nodes) for (const name of node.inputs) users.set(name, [...(users.get(name) ?? []), node]);
  const next = (node: Node, op: string): Node | null => {
    const [user, ...more] = users.get(node.output) ?? [];
    return user?.op === op && more.length === 0 ? user : null;
  };
  const order = (node: Node): string | undefined => node.numbers.get("perm")?.join();
  const shape = (node: Node): number[] => Array.from(graph.codes.get(node.inputs[1] ?? "")?.data ?? []);
  const gone = new Set<Node>();
  const instead = new Map<Node, Node>();
  for (const first of nodes) {
    if (first.op !== "Transpose" || order(first) !== LAST) continue;
    const split = next(first, "Reshape");
    const repeat = split && next(split, "Expand");
    const join = repeat && next(repeat, "Reshape");
    const last = join && next(join, "Transpose");
    if (!last || order(last) !== FIRST) continue;
    const [batch, height, one, width, another, channels] = shape(split);
    const joined = [batch, 2 * (height ?? 0), 2 * (width ?? 0), channels];
    if (one !== 1 || another !== 1 || shape(repeat).join() !== "1,1,2,1,2,1" || shape(join).join() !== joined.join()) continue;
    for (const node of [split, repeat, join, last]) gone.add(node);
    const texts = [["mode", "nearest"], ["coordinate_transformation_mode", "asymmetric"], ["nearest_mode", "floor"]] as const;
    instead.set(first, {
      op: "Resize", inputs: [first.inputs[0]!, "", DOUBLING_NAME], output: last.output,
      numbers: new Map(), texts: new Map(texts),
    });
  }
  return nodes.filter((node) => !gone.has(node)).map((node) => instead.get(node) ?? node);
}
