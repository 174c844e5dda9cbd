/** The finder on own kernels, beside ONNX Runtime. */

import { existsSync, readFileSync } from "node:fs";
import * as ort from "onnxruntime-web/wasm";
import { describe, expect, it } from "vitest";
import { dequantized } from "../src/dequantized.ts";
import { Finder, readFinderFacts } from "../src/finder.ts";
import { ModelError, readFacts } from "../src/metadata.ts";
import { type Codes, type Graph, layersOf, type Node, TYPE, UnknownNetwork } from "../src/network.ts";
import { normalize } from "../src/runtime.ts";
import { cellCount, OUTPUTS } from "../src/views.ts";
import { onnxWith } from "./helpers.ts";

const FILE = new URL("../../../../src/picosam2/assets/weights/finder.onnx", import.meta.url);

ort.env.wasm.numThreads = 1;

describe.skipIf(!existsSync(FILE))("the finder", () => {
  const read = (): Uint8Array => new Uint8Array(readFileSync(FILE));

  it("gives ONNX Runtime's cells, to within what 8 bits take", async () => {
    const bytes = read();
    const finder = await Finder.open(bytes, "finder.onnx");
    const { inputSize, mean, std } = finder.facts;
    // Disks on a slope: something to find.
    const view = new Uint8Array(inputSize ** 2 * 3);
    for (let y = 0; y < inputSize; y++) {
      for (let x = 0; x < inputSize; x++) {
        const on = (x - 90) ** 2 + (y - 100) ** 2 < 50 ** 2 || (x - 230) ** 2 + (y - 220) ** 2 < 30 ** 2;
        view.set(on ? [220, 60, 40] : [60 + x / 4, 90, 60 + y / 4], (y * inputSize + x) * 3);
      }
    }
    const session = await ort.InferenceSession.create(bytes);
    const input = normalize(view, 1, { inputSize, mean, std } as Parameters<typeof normalize>[2]);
    const { cells } = await session.run({ image: new ort.Tensor("float32", input, [1, 3, inputSize, inputSize]) });
    const expected = cells!.data as Float32Array;
    const got = finder.run(view);
    expect(got.length).toBe(expected.length);
    const count = cellCount(finder.facts);
    const objectness = (values: Float32Array, i: number): number => 1 / (1 + Math.exp(-values[i]!));
    let [error, largest, edges, sure] = [0, 0, 0, 0];
    for (let i = 0; i < count; i++) {
      const difference = Math.abs(objectness(got, i) - objectness(expected, i));
      error += difference / count;
      largest = Math.max(largest, difference);
      if (objectness(expected, i) < 0.3) continue;
      sure++;
      for (let c = 1; c < OUTPUTS; c++) edges = Math.max(edges, Math.abs(got[c * count + i]! - expected[c * count + i]!));
    }
    expect(sure).toBeGreaterThan(3);
    expect(error).toBeLessThan(0.01);
    expect(largest).toBeLessThan(0.15);
    expect(edges).toBeLessThan(0.25); // a log-distance: a quarter of the way to the edge
    await session.release();
  }, 120_000);

  it("is told from a segmenter", async () => {
    expect(() => readFacts(read(), "finder.onnx")).toThrow("finder.onnx cannot be used: it finds boxes, and makes no masks");
    const other = onnxWith("picosam2", JSON.stringify({ input_size: 96 }));
    await expect(Finder.open(other, "default.onnx")).rejects.toThrow("default.onnx cannot be used: it is no finder");
  });
});

const described = {
  kind: "finder", input_size: 64, geometry: { strides: [8, 16, 32, 64], reach: 2.5 },
  preprocessing: { order: "RGB", mean: [0, 0, 0], std: [1, 1, 1], pad: [0, 0, 0] },
};

it("a finder's file says how its cells lie", () => {
  const facts = readFinderFacts(onnxWith("picosam2", JSON.stringify(described)), "mine.onnx");
  expect(facts).toMatchObject({ name: "mine", inputSize: 64, strides: [8, 16, 32, 64], reach: 2.5 });
  expect(cellCount(facts)).toBe(85);
});

it.each([
  ["the size of its views", { ...described, input_size: "64" }, "input_size is no number"],
  ["views of whole cells", { ...described, input_size: 60 }, "whole numbers of cells"],
  ["a geometry", { ...described, geometry: undefined }, "geometry is missing"],
  ["colors in order", { ...described, preprocessing: { ...described.preprocessing, order: "BGR" } }, "RGB order"],
])("a finder's file needs %s", async (_, description, message) => {
  await expect(Finder.open(onnxWith("picosam2", JSON.stringify(description)), "mine.onnx")).rejects.toThrow(message);
});

