/**
 * What is done to masks: measure, encode as COCO's RLE, outline as polygons. The twin of the parts
 * of `picosam2/masks.py` that the page needs. Object pixels touch through edges and corners,
 * background pixels through edges only, so each piece has one outer contour.
 */

import type { Box, Region, Window } from "./geometry.ts";

/** One byte a pixel, 0 or 1, row by row, for the pixels from column `x`, row `y`. */
export interface Mask {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** A closed contour: x, y in turn. Outer ones run clockwise on the screen, holes the other way. */
export interface Polygon {
  readonly points: Float64Array;
  readonly hole: boolean;
}

export interface Rle {
  readonly size: [number, number];
  readonly counts: string;
}

/** A region's mask (logits > 0), cut to its box with `margin` pixels around it. */
export function maskOf(region: Region, bounds: Box, margin = 0): Mask {
  const x0 = Math.max(bounds.x0 - margin, region.x);
  const y0 = Math.max(bounds.y0 - margin, region.y);
  const width = Math.min(bounds.x1 + margin, region.x + region.width) - x0;
  const height = Math.min(bounds.y1 + margin, region.y + region.height) - y0;
  const data = new Uint8Array(width * height);
  for (let y = 0, at = 0; y < height; y++) {
    let from = (y + y0 - region.y) * region.width + x0 - region.x;
    for (let x = 0; x < width; x++) data[at++] = region.logits[from++]! > 0 ? 1 : 0;
  }
  return { x: x0, y: y0, width, height, data };
}

export function area(mask: Mask): number {
  let total = 0;
  for (const value of mask.data) total += value;
  return total;
}

/** The tight box of a mask in the image's pixels, its end exclusive; null if it is empty. */
export function bounds(mask: Mask): Box | null {
  let x0 = mask.width, x1 = 0, y0 = -1, y1 = 0;
  for (let y = 0; y < mask.height; y++) {
    const row = mask.data.subarray(y * mask.width, (y + 1) * mask.width);
    const left = row.indexOf(1);
    if (left < 0) continue;
    x0 = Math.min(x0, left);
    x1 = Math.max(x1, row.lastIndexOf(1) + 1);
    if (y0 < 0) y0 = y;
    y1 = y + 1;
  }
  if (y0 < 0) return null;
  return { x0: x0 + mask.x, y0: y0 + mask.y, x1: x1 + mask.x, y1: y1 + mask.y };
}

/** Whether the pixel at (x, y) of the image is on the object. */
export function covers(mask: Mask, x: number, y: number): boolean {
  const column = Math.floor(x) - mask.x;
  const row = Math.floor(y) - mask.y;
  if (column < 0 || row < 0 || column >= mask.width || row >= mask.height) return false;
  return mask.data[row * mask.width + column] === 1;
}

/** Intersection over union, 0..1; 0 if both are empty. */
export function iou(a: Mask, b: Mask): number {
  const x1 = Math.min(a.x + a.width, b.x + b.width);
  const y1 = Math.min(a.y + a.height, b.y + b.height);
  let both = 0;
  for (let y = Math.max(a.y, b.y); y < y1; y++) {
    for (let x = Math.max(a.x, b.x); x < x1; x++) {
      both += a.data[(y - a.y) * a.width + x - a.x]! & b.data[(y - b.y) * b.width + x - b.x]!;
    }
  }
  const either = area(a) + area(b) - both;
  return either ? both / either : 0;
}

// --- run-length encoding ------------------------------------------------------------------------

/** COCO's compressed RLE of a mask on an image of `height` x `width`. */
export function rleEncode(mask: Mask, height: number, width: number): Rle {
  const counts: number[] = [];
  let value = 0;
  let run = 0;
  const add = (next: number, length: number): void => {
    if (next === value) run += length;
    else {
      counts.push(run);
      value = next;
      run = length;
    }
  };
  add(0, Math.max(mask.x, 0) * height);
  for (let x = 0; x < mask.width; x++) {
    add(0, mask.y);
    for (let y = 0; y < mask.height; y++) add(mask.data[y * mask.width + x]!, 1);
    add(0, height - mask.y - mask.height);
  }
  add(0, (width - mask.x - mask.width) * height);
  counts.push(run);
  return { size: [height, width], counts: compress(counts) };
}

/** The inverse of `rleEncode`, on the whole image. Throws on counts that do not fill it. */
export function rleDecode(rle: Rle): Mask {
  const [height, width] = rle.size;
  const data = new Uint8Array(width * height);
  let at = 0;
  decompress(rle.counts).forEach((count, i) => {
    if (count < 0 || at + count > data.length) throw new Error("an RLE's counts do not fit");
    if (i % 2 === 1) {
      for (let k = at; k < at + count; k++) {
        data[(k % height) * width + Math.floor(k / height)] = 1;
      }
    }
    at += count;
  });
  if (at !== data.length) throw new Error("an RLE's counts do not fill its image");
  return { x: 0, y: 0, width, height, data };
}

/** 5 bits a character, two's complement, differences from the third on (cocoapi's maskApi.c). */
function compress(counts: readonly number[]): string {
  let text = "";
  counts.forEach((count, i) => {
    let rest = i > 2 ? count - counts[i - 2]! : count;
    for (;;) {
      const bits = rest & 31;
      rest >>= 5;
      const more = bits & 16 ? rest !== -1 : rest !== 0;
      text += String.fromCharCode((more ? bits | 32 : bits) + 48);
      if (!more) break;
    }
  });
  return text;
}

function decompress(text: string): number[] {
  const counts: number[] = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    for (let shift = 0; ; shift += 5) {
      const code = text.charCodeAt(at++) - 48;
      if (!(code >= 0 && code < 64) || shift > 25) throw new Error("an RLE's counts are damaged");
      value |= (code & 31) << shift;
      if (code < 32) {
        if (code & 16) value |= -1 << (shift + 5);
        break;
      }
    }
    counts.push(counts.length > 2 ? value + counts[counts.length - 2]! : value);
  }
  return counts;
}

