/** The golden cases of the predictor, and arithmetic in the network's place. */

import { readFileSync } from "node:fs";
import type { Prompt, RgbaImage } from "../src/geometry.ts";
import type { Rle } from "../src/masks.ts";
import { readFacts } from "../src/metadata.ts";
import type { Runtime } from "../src/predictor.ts";
import { onnxWith } from "./helpers.ts";

export interface Golden {
  facts: unknown;
  features: number[][];
  cases: {
    name: string;
    prompt: { points?: [number, number, number][]; box?: [number, number, number, number] };
    scores: number[];
    rle: Rle;
    polygons: number;
  }[];
  /** The window that a click is looked at first, and what clicks then give: batches, score, mask. */
  start: number;
  started: { patience: number | null; point: [number, number]; asked: number[]; score: number; rle: Rle }[];
  guided: {
    name: string;
    prompt: { points?: [number, number, number][]; box?: [number, number, number, number] };
    mask: [number, number, number, number] | null;
    /** Of each call the crops, and of each plane of guidance the sum. */
    asked: number[][];
    window: [number, number, number, number];
    score: number;
    rle: Rle;
  }[];
}

export const golden = JSON.parse(
  readFileSync(new URL("../../../tests/golden/predictor.json", import.meta.url), "utf8"),
) as Golden;

export const WIDTH = 210;
export const HEIGHT = 150;

/** Bright and dark discs on a slope: the same as in make_predictor.py. */
export function discs(): RgbaImage {
  const discs = [
    [70, 60, 34, 220, 180, 90], [150, 80, 45, 200, 210, 150], [30, 130, 18, 240, 150, 60],
    [105, 20, 15, 190, 190, 60], [78, 66, 9, 60, 40, 30], [12, 12, 20, 230, 200, 40],
    [190, 130, 25, 250, 140, 90],
  ] as const;
  const data = new Uint8ClampedArray(WIDTH * HEIGHT * 4).fill(255);
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

export const facts = readFacts(onnxWith("picosam2", JSON.stringify(golden.facts)), "made.onnx");

export const arithmetic: Runtime = {
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

/** The same, to whose first channel a mask so far and the clicks are added: `Guided` of make_predictor.py. */
export function guidedArithmetic(asked: number[][] = []): Runtime {
  const { inputSize, outputSize: side } = facts;
  const plane = inputSize ** 2;
  return {
    facts: { ...facts, guidance: true },
    async run(crops, batch, guidance = null) {
      const out = await arithmetic.run(crops, batch);
      const sums = guidance
        ? [0, 1, 2].map((i) => guidance.subarray(i * plane, (i + 1) * plane).reduce((sum, v) => sum + v, 0))
        : [];
      asked.push([batch, ...sums]);
      if (!guidance) return out;
      for (let i = 0; i < side * side; i++) {
        const at = Math.floor(i / side) * 2 * inputSize + (i % side) * 2;
        out[i]! += 3 * guidance[at]! + 2 * guidance[plane + at]! - 4 * guidance[2 * plane + at]!;
      }
      return out;
    },
  };
}

export function promptOf({ points, box }: Golden["cases"][number]["prompt"]): Prompt {
  return {
    points: (points ?? []).map(([x, y, label]) => ({ x, y, positive: label === 1 })),
    box: box ? { x0: box[0], y0: box[1], x1: box[2], y1: box[3] } : null,
  };
}
