/** An object followed through frames, lost and found again; with arithmetic in the network's place. */

import { beforeEach, describe, expect, it } from "vitest";
import type { RgbaImage } from "../src/geometry.ts";
import type { Runtime } from "../src/predictor.ts";
import { Tracker } from "../src/tracker.ts";
import { arithmetic } from "./arithmetic.ts";

/** A frame with a bright disc, or without one. */
function frame(x: number, y: number, radius: number): RgbaImage {
  const [width, height] = [160, 120];
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    const on = (i % width + 0.5 - x) ** 2 + (Math.floor(i / width) + 0.5 - y) ** 2 < radius ** 2;
    data.set(on ? [220, 180, 90, 255] : [40, 60, 90, 255], i * 4);
  }
  return { data, width, height };
}

const NOTHING = frame(0, 0, 0);

describe("a tracker", () => {
  /** Windows in each call of the network. */
  let batches: number[] = [];
  const counting: Runtime = {
    facts: arithmetic.facts,
    run(crops, batch) {
      batches.push(batch);
      return arithmetic.run(crops, batch);
    },
  };
  let tracker = new Tracker(counting);

  beforeEach(() => {
    batches = [];
    tracker = new Tracker(counting);
  });

  it("follows by one window a frame, and its point goes with the object", async () => {
    tracker.restart(60, 60, false);
    const first = await tracker.next(frame(60, 60, 16));
    expect(first.bounds).not.toBeNull();
    for (let x = 62; x <= 92; x += 2) {
      batches = [];
      const { bounds, point } = await tracker.next(frame(x, 60, 16));
      expect(batches).toEqual([1]);
      expect(Math.abs(point.x - x)).toBeLessThan(3);
      expect(Math.abs(bounds!.x1 - bounds!.x0 - 32)).toBeLessThan(6);
    }
  });

  it("loses what is gone, and finds it where it was", async () => {
    tracker.restart(60, 60, false);
    await tracker.next(frame(60, 60, 16));
    const { point } = await tracker.next(frame(68, 60, 16));
    const gone = await tracker.next(NOTHING);
    expect(gone).toEqual({ region: null, bounds: null, score: 0, point });
    expect((await tracker.next(frame(70, 60, 16))).bounds).not.toBeNull();
  });

  it("makes the click again where the mask changes size abruptly", async () => {
    tracker.restart(60, 60, false);
    await tracker.next(frame(60, 60, 30));
    batches = [];
    const { bounds } = await tracker.next(frame(60, 60, 8));
    expect(batches.length).toBeGreaterThan(1);
    expect(Math.abs(bounds!.x1 - bounds!.x0 - 16)).toBeLessThan(6);
  });

  it("stays with a fixed click, and asks it again now and then, and when the object has left it", async () => {
    tracker.restart(60, 60, true);
    const again: number[] = [];
    for (let i = 0; i < 20; i++) {
      batches = [];
      const { point } = await tracker.next(frame(60 + (i % 3), 60, 16));
      expect(point).toMatchObject({ x: 60, y: 60 });
      if (batches.length > 1) again.push(i);
    }
    expect(again[0]).toBe(0);
    expect(again.length).toBe(2); // and once more after a number of frames
    batches = [];
    await tracker.next(frame(79, 60, 16));
    expect(batches.length).toBeGreaterThan(1);
  });
});
