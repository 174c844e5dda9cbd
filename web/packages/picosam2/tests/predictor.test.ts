/** The twin answers prompts as `picosam2.Predictor` does, with arithmetic in the network's place. */

import { describe, expect, it } from "vitest";
import { clickWindows, crop, type Prompt } from "../src/geometry.ts";
import { area, iou, maskOf, polygons, rleDecode } from "../src/masks.ts";
import { boundsOf, Predictor, type Runtime } from "../src/predictor.ts";
import { FEATURES, features } from "../src/scorer.ts";
import { arithmetic, discs, facts, golden, HEIGHT, promptOf, WIDTH } from "./arithmetic.ts";

describe("the predictor", () => {
  it.each(golden.cases)("answers $name", async ({ prompt, scores, rle, polygons: count }) => {
    const found = await new Predictor(arithmetic, discs()).candidates(promptOf(prompt));
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
    const predictor = new Predictor(arithmetic, discs());
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
    const predictor = new Predictor(counting, discs());
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
      const both = await arithmetic.run(crop(discs(), window, facts.inputSize, facts.pad), 1);
      logits.set(both.subarray(side * side), i * side * side);
    }
    const got = features({ logits, side, windows }, HEIGHT, WIDTH);
    golden.features.flat().forEach((value, i) => {
      const what = `${FEATURES[i % FEATURES.length]} of window ${Math.floor(i / FEATURES.length)}`;
      expect(Math.abs(got[i]! - value), what).toBeLessThan(5e-5);
    });
  });
});
