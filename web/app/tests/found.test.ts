import { describe, expect, it } from "vitest";
import type { FoundObject, Mask } from "picosam2/custom";
import { boundsOf, remaining, smallestAt, thirds } from "../src/found";

/** A rectangle, with holes where there are more. */
function rectangle(...corners: [x0: number, y0: number, x1: number, y1: number][]): FoundObject {
  const contours = corners.map(([x0, y0, x1, y1]) => Float64Array.of(x0, y0, x1, y0, x1, y1, x0, y1));
  const [x0, y0, x1, y1] = corners[0]!;
  return { box: { x0, y0, x1, y1 }, score: 0.5, area: (x1 - x0) * (y1 - y0), contours };
}

const car = rectangle([10, 10, 90, 60]);
const wheel = rectangle([20, 40, 40, 60]);
const frame = rectangle([100, 10, 140, 50], [110, 20, 130, 40]);

describe("found objects", () => {
  it("are hit inside their outlines: the smallest, and not in a hole", () => {
    const all = [car, frame, wheel];
    expect(smallestAt(all, 30, 50)).toBe(wheel);
    expect(smallestAt(all, 60, 30)).toBe(car);
    expect(smallestAt(all, 105, 30)).toBe(frame);
    expect(smallestAt(all, 120, 30)).toBeNull();
    expect(smallestAt(all, 95, 30)).toBeNull();
    expect(smallestAt([], 30, 50)).toBeNull();
  });

  it("are offered until their like is kept", () => {
    const mask = (x: number, y: number, width: number, height: number): Mask =>
      ({ x, y, width, height, data: new Uint8Array(width * height).fill(1) });
    expect(remaining([car, wheel], [])).toEqual([car, wheel]);
    expect(remaining([car, wheel], [mask(10, 10, 80, 50)])).toEqual([wheel]);
    expect(remaining([car, wheel], [mask(12, 11, 77, 49)])).toEqual([wheel]); // nearly the same
    expect(remaining([car, wheel], [mask(10, 10, 40, 50), mask(200, 200, 5, 5)])).toEqual([car, wheel]);
  });

  it("lie in a third of the photo, across and down", () => {
    expect(boundsOf(frame)).toEqual({ x0: 100, y0: 10, x1: 140, y1: 50 });
    expect(thirds(wheel, 150, 60)).toEqual([0, 2]);
    expect(thirds(car, 150, 105)).toEqual([1, 1]);
    expect(thirds(frame, 140, 100)).toEqual([2, 0]);
    expect(thirds(rectangle([0, 0, 1, 1]), 1, 1)).toEqual([1, 1]);
    expect(thirds(rectangle([280, 280, 320, 320]), 300, 300)).toEqual([2, 2]); // past the edge
  });
});
