/** The twin passes the reference cases that `picosam2/geometry.py` wrote. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import * as geometry from "../src/geometry.ts";

type Four = [number, number, number, number];

interface Golden {
  images: Record<string, { kind: string; height: number; width: number; channels?: number[][]; base64?: string }>;
  masks: Record<string, { height: number; width: number; cx: number; cy: number; radius: number }>;
  logits: Record<string, { size: number; cx: number; cy: number; radius: number; floor: number; peak: number }>;
  point_window: { point: [number, number]; half: number; expected: Four }[];
  click_windows: { point: [number, number]; height: number; width: number; expected: Four[] }[];
  box_window: { box: Four; growth: number; max_aspect: number | null; expected: Four }[];
  sensor_window: { window: Four; height: number; width: number; expected: Four | null }[];
  to_crop: { window: Four; size: number; image_points: [number, number][]; crop_points: [number, number][] }[];
  crop: { name: string; image: string; window: Four; size: number; expected: string }[];
  crop_mask: { name: string; mask: string; window: Four; size: number; expected: string }[];
  paste: {
    name: string; logits: string; window: Four; height: number; width: number;
    x: number; y: number; width_px: number; height_px: number; expected: number[];
  }[];
  constants: { click_halves: number[]; pad_rgb: number[] };
}

const golden = JSON.parse(
  readFileSync(new URL("../../../../tests/golden/geometry.json", import.meta.url), "utf8"),
) as Golden;

const rect = ([x0, y0, x1, y1]: Four): geometry.Window => ({ x0, y0, x1, y1 });
const four = (w: geometry.Window): Four => [w.x0, w.y0, w.x1, w.y1];
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));

function close(got: readonly number[], expected: readonly number[]): void {
  expect(got.length).toBe(expected.length);
  got.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(1e-9 * Math.max(1, Math.abs(expected[i]!)));
  });
}

function imageOf(name: string): geometry.RgbaImage {
  const { height, width, channels, base64 } = golden.images[name]!;
  const raw = base64 === undefined ? null : bytes(base64);
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let k = 0; k < 3; k++) {
        const [a, b, c] = channels?.[k] ?? [0, 0, 0];
        const at = y * width + x;
        data[at * 4 + k] = raw ? raw[at * 3 + k]! : (a! * x + b! * y + c!) % 256;
      }
    }
  }
  return { width, height, data };
}

/** The largest difference between two byte arrays. */
function apart(got: Uint8Array, expected: Uint8Array): number {
  expect(got.length).toBe(expected.length);
  return got.reduce((worst, value, i) => Math.max(worst, Math.abs(value - expected[i]!)), 0);
}

describe("windows", () => {
  it.each(golden.point_window)("of a point $point", ({ point: [x, y], half, expected }) => {
    close(four(geometry.pointWindow(x, y, half)), expected);
  });

  it.each(golden.click_windows)("of a click $point", ({ point: [x, y], height, width, expected }) => {
    const got = geometry.clickWindows(x, y, height, width, golden.constants.click_halves);
    close(got.flatMap(four), expected.flat());
  });

  it.each(golden.box_window)("of a box $box", ({ box, growth, max_aspect, expected }) => {
    close(four(geometry.boxWindow(rect(box), growth, max_aspect ?? Infinity)), expected);
  });

  it.each(golden.sensor_window)("of a sensor $window", ({ window, height, width, expected }) => {
    const got = geometry.sensorWindow(rect(window), height, width);
    if (expected === null) expect(got).toBeNull();
    else close(four(got!), expected);
  });

  it.each(golden.to_crop)("map points $window", ({ window, size, image_points, crop_points }) => {
    const there = image_points.map(([x, y]) => geometry.toCrop(rect(window), x, y, size));
    const back = crop_points.map(([x, y]) => geometry.toImage(rect(window), x, y, size));
    close(there.flat(), crop_points.flat());
    close(back.flat(), image_points.flat());
  });
});

describe("crops", () => {
  // The file allows a level of difference; Pillow's own arithmetic leaves none.
  it.each(golden.crop)("$name", ({ image, window, size, expected }) => {
    const got = geometry.crop(imageOf(image), rect(window), size, golden.constants.pad_rgb);
    expect(apart(got, bytes(expected))).toBe(0);
  });

  it.each(golden.crop_mask)("of a mask, $name", ({ mask, window, size, expected }) => {
    const { height, width, cx, cy, radius } = golden.masks[mask]!;
    const on = new Uint8Array(width * height).map((_, i) => {
      const x = (i % width) + 0.5;
      const y = Math.floor(i / width) + 0.5;
      return (x - cx) ** 2 + (y - cy) ** 2 <= radius ** 2 ? 1 : 0;
    });
    const got = geometry.cropMask(on, height, width, rect(window), size);
    expect(apart(Uint8Array.from(got, (v) => Math.round(v * 255)), bytes(expected))).toBe(0);
  });
});

describe("pasting", () => {
  it.each(golden.paste)("$name", (given) => {
    const { size, cx, cy, radius, floor, peak } = golden.logits[given.logits]!;
    const map = new Float32Array(size * size).map((_, i) => {
      const x = (i % size) + 0.5;
      const y = Math.floor(i / size) + 0.5;
      return floor + (peak - floor) * Math.max(0, 1 - ((x - cx) ** 2 + (y - cy) ** 2) / radius ** 2);
    });
    const got = geometry.pasteRegion(map, size, rect(given.window), given.height, given.width);
    expect([got.x, got.y, got.width, got.height]).toEqual([
      given.x, given.y, given.width_px, given.height_px,
    ]);
    expect(got.logits.length).toBe(given.expected.length);
    given.expected.forEach((value, i) => {
      expect(Math.abs(got.logits[i]! - value)).toBeLessThanOrEqual(1e-4);
    });
  });
});
