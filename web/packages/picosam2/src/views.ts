/**
 * Where the finder looks, and how its cells become boxes. The twin of `picosam2/models/views.py`;
 * `web/tests/golden/everything.json` holds both to the same numbers.
 *
 * A view is a square window of an image: all of it, letterboxed, or one of the parts that overlap each
 * other, for small objects. The finder answers with cells on a few grids over the view; each gives one
 * box and its objectness, the IoU that the box is expected to have with an object.
 */

import { type Box, heightOf, type Window, widthOf } from "./geometry.ts";

/** Numbers of a cell: objectness as a logit, then log-distances to left, top, right and bottom. */
export const OUTPUTS = 5;

/** Side of a part as a share of the image's long side, where the image is no panorama. */
const PART = 0.45;

const OVERLAP = 0.25; // of neighboring parts, at least, as a share of their side
const MAX_PARTS = 32;
const FULL = 0.75; // of a part's side: what fills more of a part is left to a larger view
const ALL = 0.999; // a part as high as this share of an image is not filled by a background alone
const FARTHEST = 4; // a log-distance is cut off here

/** How a finder's cells lie and what they say; read from its file. */
export interface Cells {
  /** Side of the views, pixels. */
  readonly inputSize: number;
  /** Pixels of a view between the cells of each level. */
  readonly strides: readonly number[];
  /** Log-distances of 0 mean so many strides to each edge. */
  readonly reach: number;
}

/** A box that may hold an object, in pixels of the image, and its objectness, 0..1. */
export interface Proposal {
  readonly box: Box;
  readonly objectness: number;
}

/** The square around a whole image, which lies in its middle. */
export function wholeWindow(height: number, width: number): Window {
  const side = Math.max(height, width);
  const x = (width - side) / 2;
  const y = (height - side) / 2;
  return { x0: x, y0: y, x1: x + side, y1: y + side };
}

/** Squares that cover an image and overlap: six of most images, more of a panorama; none if one would do. */
export function partWindows(height: number, width: number, share = PART): Window[] {
  let side = Math.min(share * Math.max(height, width), Math.min(height, width));
  let [columns, rows] = [starts(width, side), starts(height, side)];
  while (columns.length * rows.length > MAX_PARTS) {
    side *= 1.25;
    [columns, rows] = [starts(width, side), starts(height, side)];
  }
  if (columns.length * rows.length === 1) return [];
  return rows.flatMap((y) => columns.map((x) => ({ x0: x, y0: y, x1: x + side, y1: y + side })));
}

/** Where windows of one side begin so that they cover `length` evenly. */
function starts(length: number, side: number): number[] {
  if (side >= length) return [(length - side) / 2];
  const count = Math.max(Math.ceil((length - OVERLAP * side) / ((1 - OVERLAP) * side) - 1e-9), 2);
  return Array.from({ length: count }, (_, i) => (i * (length - side)) / (count - 1));
}

/** How many cells a view has. */
export function cellCount({ inputSize, strides }: Cells): number {
  return strides.reduce((sum, stride) => sum + Math.floor(inputSize / stride) ** 2, 0);
}

/**
 * The boxes of one view, in the order of its cells: (5, N) as the finder answered. Boxes that their
 * view cuts off where the image goes on are left out, and so are those that fill nearly all of a part,
 * which are pieces of a background more often than objects, and those of less than a pixel.
 */
export function decode(
  values: Float32Array, window: Window, height: number, width: number, cells: Cells, least = 0,
): Proposal[] {
  const count = cellCount(cells);
  const largest = widthOf(window) < ALL * Math.min(height, width) ? FULL * widthOf(window) : Infinity;
  const pixel = widthOf(window) / cells.inputSize;
  const out: Proposal[] = [];
  let i = 0;
  for (const stride of cells.strides) {
    const across = Math.floor(cells.inputSize / stride);
    for (let row = 0; row < across; row++) {
      for (let column = 0; column < across; column++, i++) {
        const objectness = Math.fround(1 / (1 + Math.exp(-clamp(values[i]!, -30, 30))));
        if (objectness < least) continue;
        const far = (edge: number): number =>
          Math.exp(clamp(values[(edge + 1) * count + i]!, -FARTHEST, FARTHEST)) * cells.reach * stride;
        const [x, y] = [(column + 0.5) * stride, (row + 0.5) * stride];
        const box = {
          x0: (x - far(0)) * pixel + window.x0,
          y0: (y - far(1)) * pixel + window.y0,
          x1: (x + far(2)) * pixel + window.x0,
          y1: (y + far(3)) * pixel + window.y0,
        };
        if (cutOff(box, window, height, width)) continue;
        const inside = {
          x0: clamp(box.x0, 0, width), y0: clamp(box.y0, 0, height),
          x1: clamp(box.x1, 0, width), y1: clamp(box.y1, 0, height),
        };
        const [across, down] = [widthOf(inside), heightOf(inside)];
        if (across >= 1 && down >= 1 && Math.sqrt(across * down) <= largest) out.push({ box: inside, objectness });
      }
    }
  }
  return out;
}

/** Whether a box reaches an edge of the window beyond which the image goes on. */
function cutOff(box: Box, window: Window, height: number, width: number): boolean {
  const margin = 0.01 * widthOf(window);
  return (
    (window.x0 > margin && box.x0 < window.x0 + margin) ||
    (window.y0 > margin && box.y0 < window.y0 + margin) ||
    (window.x1 < width - margin && box.x1 > window.x1 - margin) ||
    (window.y1 < height - margin && box.y1 > window.y1 - margin)
  );
}

/** Of boxes, best first, those that overlap no better one by more than an IoU; at most `most`. */
export function thinned<T extends { readonly box: Box }>(ranked: readonly T[], threshold: number, most: number): T[] {
  const kept: T[] = [];
  for (const item of ranked) {
    if (kept.length >= most) break;
    if (!kept.some(({ box }) => overlaps(box, item.box, threshold))) kept.push(item);
  }
  return kept;
}

/** Whether the IoU of two boxes is above a threshold. */
export function overlaps(a: Box, b: Box, threshold: number): boolean {
  const across = Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0);
  const down = Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0);
  const both = Math.max(across, 0) * Math.max(down, 0);
  return both > threshold * (areaOf(a) + areaOf(b) - both);
}

const areaOf = ({ x0, y0, x1, y1 }: Box): number => (x1 - x0) * (y1 - y0);

const clamp = (value: number, low: number, high: number): number => Math.min(Math.max(value, low), high);
