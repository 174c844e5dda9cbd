/** The twin draws guidance as `picosam2.guidance` does, and corrects masks with it. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { Box, Point, Region } from "../src/geometry.ts";
import { drawPlanes, followingBox, type Known, PLANES, probability } from "../src/guidance.ts";
import { type Mask, maskOf } from "../src/masks.ts";
import { Predictor, type Runtime } from "../src/predictor.ts";
import { obeyed, union } from "../src/refine.ts";
import { arithmetic, discs, facts, WIDTH } from "./arithmetic.ts";

type Four = [number, number, number, number];
type Dot = [number, number, number];

interface Golden {
  height: number;
  width: number;
  size: number;
  points: Dot[];
  planes: { name: string; window: Four; expected: string[] }[];
  following_box: { mask: Four | null; points: Dot[]; expected: Four | null }[];
  probability: number[];
}

const golden = JSON.parse(
  readFileSync(new URL("../../../tests/golden/guidance.json", import.meta.url), "utf8"),
) as Golden;

const pointOf = ([x, y, on]: Dot): Point => ({ x, y, positive: on === 1 });
const boxOf = (four: Four | null): Box | null => four && { x0: four[0], y0: four[1], x1: four[2], y1: four[3] };

/** The mask so far of make_guidance.py. */
function mask(): Known {
  const { width, height } = golden;
  const data = Uint8Array.from({ length: width * height }, (_, i) => {
    const distance = ((i % width) - 38) ** 2 + (Math.floor(i / width) - 26) ** 2;
    return Math.min(Math.max(300 - Math.floor(distance / 2), 0), 255);
  });
  return { data, width, height, step: 1 };
}

describe("guidance", () => {
  it.each(golden.planes)("is drawn as in Python: $name", ({ window, expected }) => {
    const { size } = golden;
    const area = size * size;
    const out = new Float32Array(PLANES * area + 5).fill(9);
    drawPlanes(boxOf(window)!, size, mask(), golden.points.map(pointOf), out, 5);
    expect([...out.subarray(0, 5)]).toEqual([9, 9, 9, 9, 9]);
    expected.forEach((text, i) => {
      const plane = Array.from(out.subarray(5 + i * area, 5 + (i + 1) * area), (v) => Math.round(v * 255));
      expect(plane).toEqual([...Buffer.from(text, "base64")]);
    });
  });

  it("of nothing is all zeros", () => {
    const out = new Float32Array(PLANES * 64).fill(1);
    drawPlanes({ x0: 0, y0: 0, x1: 8, y1: 8 }, 8, null, [], out);
    expect(out.every((value) => value === 0)).toBe(true);
  });

  it.each(golden.following_box)("lays its window around $mask and $points", ({ mask: box, points, expected }) => {
    const found = followingBox(boxOf(box), points.map(pointOf), golden.height, golden.width);
    if (!expected) expect(found).toBeNull();
    else [found!.x0, found!.y0, found!.x1, found!.y1].forEach((v, i) => expect(v).toBeCloseTo(expected[i]!, 9));
  });

  it("keeps probabilities as Python does", () => {
    const logits = Float32Array.from({ length: 161 }, (_, i) => -20 + i / 4);
    expect([...probability(logits)]).toEqual(golden.probability);
  });
});

describe("an answer", () => {
  const region: Region = { x: 2, y: 3, width: 20, height: 20, logits: new Float32Array(400).fill(-3) };
  const window = { x0: 2, y0: 3, x1: 98, y1: 99 };

  it("obeys the clicks it contradicts, the newest last", () => {
    const on = { x: 10.5, y: 10.5, positive: true };
    const near = { x: 11.5, y: 10.5, positive: false };
    expect(obeyed(region, window, [near, { x: 90, y: 90, positive: true }])).toBe(region);
    const one = obeyed(region, window, [on]);
    const changed = [...one.logits].filter((v) => v > 0).length;
    expect(changed).toBe(21); // a disk of radius 2.5 pixels
    const two = obeyed(region, window, [on, near]);
    expect(two.logits[(10 - 3) * 20 + 11 - 2]).toBe(-1);
    expect(region.logits.every((v) => v === -3)).toBe(true);
  });

  it("obeys on coarser cells too", () => {
    const coarse = obeyed(region, { x0: 0, y0: 0, x1: 960, y1: 960 }, [{ x: 101, y: 121, positive: true }], 10);
    expect(coarse.logits[(12 - 3) * 20 + 10 - 2]).toBe(1);
  });

  it("lies in the union of what is known", () => {
    const a = { x0: 0, y0: 5, x1: 3, y1: 8 };
    expect(union(a, null)).toBe(a);
    expect(union(null, null)).toBeNull();
    expect(union(a, { x0: 1, y0: 1, x1: 9, y1: 6 })).toEqual({ x0: 0, y0: 1, x1: 9, y1: 8 });
  });
});