// --- polygons -----------------------------------------------------------------------------------

/**
 * The contours of a mask, in reading order, in the image's pixels. With `tolerance` 0 they follow
 * the pixels' edges; above 0 each is simplified by up to that many pixels (Douglas and Peucker,
 * 1973), less where it would collapse or turn inside out.
 */
export function polygons(mask: Mask, tolerance = 0): Polygon[] {
  return trace(mask).map(({ points, hole }) => {
    const area = signedArea(points);
    // Below 1 / sqrt(5) no chord comes near enough to a corner to spare it.
    for (let limit = tolerance; limit > 0.4; limit /= 2) {
      const simple = simplify(points, limit);
      if (simple.length >= 6 && signedArea(simple) * area > 0) return { points: simple, hole };
    }
    return { points, hole };
  });
}

const RIGHT = 0, DOWN = 1, LEFT = 2, UP = 3;
const STEP_X = [1, 0, -1, 0] as const;
const STEP_Y = [0, 1, 0, -1] as const;

function trace(mask: Mask): Polygon[] {
  const { width, height, data } = mask;
  const stride = width + 1;
  const seen = new Uint8Array(stride * (height + 1)); // 1: walked to the right from here, 2: left
  const at = (x: number, y: number): number =>
    x >= 0 && y >= 0 && x < width && y < height ? data[y * width + x]! : 0;
  const found: Polygon[] = [];
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x < width; x++) {
      const below = at(x, y);
      if (below === at(x, y - 1)) continue;
      if (below) {
        if (!(seen[y * stride + x]! & 1)) found.push(walk(x, y, RIGHT));
      } else {
        // The edge is walked from its right end: go there first.
        if (seen[y * stride + x + 1]! & 2) continue;
        let end = x + 1;
        while (end < width && at(end, y - 1) && !at(end, y)) end++;
        found.push(walk(end, y, LEFT));
      }
    }
  }
  return found;

  /** Follows a contour with the object on the right hand, through diagonal neighbours. */
  function walk(startX: number, startY: number, start: number): Polygon {
    const points: number[] = [];
    let x = startX, y = startY, heading = start;
    do {
      points.push(x + mask.x, y + mask.y);
      for (;;) {
        if (heading === RIGHT) seen[y * stride + x]! |= 1;
        else if (heading === LEFT) seen[y * stride + x]! |= 2;
        x += STEP_X[heading]!;
        y += STEP_Y[heading]!;
        const [left, right] = ahead(x, y, heading);
        if (left) {
          heading = (heading + 3) % 4;
          break;
        }
        if (!right) {
          heading = (heading + 1) % 4;
          break;
        }
      }
    } while (x !== startX || y !== startY || heading !== start);
    return { points: Float64Array.from(points), hole: start === LEFT };
  }

  /** The pixels ahead of a corner, on the left and on the right hand. */
  function ahead(x: number, y: number, heading: number): [number, number] {
    switch (heading) {
      case RIGHT: return [at(x, y - 1), at(x, y)];
      case DOWN: return [at(x, y), at(x - 1, y)];
      case LEFT: return [at(x - 1, y), at(x - 1, y - 1)];
      case UP: return [at(x - 1, y - 1), at(x, y - 1)];
      default: throw new Error("no such heading");
    }
  }
}

function signedArea(points: Float64Array): number {
  let twice = 0;
  for (let i = 0, n = points.length; i < n; i += 2) {
    const j = (i + 2) % n;
    twice += points[i]! * points[j + 1]! - points[j]! * points[i + 1]!;
  }
  return twice / 2;
}

