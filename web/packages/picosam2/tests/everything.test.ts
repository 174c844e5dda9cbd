/** Every object of an image: the same views, boxes and choices as in Python. */

import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SETTINGS, Search } from "../src/everything.ts";
import { searched } from "../src/segmenter.ts";
import type { BoxFinder } from "../src/finder.ts";
import type { RgbaImage, Window } from "../src/geometry.ts";
import { fillPolygons, iou, type Polygon, type Rle, rleDecode } from "../src/masks.ts";
import { createSegmenter } from "../src/node.ts";
import { Predictor, type Runtime } from "../src/predictor.ts";
import type { FoundObject } from "../src/protocol.ts";
import { Pyramid } from "../src/pyramid.ts";
import { cellCount, decode, OUTPUTS, partWindows, thinned, wholeWindow } from "../src/views.ts";
import { arithmetic, discs, facts as modelFacts, HEIGHT, WIDTH } from "./arithmetic.ts";

type Corners = [number, number, number, number];

interface Case {
  name: string;
  settings: Record<string, number>;
  proposals: number;
  objects: { box: Corners; score: number; area: number; rle?: Rle }[];
}

interface Golden {
  size: number;
  strides: number[];
  reach: number;
  views: { height: number; width: number; windows: Corners[] }[];
  cells: number[][];
  decoded: { window: Corners; boxes: Corners[]; objectness: number[]; thinned: number[] }[];
  magnified: number;
  searched: Case[];
  large: Case;
}

const golden = JSON.parse(
  readFileSync(new URL("../../../tests/golden/everything.json", import.meta.url), "utf8"),
) as Golden;

const cells = { inputSize: golden.size, strides: golden.strides, reach: golden.reach };

const corners = ({ x0, y0, x1, y1 }: Window): Corners => [x0, y0, x1, y1];

function expectNear(got: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(got.length).toBe(expected.length);
  got.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(tolerance));
}

/** `ArithmeticFinder` of make_everything.py. */
const finder: BoxFinder = {
  facts: { ...cells, name: "arithmetic", mean: modelFacts.mean, std: modelFacts.std, pad: modelFacts.pad },
  run(view) {
    const count = cellCount(cells);
    const out = new Float32Array(OUTPUTS * count);
    let at = 0;
    for (const stride of cells.strides) {
      const across = cells.inputSize / stride;
      for (let i = 0; i < across * across; i++, at++) {
        const sums = [0, 0, 0];
        for (let j = 0; j < stride * stride; j++) {
          const y = Math.floor(i / across) * stride + Math.floor(j / stride);
          const x = (i % across) * stride + (j % stride);
          for (let c = 0; c < 3; c++) sums[c]! += view[(y * cells.inputSize + x) * 3 + c]!;
        }
        const [red, green, blue] = sums.map((sum) => Math.floor(sum / stride ** 2)) as [number, number, number];
        out[at] = (2 * red + green - blue - 320) / 40;
        [red, green, blue, red].forEach((channel, edge) => (out[(edge + 1) * count + at] = (channel - 128) / 100));
      }
    }
    return out;
  },
};

function settingsOf(overrides: Record<string, number>): typeof SETTINGS {
  const named = Object.entries(overrides).map(([name, value]) => {
    const own = name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
    expect(SETTINGS).toHaveProperty(own);
    return [own, value];
  });
  return { ...SETTINGS, minMaskRegionArea: 1, ...(Object.fromEntries(named) as object) };
}

async function search(image: RgbaImage, overrides: Record<string, number>): Promise<{ objects: FoundObject[]; shares: number[] }> {
  const made = new Search(new Predictor(arithmetic, new Pyramid(image)), finder, settingsOf(overrides));
  const shares = [made.share];
  while (made.share < 1) {
    await made.step();
    shares.push(made.share);
  }
  return { objects: made.objects(), shares };
}