describe("weights that take guidance", () => {
  const guided = { ...facts, guidance: true };
  /** Arithmetic that also adds the mask so far and the clicks to its logits. */
  const seen: (Float32Array | null)[] = [];
  const runtime: Runtime = {
    facts: guided,
    run: async (crops, batch, guidance = null) => {
      seen.push(guidance);
      const out = await arithmetic.run(crops, batch);
      if (!guidance) return out;
      const [side, size] = [facts.outputSize, facts.inputSize];
      const at = (plane: number, i: number): number =>
        guidance[plane * size * size + Math.floor(i / side) * 2 * size + (i % side) * 2]!;
      for (let i = 0; i < side * side; i++) out[i]! += 20 * at(0, i) + 40 * at(1, i) - 60 * at(2, i);
      return out;
    },
  };
  const first = { x: 70.5, y: 60.5, positive: true };
  const second = { x: 150.5, y: 80.5, positive: true };
  const off = { x: 96.5, y: 75.5, positive: false };

  it("are asked without any for a single click or a box", async () => {
    seen.length = 0;
    const predictor = new Predictor(runtime, discs());
    await predictor.candidates({ points: [first], box: null });
    await predictor.candidates({ points: [], box: { x0: 30, y0: 20, x1: 110, y1: 100 } });
    expect(seen.every((guidance) => guidance === null)).toBe(true);
  });

  it("are asked once for each further click, with the mask so far and all clicks", async () => {
    const predictor = new Predictor(runtime, discs());
    await predictor.candidates({ points: [first], box: null });
    seen.length = 0;
    const [best] = await predictor.candidates({ points: [first, second], box: null });
    expect(seen.length).toBe(1);
    const area = facts.inputSize ** 2;
    const planes = [0, 1, 2].map((i) => seen[0]!.subarray(i * area, (i + 1) * area));
    expect(planes[0]!.some((v) => v > 0.5)).toBe(true);
    expect(planes[1]!.some((v) => v === 1)).toBe(true);
    expect(planes[2]!.every((v) => v === 0)).toBe(true);
    expect(best!.covers(first) && best!.covers(second)).toBe(true);
    seen.length = 0;
    const [less] = await predictor.candidates({ points: [first, second, off], box: null });
    expect(seen.length).toBe(1); // what came before is remembered
    expect(less!.covers(off)).toBe(false);
    await predictor.candidates({ points: [first, second, off], box: null });
    expect(seen.length).toBe(1);
    expect(predictor.knows({ points: [first, second, off], box: null })).toBe(true);
  });

  it("begin with the first click on the object, whatever came before it", async () => {
    const predictor = new Predictor(runtime, discs());
    const [best] = await predictor.candidates({ points: [off, first], box: null });
    expect(best!.covers(first)).toBe(true);
    expect(best!.covers(off)).toBe(false);
  });

  it("correct a box's mask, and a given one", async () => {
    const predictor = new Predictor(runtime, discs());
    const box = { x0: 100, y0: 20, x1: 180, y1: 130.5 };
    const [boxed] = await predictor.candidates({ points: [{ ...off, x: 120.5, y: 60.5 }], box });
    expect(boxed!.covers({ x: 120, y: 60, positive: true })).toBe(false);
    const mask: Mask = { x: 40, y: 30, width: 60, height: 60, data: new Uint8Array(3600).fill(1) };
    const [given] = await predictor.candidates({ points: [], box: null }, null, mask);
    expect(given!.bounds).toEqual({ x0: 40, y0: 30, x1: 100, y1: 90 });
    seen.length = 0;
    const [corrected] = await predictor.candidates({ points: [second], box: null }, null, mask);
    expect(seen.length).toBe(1);
    expect(corrected!.covers(second)).toBe(true);
    expect(maskOf(corrected!.region, corrected!.bounds!).x).toBeLessThan(WIDTH);
  });
});