/** Douglas-Peucker on a ring, cut at its first point and the one farthest from that. */
function simplify(points: Float64Array, tolerance: number): Float64Array {
  const n = points.length / 2;
  const keep = new Uint8Array(n + 1);
  keep[0] = keep[n] = 1;
  const stack: [number, number, number][] = [[0, n, -1]]; // the first cut is made in any case
  for (let item = stack.pop(); item; item = stack.pop()) {
    const [first, last, limit] = item;
    const ax = points[2 * first]!;
    const ay = points[2 * first + 1]!;
    const cx = points[2 * (last % n)]! - ax;
    const cy = points[2 * (last % n) + 1]! - ay;
    const length = Math.max(cx * cx + cy * cy, 1e-12);
    let worst = limit;
    let middle = -1;
    for (let i = first + 1; i < last; i++) {
      const dx = points[2 * i]! - ax;
      const dy = points[2 * i + 1]! - ay;
      const along = Math.min(Math.max((dx * cx + dy * cy) / length, 0), 1);
      const distance = (dx - along * cx) ** 2 + (dy - along * cy) ** 2;
      if (distance > worst) {
        worst = distance;
        middle = i;
      }
    }
    if (middle < 0) continue;
    keep[middle] = 1;
    stack.push([first, middle, tolerance ** 2], [middle, last, tolerance ** 2]);
  }
  const kept: number[] = [];
  for (let i = 0; i < n; i++) if (keep[i]) kept.push(points[2 * i]!, points[2 * i + 1]!);
  return Float64Array.from(kept);
}

/** Fills polygons (even-odd rule, pixel centres) on an image: `polygons`' inverse at tolerance 0. */
export function fillPolygons(found: readonly Polygon[], height: number, width: number): Mask {
  const crossings: number[][] = Array.from({ length: height }, () => []);
  for (const { points } of found) {
    const n = points.length;
    for (let i = 0; i < n; i += 2) {
      let [ax, ay, bx, by] = [points[i]!, points[i + 1]!, points[(i + 2) % n]!, points[(i + 3) % n]!];
      if (ay > by) [ax, ay, bx, by] = [bx, by, ax, ay];
      const stop = Math.min(Math.ceil(by - 0.5), height);
      for (let y = Math.max(Math.ceil(ay - 0.5), 0); y < stop; y++) {
        crossings[y]!.push(ax + (bx - ax) * ((y + 0.5 - ay) / (by - ay)));
      }
    }
  }
  const data = new Uint8Array(width * height);
  crossings.forEach((row, y) => {
    row.sort((a, b) => a - b);
    for (let i = 0; i + 1 < row.length; i += 2) {
      const from = Math.min(Math.max(Math.ceil(row[i]! - 0.5), 0), width);
      const to = Math.min(Math.max(Math.ceil(row[i + 1]! - 0.5), 0), width);
      data.fill(1, y * width + from, y * width + to);
    }
  });
  return { x: 0, y: 0, width, height, data };
}

// --- the soft edge of a cut-out -----------------------------------------------------------------

const STEEPNESS = 4;
const MAX_EDGE = 12;

/**
 * Opacity 0..255 of the mask and its surroundings, as `Segmentation.cutout` in Python: at the
 * mask's border sigmoid(4 * logit), away from it hard, however unsure the network is.
 */
export function softAlpha(region: Region, bounds: Box, window: Window, side: number): Mask {
  const longest = Math.max(window.x1 - window.x0, window.y1 - window.y0);
  const reach = Math.min(Math.max(Math.ceil(longest / side), 1), MAX_EDGE);
  const hard = maskOf(region, bounds, reach + 1);
  const near = boxBlur(hard, reach);
  const data = new Uint8Array(hard.data.length);
  for (let y = 0, at = 0; y < hard.height; y++) {
    let from = (y + hard.y - region.y) * region.width + hard.x - region.x;
    for (let x = 0; x < hard.width; x++, at++, from++) {
      const inside = near[at]!;
      const weight = 4 * inside * (1 - inside);
      const logit = Math.min(Math.max(-STEEPNESS * region.logits[from]!, -30), 30);
      const on = hard.data[at]!;
      data[at] = Math.round(255 * (on + weight * (1 / (1 + Math.exp(logit)) - on)));
    }
  }
  return { ...hard, data };
}

/** The mean of a mask over (2 * radius + 1)^2 pixels, edges repeated. */
function boxBlur(mask: Mask, radius: number): Float32Array {
  const { width, height } = mask;
  const across = new Float32Array(width * height);
  blurLines(mask.data, across, width, 1, height, width, radius);
  const out = new Float32Array(width * height);
  blurLines(across, out, height, width, width, 1, radius);
  return out;
}

function blurLines(
  from: ArrayLike<number>,
  to: Float32Array,
  length: number,
  step: number,
  lines: number,
  lineStep: number,
  radius: number,
): void {
  const share = 1 / (2 * radius + 1);
  for (let line = 0; line < lines; line++) {
    const base = line * lineStep;
    const value = (i: number): number => from[base + Math.min(Math.max(i, 0), length - 1) * step]!;
    let sum = 0;
    for (let i = -radius; i <= radius; i++) sum += value(i);
    for (let i = 0; i < length; i++) {
      to[base + i * step] = sum * share;
      sum += value(i + radius + 1) - value(i - radius);
    }
  }
}
