import { describe, expect, it } from "vitest";
import {
  cut, feathered, grown, MaskFileError, maskFromPixels, NO_MASK, paint, readCoco, shrunk, trimmed,
} from "../src/edits.ts";
import { area, bounds, type Mask, rleEncode } from "../src/masks.ts";
import { drawn, random } from "./helpers.ts";

const rows = (mask: Mask | null): string[] =>
  Array.from({ length: mask?.height ?? 0 }, (_, y) =>
    [...mask!.data.subarray(y * mask!.width, (y + 1) * mask!.width)].map((v) => (v ? "#" : ".")).join(""),
  );

describe("painting", () => {
  it("makes a disk, a line of disks, and takes them away again", () => {
    const disk = paint(null, [10, 10], 3, true, 100, 100)!;
    expect(bounds(disk)).toEqual({ x0: 7, y0: 7, x1: 13, y1: 13 });
    expect(Math.abs(area(disk) - Math.PI * 9)).toBeLessThan(4);
    const line = paint(disk, [10, 10, 30, 10], 3, true, 100, 100)!;
    expect(bounds(line)).toEqual({ x0: 7, y0: 7, x1: 33, y1: 13 });
    expect(area(line)).toBe(area(disk) + 20 * 6);
    const rest = paint(line, [10, 10, 30, 10], 2, false, 100, 100)!;
    expect(area(rest)).toBeLessThan(area(line));
    expect(paint(line, [0, 10, 40, 10], 9, false, 100, 100)).toBeNull();
  });

  it("keeps inside the image, and what is far from the stroke as it was", () => {
    const mask = { ...random(1, 20, 10), x: 70, y: 80 };
    const corner = paint(mask, [0, 0], 4, true, 100, 100)!;
    expect([corner.x, corner.y]).toEqual([0, 0]);
    expect(rows(cut(corner, { x0: 70, y0: 80, x1: 90, y1: 90 }))).toEqual(rows(mask));
    expect(paint(null, [500, 500], 4, true, 100, 100)).toBeNull();
    expect(paint(mask, [], 4, true, 100, 100)).toEqual(trimmed(mask));
    expect(paint(NO_MASK, [], 4, true, 100, 100)).toBeNull();
  });
});

describe("an edge", () => {
  it("grows through edges and shrinks back", () => {
    const dot = { ...drawn("#"), x: 5, y: 5 };
    expect(rows(grown(dot, 20, 20))).toEqual([".#.", "###", ".#."]);
    expect(rows(shrunk(grown(dot, 20, 20), 20, 20))).toEqual(["#"]);
    expect(shrunk(dot, 20, 20)).toBeNull();
  });

  it("ends at the image, whose border is no edge", () => {
    const corner = drawn("##", "##");
    expect(rows(grown(corner, 2, 2))).toEqual(["##", "##"]);
    expect(rows(shrunk(corner, 2, 2))).toEqual(["##", "##"]);
    expect(rows(shrunk(corner, 9, 9))).toEqual(["#"]);
  });

  it("is what a pixel-by-pixel reading says", () => {
    for (const seed of [1, 2, 3]) {
      const mask = { ...random(seed, 17, 13), x: 3, y: 4 };
      const at = (x: number, y: number): number =>
        x < 3 || y < 4 || x >= 20 || y >= 17 ? 0 : mask.data[(y - 4) * 17 + x - 3]!;
      const out = grown(mask, 40, 40);
      for (let y = 0; y < 40; y++) {
        for (let x = 0; x < 40; x++) {
          const any = at(x, y) | at(x - 1, y) | at(x + 1, y) | at(x, y - 1) | at(x, y + 1);
          expect(cut(out, { x0: x, y0: y, x1: x + 1, y1: y + 1 }).data[0]).toBe(any);
        }
      }
    }
  });

  it("fades evenly when it is feathered, and not at all at 0", () => {
    const square = { ...drawn(...Array<string>(20).fill("#".repeat(20))), x: 20, y: 20 };
    expect([...new Set(feathered(square, 0, 60, 60).data)]).toEqual([255]);
    const soft = feathered(square, 6, 60, 60);
    const middle = cut(soft, { x0: 12, y0: 30, x1: 48, y1: 31 }).data;
    expect(middle[18]).toBe(255);
    for (let i = 1; i < 18; i++) expect(middle[i]!).toBeGreaterThanOrEqual(middle[i - 1]!);
    expect(middle[7]! + middle[8]!).toBeGreaterThan(200); // half of it on either side of the edge
    expect(middle[7]! + middle[8]!).toBeLessThan(310);
    const corner = feathered({ ...square, x: 0, y: 0 }, 6, 60, 60);
    expect([corner.x, corner.y]).toEqual([0, 0]);
  });
});

