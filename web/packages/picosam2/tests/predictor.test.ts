/** The twin answers prompts as `picosam2.Predictor` does, with arithmetic in the network's place. */

import { describe, expect, it } from "vitest";
import { clickWindows, crop, type Prompt } from "../src/geometry.ts";
import { area, iou, maskOf, polygons, rleDecode } from "../src/masks.ts";
import { boundsOf, Predictor, type Runtime } from "../src/predictor.ts";
import { readFacts } from "../src/metadata.ts";
import { FEATURES, features, Scorer } from "../src/scorer.ts";
import { arithmetic, discs, facts, golden, HEIGHT, promptOf, WIDTH } from "./arithmetic.ts";
import { onnxWith } from "./helpers.ts";

/** The facts with a scorer that chooses which windows are looked through. */
function started(made: unknown, patience: number | null): unknown {
  const { scorers, ...rest } = made as { scorers: { click: object } };
  const few = patience === null ? { start: golden.start } : { start: golden.start, patience };
  return { ...rest, scorers: { ...scorers, click: { ...scorers.click, ...few } } };
}

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
    const { candidates } = await predictor.clicks(prompt.points[0]!, true);
    for (let scale = 0; scale < facts.clickHalves.length; scale++) {
      const [best] = await predictor.candidates(prompt, scale);
      expect(best!.score).toBe(candidates.get(scale)!.score);
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
    expect(first).toBe(2); // all windows, and the second pass
    expect(runs).toBe(first);
  });

  it.each(golden.started)("looks through the windows that its scorer wants: $patience $point", async (made) => {
    const { patience, point, asked, score, rle } = made;
    const batches: number[] = [];
    const written = JSON.stringify(started(golden.facts, patience));
    const { clickScorer } = readFacts(onnxWith("picosam2", written), "started.onnx");
    const runtime: Runtime = {
      facts: { ...facts, clickScorer },
      run: (crops, batch) => (batches.push(batch), arithmetic.run(crops, batch)),
    };
    const predictor = new Predictor(runtime, discs());
    const prompt: Prompt = { points: [{ x: point[0], y: point[1], positive: true }], box: null };
    const [best] = await predictor.candidates(prompt);
    expect(batches).toEqual(asked);
    expect(Math.abs(best!.score - score)).toBeLessThan(2e-4);
    if (best!.bounds) expect(iou(maskOf(best!.region, best!.bounds), rleDecode(rle))).toBeGreaterThan(0.999);
    const every = await predictor.candidates(prompt, null, null, true);
    expect(every.length).toBe(facts.clickHalves.length);
    if (score > 0) expect(every[0]!.score).toBe(best!.score);
  });

  it("refuses a scorer that starts with a window that it does not know", () => {
    const { scorers } = golden.facts as { scorers: { click: object } };
    for (const start of [-1, 0.5, 99, "2"]) expect(() => Scorer.fromJson({ ...scorers.click, start })).toThrow("starts with");
  });

  it("refuses a patience that is none", () => {
    const { scorers } = golden.facts as { scorers: { click: object } };
    for (const patience of [-0.1, 1.5, "much"]) {
      expect(() => Scorer.fromJson({ ...scorers.click, start: 2, patience })).toThrow("patience");
    }
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