describe("views", () => {
  it.each(golden.views)("of $width x $height are Python's", ({ height, width, windows }) => {
    const made = [wholeWindow(height, width), ...partWindows(height, width)];
    expect(made.length).toBe(windows.length);
    made.forEach((window, i) => expectNear(corners(window), windows[i]!, 1e-5));
  });

  it.each(golden.decoded)("become boxes: $window", ({ window: [x0, y0, x1, y1], boxes, objectness, thinned: kept }) => {
    const values = Float32Array.from(golden.cells.flat());
    const made = decode(values, { x0, y0, x1, y1 }, HEIGHT, WIDTH, cells, 0.3)
      .sort((a, b) => b.objectness - a.objectness);
    expect(made.length).toBe(boxes.length);
    made.forEach(({ box }, i) => expectNear(corners(box), boxes[i]!, 2e-3));
    expectNear(made.map((proposal) => proposal.objectness), objectness, 2e-5);
    expect(thinned(made, 0.5, 20).map((proposal) => made.indexOf(proposal))).toEqual(kept);
  });
});

describe("everything", () => {
  it.each(golden.searched)("finds what Python finds: $name", async ({ settings, objects: expected }) => {
    const { objects, shares } = await search(discs(), settings);
    expect(objects.length).toBe(expected.length);
    objects.forEach(({ box, score, area, contours }, i) => {
      const { rle, ...other } = expected[i]!;
      expectNear(corners(box), other.box, 2e-3);
      expect(Math.abs(score - other.score)).toBeLessThan(2e-4);
      expect(Math.abs(area - other.area)).toBeLessThanOrEqual(3);
      const outlines = contours.map((points): Polygon => ({ points, hole: false }));
      expect(iou(fillPolygons(outlines, HEIGHT, WIDTH), rleDecode(rle!))).toBeGreaterThan(0.93);
    });
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares.at(-1)).toBe(1);
  });

  it("compares the masks of a large image on a smaller one", async () => {
    const { data, width, height } = discs();
    const times = golden.magnified;
    const large = { data: new Uint8ClampedArray(data.length * times ** 2), width: width * times, height: height * times };
    for (let y = 0; y < large.height; y++) {
      for (let x = 0; x < large.width; x++) {
        const from = (Math.floor(y / times) * width + Math.floor(x / times)) * 4;
        large.data.set(data.subarray(from, from + 4), (y * large.width + x) * 4);
      }
    }
    const { settings, objects: expected } = golden.large;
    const { objects } = await search(large, settings);
    expect(objects.length).toBe(expected.length);
    objects.forEach(({ box, score, area, contours }, i) => {
      expectNear(corners(box), expected[i]!.box, 0.02);
      expect(Math.abs(score - expected[i]!.score)).toBeLessThan(2e-3);
      // Counted on the smaller image.
      expect(Math.abs(area / expected[i]!.area - 1)).toBeLessThan(0.03);
      const xs = contours.flatMap((points) => [...points].filter((_, at) => at % 2 === 0));
      expect(Math.max(...xs)).toBeLessThanOrEqual(large.width);
    });
  });

  it("gives each object as its box does as a prompt", async () => {
    const { objects } = await search(discs(), {});
    const predictor = new Predictor(arithmetic, discs());
    for (const { box, area } of objects) {
      const [best] = await predictor.candidates({ points: [], box });
      expect(best!.region.logits.reduce((on, logit) => on + (logit > 0 ? 1 : 0), 0)).toBe(area);
    }
    expect(objects.length).toBeGreaterThan(1);
  });

  it("leaves out a mask of the whole image", async () => {
    const everywhere: Runtime = {
      ...arithmetic,
      run: async (...inputs) => (await arithmetic.run(...inputs)).map(() => 4),
    };
    const found = async (runtime: Runtime) => {
      const made = new Search(new Predictor(runtime, discs()), finder, { ...SETTINGS, predIouThresh: 0.1 });
      while (made.share < 1) await made.step();
      return made.objects().map(({ area }) => area / (WIDTH * HEIGHT));
    };
    expect((await found(arithmetic)).length).toBeGreaterThan(1);
    expect((await found(everywhere)).filter((share) => share > 0.95)).toEqual([]);
  });

  it("finds nothing in an image of one color, and in one of a pixel", async () => {
    for (const [width, height] of [[90, 60], [1, 1]] as const) {
      const image = { data: new Uint8ClampedArray(width * height * 4).fill(90), width, height };
      const unused: BoxFinder = { ...finder, run: () => expect.fail("there is nothing to look for") };
      const made = new Search(new Predictor(arithmetic, new Pyramid(image)), unused);
      await made.step();
      expect(made.share).toBe(1);
      expect(made.objects()).toEqual([]);
      image.data[image.data.length - 4] = 91;
      expect(new Pyramid(image).oneColor).toBe(image.data.length === 4);
    }
  });
});