it("a finder without a network it knows is refused in a sentence", async () => {
  await expect(Finder.open(onnxWith("picosam2", JSON.stringify(described), 0), "mine.onnx")).rejects.toThrow(
    new ModelError("mine.onnx cannot be used: it has no cells"),
  );
});

describe("a quantized graph", () => {
  const node = (op: string, inputs: string[], output: string, numbers: [string, number[]][] = []): Node =>
    ({ op, inputs, output, numbers: new Map(numbers), texts: new Map() });
  const values = (...data: number[]) => ({ dims: [data.length], data: Float32Array.from(data) });
  const codes = (type: number, dims: number[], ...data: number[]): Codes => ({ dims, type, data });
  const constants: Graph["constants"] = new Map([["s", values(0.5)], ["s2", values(0.5, 2)], ["bias", values(1, 2)]]);
  const stored: Graph["codes"] = new Map([
    ["w", codes(TYPE.INT8, [2, 1, 1, 1], 3, -4)], ["z", codes(TYPE.UINT8, [1], 10)], ["i", codes(TYPE.INT8, [1], 0)],
    ["z2", codes(TYPE.INT8, [2], 1, 0)], ["word", codes(TYPE.INT32, [1], 0)],
    ["split", codes(TYPE.INT64, [6], -1, 2, 1, 3, 1, 4)], ["repeat", codes(TYPE.INT64, [6], 1, 1, 2, 1, 2, 1)],
    ["join", codes(TYPE.INT64, [4], -1, 4, 6, 4)], ["other", codes(TYPE.INT64, [4], -1, 6, 4, 4)],
  ]);
  const plain = (...nodes: Node[]) => dequantized({ nodes, constants, codes: stored });

  it("has weights of its codes and scales", () => {
    const one = plain(node("DequantizeLinear", ["w", "s"], "whole"), node("DequantizeLinear", ["w", "s2", "z2"], "each", [["axis", [0]]]));
    expect([...one.constants.get("whole")!.data]).toEqual([1.5, -2]);
    expect([...one.constants.get("each")!.data]).toEqual([1, -8]);
    expect(one.constants.get("each")!.dims).toEqual([2, 1, 1, 1]);
  });

  it("keeps the clamp of a rounding, not the rounding", () => {
    const { nodes, constants } = plain(
      node("QuantizeLinear", ["x", "s", "z"], "q"), node("DequantizeLinear", ["q", "s", "z"], "d"),
      node("QuantizeLinear", ["d", "s", "i"], "r"), node("Add", ["d", "r"], "y"),
    );
    expect(nodes.map(({ op, inputs, output }) => [op, inputs[0], output])).toEqual([
      ["Clip", "x", "q"], ["Clip", "q", "r"], ["Add", "q", "y"],
    ]);
    const limits = nodes.slice(0, 2).map(({ inputs }) => inputs.slice(1).map((name) => constants.get(name)!.data[0]));
    expect(limits).toEqual([[-5, 122.5], [-64, 63.5]]);
  });

  it("doubles by Resize what is repeated by Expand", () => {
    const chain = (join: string): Node[] => [
      node("Transpose", ["x"], "a", [["perm", [0, 2, 3, 1]]]), node("Reshape", ["a", "split"], "b"),
      node("Expand", ["b", "repeat"], "c"), node("Reshape", ["c", join], "d"),
      node("Transpose", ["d"], "e", [["perm", [0, 3, 1, 2]]]), node("Add", ["e", "e"], "y"),
    ];
    const made = plain(...chain("join"));
    expect(made.nodes.map(({ op, inputs, output }) => [op, inputs[0], output])).toEqual([["Resize", "x", "e"], ["Add", "e", "y"]]);
    expect(layersOf(made)).toMatchObject([{ kind: "double", input: "x", output: "e" }, { kind: "add", input: "e" }]);
    expect(() => layersOf(plain(...chain("other")))).toThrow(UnknownNetwork);
  });

  it.each([
    ["weights of another axis", node("DequantizeLinear", ["w", "s2"], "y", [["axis", [1]]])],
    ["weights without a scale", node("DequantizeLinear", ["w", "x"], "y")],
    ["activations of a scale a channel", node("QuantizeLinear", ["x", "s2", "z"], "y")],
    ["activations of 32 bits", node("QuantizeLinear", ["x", "s", "word"], "y")],
    ["activations whose zero is computed", node("QuantizeLinear", ["x", "s", "x"], "y")],
  ])("is refused with %s", (_, made) => {
    expect(() => plain(made)).toThrow(UnknownNetwork);
  });
});
