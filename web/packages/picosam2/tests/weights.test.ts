import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { readFacts } from "../src/metadata.ts";
import { bytesField, concat, fields, textField, varintField } from "../src/protobuf.ts";
import { fromHalf, packWeights, toHalf, unpackWeights } from "../src/weights.ts";
import { onnxWith } from "./helpers.ts";

/** An ONNX model whose graph has one node and these float tensors. */
function model(tensors: Record<string, { dims: number[]; values: Float32Array }>, packedDims = false): Uint8Array {
  const initializers = Object.entries(tensors).map(([name, { dims, values }]) =>
    bytesField(5, concat([
      ...(packedDims ? [bytesField(1, Uint8Array.from(dims))] : dims.map((dim) => varintField(1, dim))),
      varintField(2, 1), textField(8, name), bytesField(9, new Uint8Array(values.slice().buffer)),
    ])),
  );
  const node = bytesField(1, concat([textField(1, "image"), textField(1, "w"), textField(2, "out"), textField(4, "Conv")]));
  return concat([varintField(1, 8), bytesField(7, concat([node, ...initializers]))]);
}

/** The float tensors of a model, by name; and the operators of its nodes. */
function read(bytes: Uint8Array): { tensors: Map<string, Float32Array>; operators: string[] } {
  const tensors = new Map<string, Float32Array>();
  const operators: string[] = [];
  const graph = [...fields(bytes)].find(({ number }) => number === 7)!.body;
  for (const { number, body } of fields(graph)) {
    if (number !== 1 && number !== 5) continue;
    const inner = [...fields(body)];
    const text = (n: number): string => new TextDecoder().decode(inner.find((f) => f.number === n)!.body);
    if (number === 1) operators.push(text(4));
    if (number === 5 && inner.find((f) => f.number === 2)!.value === 1) {
      tensors.set(text(8), new Float32Array(inner.find((f) => f.number === 9)!.body.slice().buffer));
    }
  }
  return { tensors, operators };
}

const wave = (n: number, scale = 1): Float32Array => Float32Array.from({ length: n }, (_, i) => scale * Math.sin(i * 1.7));

describe("packed weights", () => {
  const w = wave(8 * 16 * 9);
  const bytes = model({
    w: { dims: [8, 16, 3, 3], values: w },
    depthwise: { dims: [16, 1, 3, 3], values: wave(144, 3) },
    bias: { dims: [8], values: wave(8) },
  });

  it.each([false, true])("are a smaller model that gives nearly the same (dims packed: %s)", (packedDims) => {
    const source = packedDims ? model({ w: { dims: [8, 16, 3, 3], values: w } }, true) : bytes;
    const packed = packWeights(source);
    expect(packed.length).toBeLessThan(source.length * 0.5);
    expect(read(packed).operators.slice(0, 2)).toEqual(["Cast", "Mul"]);
    const { tensors, operators } = read(unpackWeights(packed));
    expect(operators).toEqual(["Conv"]);
    expect(tensors.get("w")!.length).toBe(w.length);
    tensors.get("w")!.forEach((value, i) => expect(Math.abs(value - w[i]!)).toBeLessThan(1 / 127));
  });

  it("keep small filters in float16 and short tensors as they are", () => {
    const { tensors } = read(unpackWeights(packWeights(bytes)));
    wave(144, 3).forEach((v, i) => expect(Math.abs(tensors.get("depthwise")![i]! - v)).toBeLessThan(0.002));
    expect(tensors.get("bias")).toEqual(wave(8));
    const half = read(unpackWeights(packWeights(bytes, "float16"))).tensors;
    w.forEach((v, i) => expect(Math.abs(half.get("w")![i]! - v)).toBeLessThan(0.0006));
  });

  it("of other models come back as they are", () => {
    expect(unpackWeights(bytes)).toEqual(bytes);
    const plain = onnxWith("picosam2", "{}", 0);
    expect(unpackWeights(plain)).toEqual(plain);
    expect(() => unpackWeights(bytes.subarray(0, bytes.length - 5))).toThrow("cut off");
    expect(() => [...fields(Uint8Array.of(3))]).toThrow("no protobuf");
  });

  it("no longer claim the hash of the graph that they were", () => {
    const described = concat([bytes, onnxWith("picosam2", '{"graph_sha256": "ab", "channels": 2}', 0).subarray(4)]);
    const text = new TextDecoder("latin1").decode(packWeights(described));
    expect(text).toContain('{"channels":2}');
    expect(text).not.toContain("graph_sha256");
  });

  it("of this package keep the description and take a third of the bytes", () => {
    const packed = new Uint8Array(readFileSync(new URL("../weights/default.onnx", import.meta.url)));
    const facts = readFacts(packed, "default.onnx");
    expect(facts.clickScorer).not.toBeNull();
    const whole = unpackWeights(packed);
    expect(packed.length).toBeLessThan(whole.length / 2.5);
    expect(readFacts(whole, "default.onnx").inputSize).toBe(facts.inputSize);
    expect(read(whole).operators).not.toContain("Cast");
  });
});

describe("half precision", () => {
  it("comes back for all of its numbers", () => {
    for (let bits = 0; bits < 0x7c00; bits++) {
      expect(toHalf(fromHalf(bits))).toBe(bits);
      expect(fromHalf(bits | 0x8000)).toBe(-fromHalf(bits));
    }
  });

  it("has ends", () => {
    expect([toHalf(1e6), toHalf(-1e6), toHalf(-0), toHalf(NaN)]).toEqual([0x7c00, 0xfc00, 0x8000, 0x7e00]);
    expect([fromHalf(0x7c00), fromHalf(0xfc00)]).toEqual([Infinity, -Infinity]);
    expect(fromHalf(0x7e00)).toBeNaN();
  });
});
