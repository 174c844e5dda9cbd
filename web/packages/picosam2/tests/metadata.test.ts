import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ModelError, readFacts } from "../src/metadata.ts";
import { onnxWith } from "./helpers.ts";

const { facts } = JSON.parse(
  readFileSync(new URL("../../../tests/golden/predictor.json", import.meta.url), "utf8"),
) as { facts: Record<string, unknown> };

const made = (value: unknown): Uint8Array => onnxWith("picosam2", JSON.stringify(value));

describe("a model's facts", () => {
  it("are read past a graph of any size", () => {
    for (const graph of [0, 127, 128, 70000]) {
      const found = readFacts(onnxWith("picosam2", JSON.stringify(facts), graph), "default.onnx");
      expect(found.name).toBe("default");
      expect([found.inputSize, found.outputSize]).toEqual([128, 64]);
      expect(found.boxMaxAspect).toBe(Infinity);
      expect(found.clickScorer?.candidates).toBe(found.clickHalves.length);
      expect(found.boxScorer?.candidates).toBe(1);
    }
  });

  it("may lack scorers", () => {
    expect(readFacts(made({ ...facts, scorers: {} }), "a.onnx").clickScorer).toBeNull();
    expect(readFacts(made({ ...facts, scorers: undefined }), "a.onnx").boxScorer).toBeNull();
  });

  it.each([
    ["another key", onnxWith("other", "{}"), "not a PicoSAM2 model"],
    ["no JSON", onnxWith("picosam2", "{"), "cannot be used"],
    ["nothing in it", made({}), "cannot be used"],
    ["BGR", made({ ...facts, preprocessing: { ...(facts["preprocessing"] as object), order: "BGR" } }), "RGB"],
    ["logits that guidance does not fit", made({ ...facts, output_size: 48, model: { guidance: true } }), "a multiple"],
    ["another scorer", made({ ...facts, scorers: { click: { features: ["area"] } } }), "other features"],
    ["a scorer for other windows", made({ ...facts, geometry: { ...(facts["geometry"] as object), click_halves: [0.1] } }), "1"],
    ["half a file", onnxWith("picosam2", JSON.stringify(facts)).subarray(0, 600), "damaged"],
    ["a page", new TextEncoder().encode("<!doctype html><html><body>Not found</body></html>"), "damaged"],
  ])("with %s are refused", (_, bytes, why) => {
    expect(() => readFacts(bytes, "a.onnx")).toThrow(ModelError);
    expect(() => readFacts(bytes, "a.onnx")).toThrow(why);
  });
});
