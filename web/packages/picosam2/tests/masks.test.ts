import { describe, expect, it } from "vitest";
import {
  area, bounds, covers, fillPolygons, iou, type Mask, polygons, rleDecode, rleEncode, softAlpha,
} from "../src/masks.ts";
import { drawn, random } from "./helpers.ts";

const full = (mask: Mask, height: number, width: number): Uint8Array => {
  const out = new Uint8Array(height * width);
  for (let y = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++) {
      out[(y + mask.y) * width + x + mask.x] = mask.data[y * mask.width + x]!;
    }
  }
  return out;
};

describe("measures", () => {
  const mask = { ...drawn(".##", "..#"), x: 4, y: 2 };

  it("count, bound and cover", () => {
    expect(area(mask)).toBe(3);
    expect(bounds(mask)).toEqual({ x0: 5, y0: 2, x1: 7, y1: 4 });
    expect(bounds(drawn("...", "..."))).toBeNull();
    expect(covers(mask, 5.5, 2.5)).toBe(true);
    expect(covers(mask, 5.5, 3.5)).toBe(false);
    expect(covers(mask, 0, 0)).toBe(false);
  });

  it("compare masks that lie apart or overlap", () => {
    expect(iou(mask, mask)).toBe(1);
    expect(iou(mask, { ...mask, x: 40 })).toBe(0);
    expect(iou(drawn("##.."), drawn(".##."))).toBeCloseTo(1 / 3);
    expect(iou(drawn(".."), drawn(".."))).toBe(0);
  });
});

describe("RLE", () => {
  it("is what pycocotools writes", () => {
    // mask.encode(np.asfortranarray(...)) of pycocotools 2.0
    expect(rleEncode(drawn("..##", ".###", "...."), 3, 4)).toEqual({ size: [3, 4], counts: "4111000" });
  });

  it.each([1, 2, 3, 4, 5])("survives a round trip (%i)", (seed) => {
    const mask = random(seed, 37, 23, seed / 6);
    expect(rleDecode(rleEncode(mask, 23, 37)).data).toEqual(mask.data);
    const moved = { ...random(seed, 9, 7), x: 20, y: 11 };
    expect(rleDecode(rleEncode(moved, 23, 37)).data).toEqual(full(moved, 23, 37));
  });

  it("handles empty, full and long runs", () => {
    for (const value of [0, 1]) {
      const mask = { x: 0, y: 0, width: 700, height: 500, data: new Uint8Array(350000).fill(value) };
      expect(area(rleDecode(rleEncode(mask, 500, 700)))).toBe(value * 350000);
    }
  });

  it.each(["", "zzz", "4", "~", "40"])("refuses %j", (counts) => {
    expect(() => rleDecode({ size: [3, 4], counts })).toThrow();
  });
});

describe("polygons", () => {
  it("follow pixel edges, holes the other way", () => {
    const found = polygons(drawn("###", "#.#", "###"));
    expect(found.map(({ hole }) => hole)).toEqual([false, true]);
    expect([...found[0]!.points]).toEqual([0, 0, 3, 0, 3, 3, 0, 3]);
    expect([...found[1]!.points]).toEqual([2, 1, 1, 1, 1, 2, 2, 2]);
  });

  it("join pixels that touch at a corner", () => {
    expect(polygons(drawn("#.", ".#")).length).toBe(1);
    expect(polygons(drawn(".#", "#.")).length).toBe(1);
  });

  it.each(Array.from({ length: 12 }, (_, i) => i + 1))("fill back exactly (%i)", (seed) => {
    const mask = random(seed, 24, 17, 0.15 + seed * 0.06);
    expect(fillPolygons(polygons(mask), 17, 24).data).toEqual(mask.data);
  });

  it("stay near the mask when simplified", () => {
    const size = 120;
    const data = Uint8Array.from({ length: size * size }, (_, i) =>
      Math.hypot((i % size) - 60, Math.floor(i / size) - 55) < 41 ? 1 : 0,
    );
    const disc = { x: 0, y: 0, width: size, height: size, data };
    const exact = polygons(disc)[0]!.points.length;
    const simple = polygons(disc, 1);
    expect(simple[0]!.points.length).toBeLessThan(exact / 3);
    expect(iou(fillPolygons(simple, size, size), disc)).toBeGreaterThan(0.97);
  });

  it("never lose a piece to simplification", () => {
    expect(polygons(drawn("#...#", ".....", "..#.."), 3).length).toBe(3);
  });
});

describe("a soft edge", () => {
  it("is opaque inside, clear outside and follows the logits between", () => {
    const width = 40, height = 20;
    const logits = Float32Array.from({ length: width * height }, (_, i) => 20.2 - (i % width));
    const region = { x: 0, y: 0, width, height, logits };
    const alpha = softAlpha(region, { x0: 0, y0: 0, x1: 21, y1: height }, { x0: 0, y0: 0, x1: 96, y1: 96 }, 96);
    const row = [...alpha.data.subarray(5 * alpha.width, 6 * alpha.width)];
    expect(row[10]).toBe(255);
    expect(row[20]).toBeGreaterThan(127);
    expect(row[20]).toBeLessThan(255);
    expect(row.at(-1)).toBe(0);
  });
});
