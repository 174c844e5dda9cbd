import { PNG } from "pngjs";
import { describe, expect, it } from "vitest";
import { cocoJson, cutoutPixels, derivedName, maskPixels, type Named, svg, trim } from "../src/exports.ts";
import { rleDecode, type Rle } from "../src/masks.ts";
import { encodePng } from "../src/png.ts";
import { drawn, random } from "./helpers.ts";

const sheet = { fileName: "cat & dog.jpg", width: 8, height: 6 };

const objects: Named[] = [
  { name: "ear <left>", color: "#56b4e9", score: 0.91234, prompt: { points: [{ x: 1.5, y: 2.5, positive: true }], box: null }, mask: { ...drawn("##", "#."), x: 1, y: 2 }, alpha: { ...drawn("##", "#."), x: 1, y: 2, data: Uint8Array.of(255, 128, 7, 0) } },
  { name: "tail", color: "#e69f00", score: 0.5, prompt: { points: [], box: { x0: 6, y0: 4, x1: 8, y1: 6 } }, mask: { ...drawn("#"), x: 7, y: 5 }, alpha: { ...drawn("#"), x: 7, y: 5, data: Uint8Array.of(200) } },
];

describe("PNG", () => {
  it.each([[1, 13, 7], [4, 5, 9]])("with %i channels reads back exactly", async (channels, width, height) => {
    const data = random(3, width * channels, height).data.map((value, i) => value * (i % 255));
    const png = PNG.sync.read(Buffer.from(await (await encodePng(data, width, height)).arrayBuffer()));
    expect([png.width, png.height]).toEqual([width, height]);
    for (let i = 0; i < width * height; i++) {
      if (channels === 1) expect(png.data[i * 4]).toBe(data[i]);
      else expect([...png.data.subarray(i * 4, i * 4 + 4)]).toEqual([...data.subarray(i * 4, i * 4 + 4)]);
    }
  });

  it("refuses sizes that do not fit", async () => {
    await expect(encodePng(new Uint8Array(7), 3, 2)).rejects.toThrow();
  });
});

describe("pixels", () => {
  it("of a mask join the objects", () => {
    const out = maskPixels(sheet, objects);
    expect(out.length).toBe(48);
    expect([...out].flatMap((v, i) => (v ? [i] : []))).toEqual([17, 18, 25, 47]);
  });

  it("of a cut-out hold nothing of the background", () => {
    const photo = new Uint8Array(48 * 4).map((_, i) => (i % 4 === 3 ? 255 : 99));
    const out = cutoutPixels(sheet, photo, objects);
    expect([...out.subarray(17 * 4, 17 * 4 + 8)]).toEqual([99, 99, 99, 255, 99, 99, 99, 128]);
    expect([...out.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
    const small = trim(out, 8, 6);
    expect([small.width, small.height]).toEqual([7, 4]);
    expect(small.pixels[3]).toBe(255);
  });
});

describe("COCO JSON", () => {
  it("has images, categories and exact masks", () => {
    const value = JSON.parse(cocoJson(sheet, objects)) as {
      images: unknown[];
      categories: { id: number; name: string }[];
      annotations: { segmentation: Rle; area: number; bbox: number[]; category_id: number; score: number; prompt: unknown }[];
    };
    expect(value.images).toEqual([{ id: 1, file_name: "cat & dog.jpg", width: 8, height: 6 }]);
    expect(value.categories.map(({ name }) => name)).toEqual(["ear <left>", "tail"]);
    const [ear, tail] = value.annotations;
    expect(ear!.bbox).toEqual([1, 2, 2, 2]);
    expect(ear!.area).toBe(3);
    expect(ear!.score).toBe(0.9123);
    expect(ear!.prompt).toEqual({ points: [[1.5, 2.5, 1]] });
    expect(tail!.prompt).toEqual({ box: [6, 4, 8, 6] });
    expect(tail!.category_id).toBe(2);
    expect([...rleDecode(ear!.segmentation).data].flatMap((v, i) => (v ? [i] : []))).toEqual([17, 18, 25]);
  });

  it("counts a name once", () => {
    const value = JSON.parse(cocoJson(sheet, [objects[0]!, objects[0]!])) as { categories: unknown[] };
    expect(value.categories.length).toBe(1);
  });
});

describe("SVG", () => {
  it("has one path an object and escapes names", () => {
    const text = svg(sheet, objects, 0);
    expect(text.match(/<path /g)?.length).toBe(2);
    expect(text).toContain("<title>ear &lt;left&gt;</title>");
    expect(text).toContain('viewBox="0 0 8 6"');
    expect(text).toContain("M1 2L3 2L3 3L2 3L2 4L1 4Z");
  });
});

describe("file names", () => {
  it.each([
    ["cat.jpg", "cat-mask.png"],
    ["no ending", "no ending-mask.png"],
    ["a/b\\c:d.png", "a_b_c_d-mask.png"],
    [".jpg", "image-mask.png"],
    ["été.jpeg", "été-mask.png"],
  ])("%s gives %s", (from, to) => expect(derivedName(from, "-mask.png")).toBe(to));
});