const WEIGHTS = new URL("../../../../src/picosam2/assets/weights/", import.meta.url);

describe.skipIf(!existsSync(new URL("finder.onnx", WEIGHTS)))("a segmenter", () => {
  const open = () =>
    createSegmenter({
      model: new Uint8Array(readFileSync(new URL("default.onnx", WEIGHTS))),
      finder: new URL("finder.onnx", WEIGHTS),
    });

  it("finds the objects of its image with the weights of the package", async () => {
    const segmenter = await open();
    await expect(segmenter.everything()).rejects.toThrow("call setImage first");
    await segmenter.setImage(discs());
    const shares: number[] = [];
    const objects = await segmenter.everything({ onProgress: (share) => shares.push(share) });
    expect(shares.at(-1)).toBe(1);
    expect(objects.length).toBeGreaterThan(0);
    for (const { box, score } of objects) {
      expect(score).toBeGreaterThanOrEqual(SETTINGS.predIouThresh);
      expect((await segmenter.predict({ box }))!.area).toBeGreaterThan(0);
    }
    await segmenter.dispose();
  }, 300_000);

  it("stops where it is told to, and where another image comes", async () => {
    const segmenter = await open();
    await segmenter.setImage(discs());
    const stop = new AbortController();
    await expect(
      segmenter.everything({ signal: stop.signal, onProgress: () => stop.abort(new Error("enough")) }),
    ).rejects.toThrow("enough");
    let changed: Promise<void> | null = null;
    await expect(
      segmenter.everything({ onProgress: () => (changed ??= segmenter.setImage(discs())) }),
    ).rejects.toThrow("another image");
    await changed;
    await segmenter.dispose();
  }, 120_000);
});

describe("a search for all objects", () => {
  const some = { share: 0.5, objects: null };
  const all = { share: 1, objects: [] };

  it("gives nothing of another image, even if that one is searched by then", async () => {
    let image = 1;
    const pieces = [some, all];
    const next = (): Promise<typeof some | typeof all> => {
      if (pieces.length === 1) image = 2;
      return Promise.resolve(pieces.shift()!);
    };
    await expect(searched({ load: () => Promise.resolve(), next, image: () => image }, {})).rejects.toThrow("another image");
  });

  it("begins no search of an image that was set while the finder was loaded", async () => {
    let image = 1;
    let asked = 0;
    const load = (): Promise<void> => Promise.resolve(void (image = 2));
    const next = (): Promise<typeof all> => Promise.resolve({ ...all, share: ++asked });
    await expect(searched({ load, next, image: () => image }, {})).rejects.toThrow("another image");
    expect(asked).toBe(0);
  });

  it("ends at once when nobody wants it any more, also while the finder is loaded", async () => {
    const never = (): Promise<never> => new Promise(() => undefined);
    for (const waiting of [
      { load: never, next: never, image: () => 1 },
      { load: () => Promise.resolve(), next: never, image: () => 1 },
    ]) {
      const stop = new AbortController();
      const search = searched(waiting, { signal: stop.signal });
      setTimeout(() => stop.abort(new Error("enough")));
      await expect(search).rejects.toThrow("enough");
    }
    const stopped = AbortSignal.abort(new Error("never begun"));
    await expect(searched({ load: never, next: never, image: () => 1 }, { signal: stopped })).rejects.toThrow("never begun");
  });
});
