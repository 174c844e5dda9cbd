import { describe, expect, it } from "vitest";
import { crop, type RgbaImage } from "../src/geometry.ts";
import { halved, onWhite, Pyramid } from "../src/pyramid.ts";

/** Waves of several lengths, RGBA. */
function waves(width: number, height: number): RgbaImage {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    const x = i % width;
    const y = Math.floor(i / width);
    const value = 128 + 60 * Math.sin(x / 23) + 50 * Math.cos((x + 2 * y) / 71);
    data.set([value, 255 - value, (x * 255) / width, 255], i * 4);
  }
  return { data, width, height };
}

const PAD = [124, 116, 104];

function apart(a: Uint8Array, b: Uint8Array): [number, number] {
  let [most, sum] = [0, 0];
  a.forEach((value, i) => {
    const difference = Math.abs(value - b[i]!);
    most = Math.max(most, difference);
    sum += difference;
  });
  return [most, sum / a.length];
}

describe("transparent pixels", () => {
  it("lie on white", () => {
    const data = Uint8Array.of(10, 20, 30, 255, 10, 20, 30, 0, 100, 100, 100, 51);
    const laid = onWhite({ data, width: 3, height: 1 });
    expect([...laid.data]).toEqual([10, 20, 30, 255, 255, 255, 255, 255, 224, 224, 224, 255]);
    expect(data[4]).toBe(10); // the caller's own stay
    const opaque = waves(7, 5);
    expect(onWhite(opaque)).toBe(opaque);
  });
});

describe("a pyramid", () => {
  const image = waves(1501, 1000);
  const pyramid = new Pyramid(image);

  it("gives small windows exactly as the image does", () => {
    const window = { x0: 100.3, y0: -20, x1: 400.3, y1: 280 };
    expect(apart(pyramid.crop(window, 64, PAD), crop(image, window, 64, PAD))).toEqual([0, 0]);
  });

  it.each([
    [{ x0: 0, y0: 0, x1: 1501, y1: 1000 }, 32],
    [{ x0: -400, y0: -300, x1: 1900, y1: 1700 }, 96],
    [{ x0: 700, y0: 400, x1: 1500, y1: 1200 }, 48],
  ])("gives large windows to within a few levels: %j", (window, size) => {
    const [most, mean] = apart(pyramid.crop(window, size, PAD), crop(image, window, size, PAD));
    expect(mean).toBeLessThan(0.6);
    expect(most).toBeLessThan(20); // at the border to the padding
  });

  it("takes a copy as fine as the crop for a glimpse", () => {
    const window = { x0: 300, y0: 100, x1: 1100, y1: 900 };
    const exact = crop(image, window, 192, PAD); // shrinks the image 4.2 times
    expect(apart(pyramid.crop(window, 192, PAD), exact)).toEqual([0, 0]);
    const [, mean] = apart(pyramid.crop(window, 192, PAD, true), exact);
    expect(mean).toBeGreaterThan(0);
    expect(mean).toBeLessThan(0.6);
  });

  it("reads windows of the full size from a reduced copy", () => {
    const reduced = new Pyramid(halved(image), 1501, 1000);
    const window = { x0: 200, y0: 100, x1: 1000, y1: 900 };
    const [, mean] = apart(reduced.crop(window, 64, PAD), crop(image, window, 64, PAD));
    expect([reduced.width, reduced.height]).toEqual([1501, 1000]);
    expect(mean).toBeLessThan(1.2);
  });

  it("halves odd sizes by repeating the last line", () => {
    const small = halved({ data: Uint8Array.from({ length: 12 }, (_, i) => i * 10), width: 3, height: 1 });
    expect([small.width, small.height]).toEqual([2, 1]);
    expect([...small.data]).toEqual([20, 30, 40, 50, 80, 90, 100, 110]);
  });

  it("ends where an image has no more pixels to halve", () => {
    const thin = new Pyramid(waves(3000, 1));
    expect(thin.crop({ x0: 0, y0: -1500, x1: 3000, y1: 1500 }, 32, PAD).length).toBe(32 * 32 * 3);
  });
});
