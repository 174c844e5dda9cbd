/** The twin draws guidance as `picosam2.guidance` does, and corrects masks with it. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { Box, Point, Region } from "../src/geometry.ts";
import { drawPlanes, followingBox, type Known, PLANES, probability, settled } from "../src/guidance.ts";
import { area, iou, type Mask, maskOf, rleDecode } from "../src/masks.ts";
import { Predictor, type Runtime } from "../src/predictor.ts";
import { Pyramid } from "../src/pyramid.ts";
import { obeyed, union } from "../src/refine.ts";
import { discs, facts, golden as reference, guidedArithmetic, promptOf } from "./arithmetic.ts";

type Four = [number, number, number, number];
type Dot = [number, number, number];

interface Golden {
  height: number;
  width: number;
  size: number;
  points: Dot[];
  planes: { name: string; window: Four; expected: string[] }[];
  settled: { name: string; window: Four; expected: string }[];
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

  it.each(golden.settled)("keeps what is far from the newest click as Python does: $name", ({ window, expected }) => {
    const { size } = golden;
    const side = size / 2;
    const around = boxOf(window)!;
    const planes = new Float32Array(PLANES * size * size);
    const points = golden.points.map(pointOf);
    drawPlanes(around, size, mask(), points, planes);
    const cells = side * side;
    const answer = Float32Array.from({ length: cells }, (_, i) => -8 + (16 * i) / (cells - 1));
    const mean = settled(answer, side, planes, size, around, points[0]!);
    const bytes = Buffer.from(expected, "base64");
    for (let i = 0; i < cells; i++) expect(mean[i]).toBeCloseTo(bytes.readFloatLE(4 * i), 3);
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
  const first = { x: 70.5, y: 60.5, positive: true };
  const second = { x: 150.5, y: 80.5, positive: true };
  const off = { x: 96.5, y: 75.5, positive: false };
  const square = (x0: number, y0: number, x1: number, y1: number): Mask => ({
    x: x0, y: y0, width: x1 - x0, height: y1 - y0, data: new Uint8Array((x1 - x0) * (y1 - y0)).fill(1),
  });

  it.each(reference.guided)("answer $name as in Python", async ({ prompt, mask: given, asked, window, score, rle }) => {
    const calls: number[][] = [];
    const predictor = new Predictor(guidedArithmetic(calls), discs());
    const mask = given && square(...given);
    const found = (await predictor.candidates(promptOf(prompt), null, mask))[0]!;
    expect(calls.map(({ length }) => length)).toEqual(asked.map(({ length }) => length));
    asked.flat().forEach((value, i) => {
      // Sums of planes: a pixel of the mask so far may have another rounding.
      expect(Math.abs(calls.flat()[i]! - value)).toBeLessThan(1 + value / 500);
    });
    const { x0, y0, x1, y1 } = found.window;
    [x0, y0, x1, y1].forEach((value, i) => expect(value).toBeCloseTo(window[i]!, 3));
    expect(Math.abs(found.score - score)).toBeLessThan(5e-4);
    const expected = rleDecode(rle);
    const answer = maskOf(found.region, found.bounds!);
    expect(iou(answer, expected)).toBeGreaterThan(0.999);
    expect(Math.abs(area(answer) - area(expected))).toBeLessThanOrEqual(3);
  });

  it("remember the answers before, so that a further click is one window", async () => {
    const calls: number[][] = [];
    const predictor = new Predictor(guidedArithmetic(calls), discs());
    await predictor.candidates({ points: [first], box: null });
    expect(calls.map(({ length }) => length)).toEqual([1, 4]); // only the second pass has guidance
    await predictor.candidates({ points: [first, second], box: null });
    await predictor.candidates({ points: [first, second, off], box: null });
    expect(calls.length).toBe(4);
    await predictor.candidates({ points: [first, second, off], box: null });
    expect(calls.length).toBe(4);
    expect(predictor.knows({ points: [first, second, off], box: null })).toBe(true);
  });

  it("remember what a pointer hovers beside, however long it hovers", async () => {
    const calls: number[][] = [];
    const predictor = new Predictor(guidedArithmetic(calls), discs());
    const box = { x0: 100, y0: 20, x1: 180, y1: 130.5 };
    for (let i = 0; i < 60; i++) await predictor.candidates({ points: [{ ...off, x: 110.5 + i }], box });
    expect(calls.length).toBe(61); // the box once, and each place
  });

  it("go on where a given mask was, once clicks have emptied it", async () => {
    const nothing: Runtime = {
      facts: { ...facts, guidance: true },
      run: (_, batch) => Promise.resolve(new Float32Array(batch * 2 * facts.outputSize ** 2).fill(-9)),
    };
    const predictor = new Predictor(nothing, discs());
    const points = [{ ...off, x: 60.5, y: 50.5 }, { ...off, x: 80.5, y: 70.5 }];
    const [found] = await predictor.candidates({ points, box: null }, null, square(42, 30, 101, 92));
    expect(found!.bounds).toBeNull();
    expect(found!.score).toBe(0);
    expect((found!.window.x0 + found!.window.x1) / 2).toBeCloseTo(71.5, 6);
    expect(found!.window.x1 - found!.window.x0).toBeGreaterThan(59);
    const empty = { ...square(0, 0, 4, 4), data: new Uint8Array(16) };
    expect(await predictor.candidates({ points: [], box: null }, null, empty)).toEqual([]);
  });

  it("score a mask that only its clicks keep, and answer nothing where nothing is placed", async () => {
    const nothing: Runtime = {
      facts: { ...facts, guidance: true, boxScorer: null },
      run: (_, batch) => Promise.resolve(new Float32Array(batch * 2 * facts.outputSize ** 2).fill(-9)),
    };
    const predictor = new Predictor(nothing, discs());
    const [kept] = await predictor.candidates({ points: [first], box: null }, null, square(90, 60, 130, 90));
    expect(kept!.covers(first)).toBe(true);
    expect(kept!.bounds!.x1 - kept!.bounds!.x0).toBeLessThan(12);
    const empty = { ...square(0, 0, 4, 4), data: new Uint8Array(16) };
    expect(await predictor.candidates({ points: [off], box: null }, null, empty)).toEqual([]);
  });

  it("take an empty mask beside clicks for none", async () => {
    const empty = { ...square(0, 0, 4, 4), data: new Uint8Array(16) };
    const prompt = { points: [first, off, second], box: null };
    const [with_, without] = await Promise.all(
      [empty, null].map((mask) => new Predictor(guidedArithmetic(), discs()).candidates(prompt, null, mask)),
    );
    expect(with_![0]!.region).toEqual(without![0]!.region);
  });

  it("correct the answer of the scale that was chosen", async () => {
    const predictor = new Predictor(guidedArithmetic(), discs());
    const ladder = facts.clickHalves.length;
    const areas = new Set<string>();
    for (let choice = 0; choice < ladder; choice++) {
      const calls: number[][] = [];
      const alone = new Predictor(guidedArithmetic(calls), discs());
      const [chosen] = await alone.candidates({ points: [first], box: null }, choice);
      calls.length = 0;
      const [corrected] = await alone.candidates({ points: [first, off], box: null }, choice);
      expect(calls.length).toBe(1);
      const [same] = await predictor.candidates({ points: [first, off], box: null }, choice);
      expect(same!.region).toEqual(corrected!.region);
      areas.add(JSON.stringify([chosen!.bounds, corrected!.bounds]));
    }
    expect(areas.size).toBeGreaterThan(1);
  });

  it("are told a small mask on a large image as finely as it is known", async () => {
    const calls: number[][] = [];
    const large = new Pyramid(discs(), 210 * 40, 150 * 40); // 8,400 x 6,000 pixels
    const predictor = new Predictor(guidedArithmetic(calls), large);
    const [x, y] = [first.x * 40, first.y * 40];
    const mask = square(Math.floor(x) - 2, Math.floor(y) - 2, Math.floor(x) + 2, Math.floor(y) + 2);
    const [found] = await predictor.candidates(
      { points: [{ x, y: y + 1, positive: false }], box: null }, null, mask,
    );
    const [batch, told] = calls[0]!;
    expect(batch).toBe(1);
    // The window is 1.2 times the mask in both directions.
    expect(told).toBeGreaterThan(0.6 * facts.inputSize ** 2);
    expect(found!.window.x1 - found!.window.x0).toBeLessThan(6);
  });
});
