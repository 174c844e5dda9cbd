/**
 * The contract between a prompt and the network: prompt -> window -> crop, and back again. The twin
 * of `picosam2/geometry.py`; `tests/golden/geometry.json` holds both to the same numbers.
 *
 * Coordinates are pixels of the original image: origin at the top left, the center of the first
 * pixel at (0.5, 0.5). A window may reach past the image; what is outside is padding.
 */

import { type Plane, type Rect, resample8, resampleFloat } from "./resample.ts";

/** Pillow keeps rectangles in single precision, and refuses empty ones. */
const THINNEST = 2 ** -10;

/** A click at (x, y): on the object if `positive`, else on what does not belong to it. */
export interface Point {
  readonly x: number;
  readonly y: number;
  readonly positive: boolean;
}

export type Box = Rect;
export type Window = Rect;

/** What says which object is meant: points, a box, or both. */
export interface Prompt {
  readonly points: readonly Point[];
  readonly box: Box | null;
}

/** An image as a canvas gives it: RGBA, 8 bits; alpha is not looked at. */
export interface RgbaImage {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** Logits for the image's pixels from column `x`, row `y`: (height, width). May be empty. */
export interface Region {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly logits: Float32Array;
}

export const widthOf = (r: Rect): number => r.x1 - r.x0;
export const heightOf = (r: Rect): number => r.y1 - r.y0;

/** The square window of half-size `half` centred on a point. */
export function pointWindow(x: number, y: number, half: number): Window {
  return { x0: x - half, y0: y - half, x1: x + half, y1: y + half };
}

/** The windows tried for a click, smallest first; `halves` are fractions of the long side. */
export function clickWindows(
  x: number,
  y: number,
  height: number,
  width: number,
  halves: readonly number[],
): Window[] {
  const longSide = Math.max(height, width);
  return halves.map((half) => pointWindow(x, y, half * longSide));
}

/** The window around `box`, `growth` times its size; `maxAspect` (>= 1) limits its proportions. */
export function boxWindow(box: Box, growth: number, maxAspect = Infinity): Window {
  const w = widthOf(box) * growth;
  const h = heightOf(box) * growth;
  const width = Math.max(w, h / maxAspect);
  const height = Math.max(h, w / maxAspect);
  const x = (box.x0 + box.x1) / 2;
  const y = (box.y0 + box.y1) / 2;
  return { x0: x - width / 2, y0: y - height / 2, x1: x + width / 2, y1: y + height / 2 };
}

/**
 * `window` shrunk about its center until it lies inside the image; null if its center does not.
 * A sensor's region of interest cannot leave the frame, and moving it would move the prompt.
 */
export function sensorWindow(window: Window, height: number, width: number): Window | null {
  const x = (window.x0 + window.x1) / 2;
  const y = (window.y0 + window.y1) / 2;
  const room = Math.min(
    (2 * Math.min(x, width - x)) / widthOf(window),
    (2 * Math.min(y, height - y)) / heightOf(window),
  );
  if (room <= 0) return null;
  return room >= 1 ? window : scaled(window, room, room);
}

/** A point of the image in the crop of `window`, which spans 0..`size`. */
export function toCrop(window: Window, x: number, y: number, size: number): [number, number] {
  return [
    (x - window.x0) * (size / widthOf(window)),
    (y - window.y0) * (size / heightOf(window)),
  ];
}

/** The inverse of `toCrop`. */
export function toImage(window: Window, x: number, y: number, size: number): [number, number] {
  return [
    x * (widthOf(window) / size) + window.x0,
    y * (heightOf(window) / size) + window.y0,
  ];
}

/** The window grown or shrunk about its center. */
function scaled(window: Window, factorX: number, factorY: number): Window {
  const x = (window.x0 + window.x1) / 2;
  const y = (window.y0 + window.y1) / 2;
  const halfX = (widthOf(window) * factorX) / 2;
  const halfY = (heightOf(window) * factorY) / 2;
  return { x0: x - halfX, y0: y - halfY, x1: x + halfX, y1: y + halfY };
}

/** The window, widened about its center where a side is shorter than `side` pixels. */
function atLeast(window: Window, side: number): Window {
  const growX = Math.max(side / widthOf(window), 1);
  const growY = Math.max(side / heightOf(window), 1);
  return scaled(window, growX, growY);
}

/** What the network sees: the image through `window`, (size, size, 3) RGB; `pad` outside. */
export function crop(
  image: RgbaImage,
  window: Window,
  size: number,
  pad: readonly number[],
): Uint8Array {
  return resample8({ ...image, stride: 4, channels: 3 }, atLeast(window, THINNEST), size, pad);
}

/** The share of each crop pixel that a mask (one byte a pixel, 0 or 1) covers: (size, size). */
export function cropMask(
  mask: Uint8Array,
  height: number,
  width: number,
  window: Window,
  size: number,
): Float32Array {
  return cropPlane(mask.map((value) => value * 255), height, width, window, size);
}

/** `data` (height, width), 0..255, through `window`, zero outside the image: (size, size), 0..1. */
export function cropPlane(
  data: Uint8Array,
  height: number,
  width: number,
  window: Window,
  size: number,
): Float32Array {
  const plane: Plane = { data, width, height, stride: 1, channels: 1 };
  const covered = resample8(plane, atLeast(window, THINNEST), size, [0]);
  return Float32Array.from(covered, (value) => value / 255);
}

/**
 * Logits (side, side) of `around` back on the pixels whose centers it covers: `crop`'s inverse. A
 * window thinner than a pixel is pasted as if it were a pixel wide. `clip` (whole pixels) leaves out
 * what lies outside it.
 */
export function pasteRegion(
  logits: Float32Array,
  side: number,
  around: Window,
  height: number,
  width: number,
  clip: Rect = { x0: 0, y0: 0, x1: width, y1: height },
): Region {
  const window = atLeast(around, 1);
  const [left, right] = centers(window.x0, window.x1, width);
  const [top, bottom] = centers(window.y0, window.y1, height);
  const [x0, x1] = [Math.max(left, clip.x0), Math.min(right, clip.x1)];
  const [y0, y1] = [Math.max(top, clip.y0), Math.min(bottom, clip.y1)];
  const columns = Math.max(x1 - x0, 0);
  const rows = Math.max(y1 - y0, 0);
  if (columns === 0 || rows === 0) {
    return { x: x0, y: y0, width: columns, height: rows, logits: new Float32Array(0) };
  }
  const stepX = side / widthOf(window);
  const stepY = side / heightOf(window);
  // A covered pixel may stick out of the window by half of itself, and the filter reaches one
  // more step: replicating the edge serves both.
  const padX = Math.ceil(1.5 * stepX) + 1;
  const padY = Math.ceil(1.5 * stepY) + 1;
  const paddedWidth = side + 2 * padX;
  const paddedHeight = side + 2 * padY;
  const padded = new Float32Array(paddedWidth * paddedHeight);
  for (let y = 0; y < paddedHeight; y++) {
    const from = Math.min(Math.max(y - padY, 0), side - 1) * side;
    for (let x = 0; x < paddedWidth; x++) {
      padded[y * paddedWidth + x] = logits[from + Math.min(Math.max(x - padX, 0), side - 1)]!;
    }
  }
  const box = {
    x0: (x0 - window.x0) * stepX + padX,
    y0: (y0 - window.y0) * stepY + padY,
    x1: (x1 - window.x0) * stepX + padX,
    y1: (y1 - window.y0) * stepY + padY,
  };
  const resized = resampleFloat(padded, paddedWidth, paddedHeight, atLeast(box, THINNEST), columns, rows);
  return { x: x0, y: y0, width: columns, height: rows, logits: resized };
}

/** The part of a crop of `window` (whole pixels) whose centers lie in an image of that size. */
export function inside(window: Window, height: number, width: number, size: number): Rect {
  const [left, top] = toCrop(window, 0, 0, size);
  const [right, bottom] = toCrop(window, width, height, size);
  const [x0, x1] = centers(left, right, size);
  const [y0, y1] = centers(top, bottom, size);
  return { x0, y0, x1, y1 };
}

/** The range of pixels 0..limit whose centers lie in [low, high). */
function centers(low: number, high: number, limit: number): [number, number] {
  const start = Math.min(Math.max(Math.ceil(low - 0.5), 0), limit);
  return [start, Math.min(Math.max(Math.ceil(high - 0.5), start), limit)];
}
