/** The twin answers prompts as `picosam2.Predictor` does, with arithmetic in the network's place. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { clickWindows, crop, type RgbaImage, type Prompt } from "../src/geometry.ts";
import { area, iou, maskOf, polygons, rleDecode, type Rle } from "../src/masks.ts";
import { readFacts } from "../src/metadata.ts";
import { boundsOf, Predictor, type Runtime } from "../src/predictor.ts";
import { FEATURES, features } from "../src/scorer.ts";
import { onnxWith } from "./helpers.ts";

interface Golden {
  facts: unknown;
  features: number[][];
  cases: {
    name: string;
    prompt: { points?: [number, number, number][]; box?: [number, number, number, number] };
    scores: number[];
    rle: Rle;
    polygons: number;
  }[];
}

const golden = JSON.parse(
  readFileSync(new URL("../../../tests/golden/predictor.json", import.meta.url), "utf8"),
) as Golden;

const WIDTH = 210;
const HEIGHT = 150;

/** Bright and dark discs on a slope: the same as in make_predictor.py. */
function image(): RgbaImage {
  const discs = [
    [70, 60, 34, 220, 180, 90], [150, 80, 45, 200, 210, 150], [30, 130, 18, 240, 150, 60],
    [105, 20, 15, 190, 190, 60], [78, 66, 9, 60, 40, 30], [12, 12, 20, 230, 200, 40],
    [190, 130, 25, 250, 140, 90],
  ] as const;
  const data = new Uint8ClampedArray(WIDTH * HEIGHT * 4);
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      let rgb: readonly number[] = [
        40 + Math.floor(x / 3), 60 + Math.floor(y / 2), 90 + Math.floor((x + y) / 4),
      ];
      for (const [cx, cy, radius, ...color] of discs) {
        if ((x - cx) ** 2 + (y - cy) ** 2 <= radius ** 2) rgb = color;
      }
      data.set(rgb, (y * WIDTH + x) * 4);
    }
  }
  return { width: WIDTH, height: HEIGHT, data };
}

const facts = readFacts(onnxWith("picosam2", JSON.stringify(golden.facts)), "made.onnx");

const arithmetic: Runtime = {
  facts,
  run(crops, batch) {
    const { inputSize, outputSize: side } = facts;
    const size = side * side;
    const out = new Float32Array(batch * 2 * size);
    const level = (i: number) => 2 * crops[i * 3]! + crops[i * 3 + 1]! - crops[i * 3 + 2]!;
    for (let i = 0; i < batch * size; i++) {
      const [of, y, x] = [Math.floor(i / size), Math.floor((i % size) / side), i % side];
      const from = of * inputSize ** 2 + 2 * y * inputSize + 2 * x;
      const four =
        level(from) + level(from + 1) + level(from + inputSize) + level(from + inputSize + 1);
      const at = of * 2 * size + (i % size);
      out[at] = (four - 1200) / 256;
      out[at + size] = (four - 1320) / 256;
    }
    return Promise.resolve(out);
  },
};

function promptOf({ points, box }: Golden["cases"][number]["prompt"]): Prompt {
  return {
    points: (points ?? []).map(([x, y, label]) => ({ x, y, positive: label === 1 })),
    box: box ? { x0: box[0], y0: box[1], x1: box[2], y1: box[3] } : null,
  };
}

describe("the predictor", () => {
  it.each(golden.cases)("answers $name", async ({ prompt, scores, rle, polygons: count }) => {
    const found = await new Predictor(arithmetic, image()).candidates(promptOf(prompt));
    expect(found.length).toBe(scores.length);
    found.forEach(({ score }, i) => expect(Math.abs(score - scores[i]!)).toBeLessThan(2e-4));
    const { region } = found[0]!;
    const mask = maskOf(region, boundsOf(region)!);
    const expected = rleDecode(rle);
    // A logit within float rounding of 0 may fall on either side.
    expect(iou(mask, expected)).toBeGreaterThan(0.999);
    expect(Math.abs(area(mask) - area(expected))).toBeLessThanOrEqual(3);
    expect(polygons(mask, 1).length).toBe(count);
  });

  it("takes the scale that is asked for", async () => {
    const predictor = new Predictor(arithmetic, image());
    const prompt: Prompt = { points: [{ x: 70.5, y: 60.5, positive: true }], box: null };
    const ladder = await predictor.ladder(prompt.points[0]!);
    for (let scale = 0; scale < facts.clickHalves.length; scale++) {
      const [best] = await predictor.candidates(prompt, scale);
      expect(best!.score).toBe(ladder.candidates[scale]!.score);
    }
  });

  it("runs the network once for a click it has seen", async () => {
    let runs = 0;
    const counting: Runtime = { facts, run: (crops, batch) => (runs++, arithmetic.run(crops, batch)) };
    const predictor = new Predictor(counting, image());
    const prompt: Prompt = { points: [{ x: 70.5, y: 60.5, positive: true }], box: null };
    await predictor.candidates(prompt);
    const first = runs;
    await predictor.candidates(prompt);
    expect(first).toBe(2); // the ladder, and the second pass
    expect(runs).toBe(first);
  });
});

describe("the scorer", () => {
  it("measures what Python measures", async () => {
    const windows = clickWindows(70.5, 60.5, HEIGHT, WIDTH, facts.clickHalves);
    const side = facts.outputSize;
    const logits = new Float32Array(windows.length * side * side);
    for (const [i, window] of windows.entries()) {
      const both = await arithmetic.run(crop(image(), window, facts.inputSize, facts.pad), 1);
      logits.set(both.subarray(side * side), i * side * side);
    }
    const got = features({ logits, side, windows }, HEIGHT, WIDTH);
    golden.features.flat().forEach((value, i) => {
      const what = `${FEATURES[i % FEATURES.length]} of window ${Math.floor(i / FEATURES.length)}`;
      expect(Math.abs(got[i]! - value), what).toBeLessThan(5e-5);
    });
  });
});