describe("masks from files", () => {
  const mask = { ...random(4, 12, 9), x: 0, y: 0 };
  const coco = (change: object = {}, image: object = {}): string =>
    JSON.stringify({
      images: [{ id: 3, file_name: "a.jpg", width: 12, height: 9, ...image }],
      categories: [{ id: 1, name: "cat" }],
      annotations: [{ image_id: 3, category_id: 1, segmentation: rleEncode(mask, 9, 12), ...change }],
    });

  it("come from bright pixels", () => {
    const rgba = new Uint8Array(4 * 6).fill(255);
    rgba.set([0, 0, 0, 255], 0);
    rgba.set([255, 255, 255, 0], 4);
    rgba.set([200, 100, 30, 255], 8);
    expect(rows(maskFromPixels(rgba, 3, 2))).toEqual(["###"]);
    expect(maskFromPixels(new Uint8Array(24), 3, 2)).toBeNull();
  });

  it("come from COCO's three forms", () => {
    const [read] = readCoco(coco(), "other name.jpg", 12, 9);
    expect(read!.name).toBe("cat");
    expect(rows(read!.mask)).toEqual(rows(trimmed(mask)));
    const runs = [9, 9 * 2, 9 * 9];
    const [plain] = readCoco(coco({ segmentation: { size: [9, 12], counts: runs } }), "a.jpg", 12, 9);
    expect(bounds(plain!.mask)).toEqual({ x0: 1, y0: 0, x1: 3, y1: 9 });
    const rings = [[1, 1, 4, 1, 4, 3, 1, 3], [3, 2, 6, 2, 6, 5, 3, 5]];
    const [polygon] = readCoco(coco({ segmentation: rings, category_id: 9 }), "a.jpg", 12, 9);
    expect(polygon!.name).toBeNull();
    expect(rows(polygon!.mask)).toEqual(["###..", "#####", "..###", "..###"]);
  });

  it("pass over annotations that have a box alone", () => {
    const file = JSON.parse(coco()) as { annotations: object[] };
    file.annotations.unshift({ image_id: 3, category_id: 1, segmentation: [] }, { image_id: 3, category_id: 1 });
    expect(readCoco(JSON.stringify(file), "a.jpg", 12, 9).length).toBe(1);
  });

  it("are those of the image of that name", () => {
    const two = JSON.parse(coco()) as { images: object[]; annotations: object[] };
    two.images.push({ id: 4, file_name: "b.jpg", width: 12, height: 9 });
    two.annotations.push({ image_id: 4, segmentation: [[0, 0, 2, 0, 2, 2, 0, 2]] });
    expect(area(readCoco(JSON.stringify(two), "b.jpg", 12, 9)[0]!.mask)).toBe(4);
    expect(() => readCoco(JSON.stringify(two), "c.jpg", 12, 9)).toThrow("called c.jpg");
  });

  it.each([
    ["no JSON", "{", "no JSON"],
    ["something else", "{}", "no annotations"],
    ["another size", coco({}, { width: 13 }), "13 x 9"],
    ["a mask of another size", coco({ segmentation: { size: [3, 3], counts: "0" } }), "3 x 3"],
    ["runs that do not fill", coco({ segmentation: { size: [9, 12], counts: [5] } }), "damaged"],
    ["a damaged RLE", coco({ segmentation: { size: [9, 12], counts: "\u0001" } }), "damaged"],
    ["nothing in it", coco({ segmentation: [[0, 0, 0, 0]] }), "no mask"],
    ["no segmentation", coco({ segmentation: undefined }), "no mask"],
  ])("with %s are refused", (_, text, why) => {
    expect(() => readCoco(text, "a.jpg", 12, 9)).toThrow(MaskFileError);
    expect(() => readCoco(text, "a.jpg", 12, 9)).toThrow(why);
  });
});
