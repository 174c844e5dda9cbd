/** The network on own kernels, beside ONNX Runtime. */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import * as ort from "onnxruntime-web/wasm";
import { describe, expect, it } from "vitest";
import { PLANES } from "../src/guidance.ts";
import { type ModelFacts, readFacts } from "../src/metadata.ts";
import { type Graph, layersOf, readGraph, UnknownNetwork } from "../src/network.ts";
import { createSegmenter } from "../src/node.ts";
import { type OrtModule, OrtRuntime } from "../src/runtime.ts";
import { SimdRuntime } from "../src/simd.ts";
import { bytesField, concat, textField, varintField } from "../src/protobuf.ts";
import { packWeights } from "../src/weights.ts";
import { golden } from "./arithmetic.ts";
import { onnxWith } from "./helpers.ts";

const PYTHON = new URL("../../../../src/picosam2/assets/weights/", import.meta.url);

/** How far a logit may be: both compute in float32, in another order. */
const TOLERANCE = 1e-3;

ort.env.wasm.numThreads = 1;

function model(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(name, PYTHON)));
}

/** Reproducible noise, 0..1. */
function noise(count: number): number[] {
  let state = 1;
  return Array.from({ length: count }, () => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31);
}

function farthest(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

describe.skipIf(!existsSync(new URL("default.onnx", PYTHON)))("the kernels", () => {
  it.each([
    ["the default weights", () => model("default.onnx")],
    ["the weights as the page has them", () => packWeights(model("default.onnx"))],
    ["the paper's network", () => model("paper.onnx")],
  ])("give ONNX Runtime's logits: %s", async (_, read) => {
    const bytes = read();
    const facts = readFacts(bytes, "model.onnx");
    const size = facts.inputSize ** 2;
    const crops = Uint8Array.from(noise(2 * size * 3), (value) => value * 256);
    const clicks = Float32Array.from(noise(2 * PLANES * size), (value) => (value > 0.9 ? 1 : 0));
    clicks.fill(0, PLANES * size); // the second crop has no guidance
    const expected = await OrtRuntime.open(ort as unknown as OrtModule, bytes, facts);
    const own = await SimdRuntime.open(bytes, facts);
    for (const guidance of facts.guidance ? [null, clicks] : [null]) {
      const logits = await own.run(crops, 2, guidance);
      expect(farthest(logits, await expected.run(crops, 2, guidance))).toBeLessThan(TOLERANCE);
      expect(new Set(logits).size).toBeGreaterThan(1000);
    }
    await own.release();
    await expected.release();
  }, 120_000);

  it("spare what guidance needs where there is none", () => {
    const graph = readGraph(model("default.onnx"));
    expect(layersOf(graph).length - layersOf(graph, "guidance").length).toBe(2);
    expect(() => layersOf(graph, "image")).toThrow("zeros");
  });

  it("leave other networks to ONNX Runtime", async () => {
    const bytes = model("default-int8.onnx");
    await expect(SimdRuntime.open(bytes, readFacts(bytes, "int8"))).rejects.toThrow(UnknownNetwork);
    await expect(createSegmenter({ model: bytes })).rejects.toThrow(/the operator \w+: run `npm install onnxruntime-node`/);
    const broken = onnxWith("picosam2", "{}", 7);
    await expect(SimdRuntime.open(broken, readFacts(model("paper.onnx"), "x"))).rejects.toThrow("cannot be read");
  });

  it("work in Node without ONNX Runtime", async () => {
    const segmenter = await createSegmenter({ model: model("paper.onnx") });
    expect(segmenter.model.threads).toBe(1);
    await segmenter.setImage({ data: new Uint8Array(120 * 90 * 4).fill(127), width: 120, height: 90 });
    await segmenter.predict({ points: [[60, 45]] });
    await segmenter.dispose();
  });
});

describe("a graph", () => {
  const node = (op: string, inputs: string[], output: string, numbers: [string, number[]][] = [], texts: [string, string][] = []) =>
    ({ op, inputs, output, numbers: new Map(numbers), texts: new Map(texts) });
  const ones = (...dims: number[]) => ({ dims, data: new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(1) });
  const nearest: [string, string][] = [
    ["mode", "nearest"], ["coordinate_transformation_mode", "asymmetric"], ["nearest_mode", "floor"],
  ];
  const constants: Graph["constants"] = new Map([
    ["w", ones(4, 4, 1, 1)], ["uneven", ones(4, 4, 3, 1)], ["pairs", ones(4, 2, 1, 1)],
    ["double", { dims: [4], data: Float32Array.of(1, 1, 2, 2) }], ["triple", { dims: [4], data: Float32Array.of(1, 1, 3, 3) }],
    ["zero", ones(1)], ["six", { dims: [1], data: Float32Array.of(6) }], ["bias", ones(4)], ["pair", ones(2)],
    ["cube", ones(4, 4, 1, 1, 1)], ["elsewhere", { dims: [4, 4, 1, 1], data: new Float32Array(0) }],
    ["taps", ones(4, 1, 3, 3)],
  ]);

  it("becomes convolutions with what is added and clamped", () => {
    const nodes = [
      node("Conv", ["image", "w"], "a"), node("Relu", ["a"], "b"), node("Conv", ["b", "w"], "c"),
      node("Add", ["b", "c"], "d"), node("Clip", ["d", "", "six"], "e"), node("Add", ["e", "image"], "logits"),
      node("Clip", ["logits", "", "six"], "f"), node("Relu", ["f"], "g"),
      node("Conv", ["g", "taps", "bias"], "h", [["group", [4]], ["pads", [1, 1, 1, 1]], ["auto_pad", []]], [["auto_pad", "NOTSET"]]),
    ];
    expect(layersOf({ nodes, constants })).toMatchObject([
      { kind: "conv", input: "image", residual: null, output: "b", low: 0, high: Infinity },
      { kind: "conv", input: "b", residual: "b", output: "e", low: -Infinity, high: 6 },
      // A second clamp does not undo the first.
      { kind: "add", input: "e", residual: "image", output: "f", low: -Infinity, high: 6 },
      { kind: "add", input: "f", residual: null, output: "g", low: 0, high: Infinity },
      { kind: "depthwise", input: "g", output: "h", pad: 1, bias: ones(4).data },
    ]);
  });

  it("doubles where no convolution of one filter a channel follows", () => {
    const doubling = node("Resize", ["image", "", "double"], "a", [], nearest);
    expect(layersOf({ nodes: [doubling, node("Add", ["a", "a"], "logits")], constants })).toMatchObject([
      { kind: "double", input: "image", output: "a" }, { kind: "add", input: "a", residual: "a", output: "logits" },
    ]);
    const taps = node("Conv", ["a", "taps"], "logits", [["group", [4]], ["pads", [1, 1, 1, 1]]]);
    expect(layersOf({ nodes: [doubling, taps], constants })).toMatchObject([{ kind: "depthwise", input: "image", doubled: true }]);
  });

  it.each([
    ["an operator", [node("Softmax", ["image"], "logits")]],
    ["filters that are computed", [node("Conv", ["image", "image"], "logits")]],
    ["uneven filters", [node("Conv", ["image", "uneven"], "logits")]],
    ["uneven strides", [node("Conv", ["image", "w"], "logits", [["strides", [1, 2]]])]],
    ["groups", [node("Conv", ["image", "pairs"], "logits", [["group", [2]]])]],
    ["dilations", [node("Conv", ["image", "w"], "logits", [["dilations", [2, 2]]])]],
    ["three dimensions", [node("Conv", ["image", "cube"], "logits")]],
    ["filters that are not in the file", [node("Conv", ["image", "elsewhere"], "logits")]],
    ["biases that are computed", [node("Conv", ["image", "w", "image"], "logits")]],
    ["biases of another number", [node("Conv", ["image", "w", "pair"], "logits")]],
    ["uneven pads", [node("Conv", ["image", "taps"], "logits", [["group", [4]], ["pads", [0, 0, 1, 1]]])]],
    ["pads wider than the filter", [node("Conv", ["image", "w"], "logits", [["pads", [1, 1, 1, 1]]])]],
    ["pads by rule", [node("Conv", ["image", "w"], "logits", [], [["auto_pad", "SAME_UPPER"]])]],
    ["limits that are attributes", [node("Clip", ["image"], "logits", [["min", []], ["max", []]])]],
    ["limits that are computed", [node("Clip", ["image", "image"], "logits")]],
    ["limits of another number", [node("Clip", ["image", "pair"], "logits")]],
    ["an attribute of old", [node("Add", ["image", "image"], "logits", [["broadcast", [1]]])]],
    ["an operator of another domain", [node("com.microsoft.Conv", ["image", "w"], "logits")]],
    ["another size", [node("Resize", ["image", "", "triple"], "a", [], nearest), node("Conv", ["a", "w"], "logits")]],
    ["another filter", [node("Resize", ["image", "", "double"], "a"), node("Conv", ["a", "w"], "logits")]],
    ["a Resize before a full convolution", [node("Resize", ["image", "", "double"], "a", [], nearest), node("Conv", ["a", "w"], "logits")]],
  ])("of another kind is refused: %s", (_, nodes) => {
    expect(() => layersOf({ nodes, constants })).toThrow(UnknownNetwork);
  });
});

describe("a file of a few layers", () => {
  interface Made {
    readonly op: string;
    readonly inputs: readonly string[];
    readonly output: string;
    readonly domain?: string;
    readonly pads?: readonly number[];
  }

  /** An ONNX file; its tensors are float32 with the values 1, 2, 3 and so on. */
  function file(nodes: readonly Made[], tensors: Record<string, readonly number[]>): Uint8Array {
    const body = nodes.map(({ op, inputs, output, domain, pads }) =>
      bytesField(1, concat([
        ...inputs.map((name) => textField(1, name)), textField(2, output), textField(4, op),
        ...(domain ? [textField(7, domain)] : []),
        // Packed, as some writers store integers.
        ...(pads ? [bytesField(5, concat([textField(1, "pads"), bytesField(8, Uint8Array.from(pads))]))] : []),
      ])),
    );
    const initializers = Object.entries(tensors).map(([name, dims]) => {
      const values = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => i + 1);
      const raw = new Uint8Array(values.buffer);
      return bytesField(5, concat([...dims.map((dim) => varintField(1, dim)), varintField(2, 1), textField(8, name), bytesField(9, raw)]));
    });
    return bytesField(7, concat([...body, ...initializers]));
  }

  const facts: ModelFacts = {
    ...readFacts(onnxWith("picosam2", JSON.stringify(golden.facts)), "made"),
    inputSize: 4, outputSize: 4, channels: 4, mean: [0, 0, 0], std: [1, 1, 1], guidance: false,
  };
  const conv = (inputs: string[], output: string, more: Partial<Made> = {}): Made => ({ op: "Conv", inputs, output, ...more });
  const crop = Uint8Array.from({ length: 48 }, (_, i) => i * 5);

  it("is computed", async () => {
    const bytes = file([conv(["image", "w"], "logits", { domain: "ai.onnx" })], { w: [4, 3, 1, 1] });
    const logits = await (await SimdRuntime.open(bytes, facts)).run(crop, 1);
    for (let c = 0; c < 4; c++) {
      for (let i = 0; i < 16; i++) {
        const expected = [0, 1, 2].reduce((sum, k) => sum + ((c * 3 + k + 1) * crop[i * 3 + k]!) / 255, 0);
        expect(logits[c * 16 + i]).toBeCloseTo(expected, 4);
      }
    }
  });

  it("keeps the logits where they are used on", async () => {
    const tensors = { w: [4, 3, 1, 1], v: [4, 4, 1, 1] };
    const more = [conv(["logits", "v"], "a"), conv(["a", "v"], "b"), conv(["b", "v"], "c")];
    const first = conv(["image", "w"], "logits");
    const alone = await (await SimdRuntime.open(file([first], tensors), facts)).run(crop, 1);
    expect(await (await SimdRuntime.open(file([first, ...more], tensors), facts)).run(crop, 1)).toEqual(alone);
  });

  it.each<[string, Made[], Record<string, readonly number[]>, Partial<ModelFacts>]>([
    ["of another domain", [conv(["image", "w"], "logits", { domain: "com.microsoft" })], { w: [4, 3, 1, 1] }, {}],
    ["whose pads differ", [conv(["image", "w"], "logits", { pads: [0, 1, 0, 1] })], { w: [4, 3, 3, 3] }, {}],
    ["whose filters expect other channels", [conv(["image", "w"], "logits")], { w: [4, 4, 1, 1] }, {}],
    ["that gives other channels", [conv(["image", "w"], "logits")], { w: [3, 3, 1, 1] }, {}],
    ["that gives another size", [conv(["image", "w"], "logits")], { w: [4, 3, 1, 1] }, { outputSize: 2 }],
    ["without logits", [conv(["image", "w"], "other")], { w: [4, 3, 1, 1] }, {}],
    ["that adds one channel to all", [
      conv(["image", "w"], "a"), conv(["image", "v"], "b"), { op: "Relu", inputs: ["b"], output: "c" },
      { op: "Add", inputs: ["a", "c"], output: "logits" },
    ], { w: [4, 3, 1, 1], v: [1, 3, 1, 1] }, {}],
    ["that adds one channel to a convolution", [
      conv(["image", "v"], "b"), conv(["image", "w"], "a"), { op: "Add", inputs: ["a", "b"], output: "logits" },
    ], { w: [4, 3, 1, 1], v: [1, 3, 1, 1] }, {}],
    ["that adds a tensor of the file", [
      conv(["image", "w"], "a"), { op: "Add", inputs: ["a", "bias"], output: "logits" },
    ], { w: [4, 3, 1, 1], bias: [1, 4, 1, 1] }, {}],
    ["that takes another input", [conv(["picture", "w"], "logits")], { w: [4, 3, 1, 1] }, {}],
  ])("%s is left to ONNX Runtime", async (_, nodes, tensors, change) => {
    await expect(SimdRuntime.open(file(nodes, tensors), { ...facts, ...change })).rejects.toThrow(UnknownNetwork);
  });
});

it("src/kernels.ts is what kernels/kernels.ts compiles to", () => {
  const script = fileURLToPath(new URL("../scripts/kernels.mjs", import.meta.url));
  execFileSync(process.execPath, [script, "--check"], { stdio: "pipe" });
}, 120_000);
