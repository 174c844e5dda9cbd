/**
 * What is known of the object beside the window, drawn on the crop's grid: the twin of
 * `picosam2/guidance.py`; `tests/golden/guidance.json` holds both to the same numbers.
 *
 * Three planes, 0..1: the probability of the mask so far, disks at the clicks on the object, disks at
 * the clicks off it. All zeros means that nothing is known but the window.
 */

import { type Box, cropPlane, type Point, toCrop, type Window } from "./geometry.ts";

export const PLANES = 3;

/** Radius of a click's disk, as a share of the crop's side. */
export const DISK_RADIUS = 5 / 192;

/** How far a window's box goes past a positive click outside the mask, as a share of its side. */
const REACH = 0.15;

/** The shortest side of a box around clicks alone, as a share of the image's long side. */
const SMALLEST = 0.15;

/**
 * How far around the newest click the mask so far hardly counts in an answer: the standard deviation of a
 * Gaussian, as a share of the window's side.
 */
const NEAR = 0.2;

/** The largest logit that the mask so far counts with. */
const CERTAIN = 5;

/** The mask so far on squares of `step` x `step` pixels: 255 times its probability. */
export interface Known {
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
  readonly step: number;
}

/** Logits as probabilities, 0..255. */
export function probability(logits: Float32Array): Uint8Array {
  return Uint8Array.from(logits, (logit) => {
    const clipped = Math.fround(Math.min(Math.max(logit, -16), 16));
    return roundHalfEven(255 / (1 + Math.exp(-clipped)));
  });
}

/** NumPy's rounding. */
function roundHalfEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/** The guidance of one crop, (3, size, size), written into `out` from `at` on. */
export function drawPlanes(
  window: Window,
  size: number,
  mask: Known | null,
  points: Iterable<Point>,
  out: Float32Array,
  at = 0,
): void {
  const area = size * size;
  out.fill(0, at, at + PLANES * area);
  if (mask) {
    const { data, width, height, step } = mask;
    const scaled = {
      x0: window.x0 / step, y0: window.y0 / step, x1: window.x1 / step, y1: window.y1 / step,
    };
    out.set(cropPlane(data, height, width, scaled, size), at);
  }
  const radius = DISK_RADIUS * size;
  for (const point of points) {
    const [x, y] = toCrop(window, point.x, point.y, size);
    if (!(x >= 0 && x < size && y >= 0 && y < size)) continue;
    const plane = at + (point.positive ? 1 : 2) * area;
    for (let row = Math.max(Math.floor(y - radius), 0); row < Math.min(y + radius + 1, size); row++) {
      for (let column = Math.max(Math.floor(x - radius), 0); column < Math.min(x + radius + 1, size); column++) {
        if ((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= radius ** 2) out[plane + row * size + column] = 1;
      }
    }
  }
}

/**
 * The mean of an answer (side, side) and the mask so far, of which the latter counts less near the newest
 * click: what is far from it only changes where the network is sure. `planes` are the window's, of `size`.
 */
export function settled(
  logits: Float32Array,
  side: number,
  planes: Float32Array,
  size: number,
  window: Window,
  newest: Point,
): Float32Array {
  const step = Math.floor(size / side);
  const least = 1 / (1 + Math.exp(CERTAIN));
  const [x, y] = toCrop(window, newest.x, newest.y, side);
  const fall = (at: number): Float64Array =>
    Float64Array.from({ length: side }, (_, i) => Math.exp(-0.5 * ((i + 0.5 - at) / (NEAR * side)) ** 2));
  const [across, down] = [fall(x), fall(y)];
  const mean = new Float32Array(side * side);
  for (let row = 0, at = 0; row < side; row++) {
    for (let column = 0; column < side; column++, at++) {
      let sum = 0;
      for (let i = 0; i < step; i++) {
        for (let j = 0; j < step; j++) sum += planes[(row * step + i) * size + column * step + j]!;
      }
      const share = Math.min(Math.max(sum / step ** 2, least), 1 - least);
      const weight = 1 - down[row]! * across[column]!;
      mean[at] = (logits[at]! + weight * Math.log(share / (1 - share))) / (1 + weight);
    }
  }
  return mean;
}

/**
 * The box that the next window is laid around: the union of the mask so far (its bounds, or the box
 * that was given) and the positive clicks; where a click lies outside of the mask, the box goes a
 * little past it. Null if there is neither a mask nor a positive click.
 */
export function followingBox(mask: Box | null, points: readonly Point[], height: number, width: number): Box | null {
  const on = points.filter(({ positive }) => positive);
  if (!mask && on.length === 0) return null;
  const [x0, x1] = reach(mask && [mask.x0, mask.x1], on.map(({ x }) => x));
  const [y0, y1] = reach(mask && [mask.y0, mask.y1], on.map(({ y }) => y));
  const least = mask ? 1 : SMALLEST * Math.max(height, width);
  const growX = Math.max(least - (x1 - x0), 0) / 2;
  const growY = Math.max(least - (y1 - y0), 0) / 2;
  return { x0: x0 - growX, y0: y0 - growY, x1: x1 + growX, y1: y1 + growY };
}

/** One axis of the union: from the lowest to the highest, past a click outside of the mask. */
function reach(span: readonly [number, number] | null, places: readonly number[]): [number, number] {
  const [low, high] = span ?? [Math.min(...places), Math.max(...places)];
  const first = Math.min(low, ...places);
  const last = Math.max(high, ...places);
  const past = REACH * (last - first);
  // Clicks lie inside the object, not on its outline.
  if (!span) return [first - past, last + past];
  // As far past a click as it is outside: people click in the middle of what is missing.
  return [
    first < low ? first - Math.max(past, low - first) : first,
    last > high ? last + Math.max(past, last - high) : last,
  ];
}
