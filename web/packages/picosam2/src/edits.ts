/** Masks changed by hand: painted, grown, shrunk, softened; and masks from files. */

import type { Box } from "./geometry.ts";
import { bounds, fillPolygons, type Mask, rleDecode, type Rle } from "./masks.ts";

/** A mask that is 1 nowhere. */
export const NO_MASK: Mask = { x: 0, y: 0, width: 0, height: 0, data: new Uint8Array(0) };

/** The mask cut to its own box; null if it is empty. */
export function trimmed(mask: Mask): Mask | null {
  const box = bounds(mask);
  return box && cut(mask, box);
}

/** The mask's pixels inside a box of whole pixels, which may reach past it. */
export function cut(mask: Mask, box: Box): Mask {
  const width = box.x1 - box.x0;
  const height = box.y1 - box.y0;
  const data = new Uint8Array(width * height);
  const left = Math.max(box.x0, mask.x);
  const right = Math.min(box.x1, mask.x + mask.width);
  for (let y = Math.max(box.y0, mask.y); y < Math.min(box.y1, mask.y + mask.height); y++) {
    if (right <= left) break;
    const from = (y - mask.y) * mask.width + left - mask.x;
    data.set(mask.data.subarray(from, from + right - left), (y - box.y0) * width + left - box.x0);
  }
  return { x: box.x0, y: box.y0, width, height, data };
}

/**
 * A stroke through places (x, y in turn) with a round brush, added to a mask or taken away from it.
 * Null if nothing is left.
 */
export function paint(
  mask: Mask | null,
  places: readonly number[],
  radius: number,
  add: boolean,
  width: number,
  height: number,
): Mask | null {
  const xs = places.filter((_, i) => i % 2 === 0);
  const ys = places.filter((_, i) => i % 2 === 1);
  if (xs.length === 0) return mask && trimmed(mask);
  const clampX = (x: number): number => Math.min(Math.max(x, 0), width);
  const clampY = (y: number): number => Math.min(Math.max(y, 0), height);
  const stroke: Box = {
    x0: clampX(Math.floor(Math.min(...xs) - radius)),
    y0: clampY(Math.floor(Math.min(...ys) - radius)),
    x1: clampX(Math.ceil(Math.max(...xs) + radius)),
    y1: clampY(Math.ceil(Math.max(...ys) + radius)),
  };
  const old = mask ?? NO_MASK;
  const has = old.width > 0 && old.height > 0;
  const box = !has
    ? stroke
    : {
        x0: Math.min(stroke.x0, old.x),
        y0: Math.min(stroke.y0, old.y),
        x1: Math.max(stroke.x1, old.x + old.width),
        y1: Math.max(stroke.y1, old.y + old.height),
      };
  if (box.x1 <= box.x0 || box.y1 <= box.y0) return null;
  const out = cut(old, box);
  const value = add ? 1 : 0;
  for (let i = 0; i < xs.length; i++) {
    const [ax, ay] = [xs[Math.max(i - 1, 0)]!, ys[Math.max(i - 1, 0)]!];
    line(out, ax, ay, xs[i]!, ys[i]!, radius, value, stroke);
  }
  return trimmed(out);
}

/** Sets the pixels whose centers are within `radius` of a line. */
function line(
  out: Mask, ax: number, ay: number, bx: number, by: number, radius: number, value: number, limit: Box,
): void {
  const y0 = Math.max(Math.floor(Math.min(ay, by) - radius), limit.y0);
  const y1 = Math.min(Math.ceil(Math.max(ay, by) + radius), limit.y1);
  const x0 = Math.max(Math.floor(Math.min(ax, bx) - radius), limit.x0);
  const x1 = Math.min(Math.ceil(Math.max(ax, bx) + radius), limit.x1);
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const [px, py] = [x + 0.5 - ax, y + 0.5 - ay];
      const along = length > 0 ? Math.min(Math.max((px * dx + py * dy) / length, 0), 1) : 0;
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) {
        out.data[(y - out.y) * out.width + x - out.x] = value;
      }
    }
  }
}

/** The mask one pixel larger (through edges) within the image. */
export function grown(mask: Mask, width: number, height: number): Mask {
  const out = cut(mask, {
    x0: Math.max(mask.x - 1, 0),
    y0: Math.max(mask.y - 1, 0),
    x1: Math.min(mask.x + mask.width + 1, width),
    y1: Math.min(mask.y + mask.height + 1, height),
  });
  const from = out.data.slice();
  for (let i = 0; i < from.length; i++) {
    if (!from[i]) continue;
    const x = i % out.width;
    if (x > 0) out.data[i - 1] = 1;
    if (x + 1 < out.width) out.data[i + 1] = 1;
    if (i >= out.width) out.data[i - out.width] = 1;
    if (i + out.width < from.length) out.data[i + out.width] = 1;
  }
  return out;
}

/** The mask one pixel smaller; null if nothing is left. The image's border is no edge of it. */
export function shrunk(mask: Mask, width: number, height: number): Mask | null {
  const { data } = mask;
  const out = data.slice();
  for (let y = 0, i = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++, i++) {
      const off = (dx: number, dy: number): boolean => {
        const [ix, iy] = [x + dx + mask.x, y + dy + mask.y];
        if (ix < 0 || iy < 0 || ix >= width || iy >= height) return false;
        if (x + dx < 0 || y + dy < 0 || x + dx >= mask.width || y + dy >= mask.height) return true;
        return data[(y + dy) * mask.width + x + dx] === 0;
      };
      if (data[i] && (off(-1, 0) || off(1, 0) || off(0, -1) || off(0, 1))) out[i] = 0;
    }
  }
  return trimmed({ ...mask, data: out });
}

/** A mask out of a file. */
export interface FileMask {
  readonly name: string | null;
  readonly mask: Mask;
}

/** A file that holds no mask for the image. The message is for the user. */
export class MaskFileError extends Error {}

/** The bright pixels of an image of the same size: a mask as this library writes it. */
export function maskFromPixels(
  rgba: Uint8Array | Uint8ClampedArray,
  width: number,
  height: number,
): Mask | null {
  const data = new Uint8Array(width * height);
  for (let i = 0; i < data.length; i++) {
    const brightness = (rgba[i * 4]! + rgba[i * 4 + 1]! + rgba[i * 4 + 2]!) / 3;
    if (brightness > 127 && rgba[i * 4 + 3]! > 127) data[i] = 1;
  }
  return trimmed({ x: 0, y: 0, width, height, data });
}

interface CocoFile {
  images?: { id: unknown; file_name?: string; width?: number; height?: number }[];
  categories?: { id: unknown; name?: string }[];
  annotations?: {
    image_id?: unknown;
    category_id?: unknown;
    segmentation?: number[][] | { size: [number, number]; counts: string | number[] };
  }[];
}

/** The masks for an image in a COCO file: of the image of its name, or of the only one. */
export function readCoco(text: string, fileName: string, width: number, height: number): FileMask[] {
  let file: CocoFile;
  try {
    file = JSON.parse(text) as CocoFile;
  } catch {
    throw new MaskFileError("this is no JSON file");
  }
  if (!Array.isArray(file?.annotations)) throw new MaskFileError("this JSON file has no annotations");
  const images = file.images ?? [];
  const image = images.find(({ file_name }) => file_name === fileName) ?? (images.length === 1 ? images[0] : null);
  if (images.length > 0 && !image) throw new MaskFileError(`no image in this file is called ${fileName}`);
  if (image && (image.width !== width || image.height !== height)) {
    throw new MaskFileError(
      `the masks are for ${image.width} x ${image.height} pixels, the image has ${width} x ${height}`,
    );
  }
  const names = new Map((file.categories ?? []).map(({ id, name }) => [id, name]));
  const found = file.annotations
    .filter(({ image_id }) => !image || image_id === image.id)
    .flatMap(({ segmentation, category_id }): FileMask[] => {
      if (!segmentation || (Array.isArray(segmentation) && segmentation.length === 0)) return [];
      const mask = trimmed(cocoMask(segmentation, width, height));
      return mask ? [{ name: names.get(category_id) ?? null, mask }] : [];
    });
  if (found.length === 0) throw new MaskFileError("this file has no mask for the image");
  return found;
}

function cocoMask(
  segmentation: number[][] | { size: [number, number]; counts: string | number[] },
  width: number,
  height: number,
): Mask {
  if (Array.isArray(segmentation)) {
    const rings = segmentation.map((points) => ({ points: Float64Array.from(points), hole: false }));
    // Each ring is a piece of its own: where two lie over each other both count.
    return rings
      .map((ring) => fillPolygons([ring], height, width))
      .reduce((all, one) => ({ ...all, data: all.data.map((value, i) => value | one.data[i]!) }));
  }
  const [rows, columns] = segmentation.size;
  if (rows !== height || columns !== width) {
    throw new MaskFileError(`a mask is for ${columns} x ${rows} pixels, the image has ${width} x ${height}`);
  }
  const { counts } = segmentation;
  try {
    return typeof counts === "string" ? rleDecode(segmentation as Rle) : fromRuns(counts, width, height);
  } catch {
    throw new MaskFileError("a mask in this file is damaged");
  }
}

/** Uncompressed runs, column by column, background first. */
function fromRuns(counts: readonly number[], width: number, height: number): Mask {
  const data = new Uint8Array(width * height);
  let at = 0;
  counts.forEach((count, i) => {
    for (let k = at; i % 2 === 1 && k < at + count; k++) {
      data[(k % height) * width + Math.floor(k / height)] = 1;
    }
    at += count;
  });
  if (at !== data.length) throw new Error("the runs do not fill the image");
  return { x: 0, y: 0, width, height, data };
}

/** Opacity 0..255 of a mask with an edge that fades over `radius` pixels to either side. */
export function feathered(mask: Mask, radius: number, width: number, height: number): Mask {
  const out = cut(mask, {
    x0: Math.max(mask.x - radius, 0),
    y0: Math.max(mask.y - radius, 0),
    x1: Math.min(mask.x + mask.width + radius, width),
    y1: Math.min(mask.y + mask.height + radius, height),
  });
  if (radius <= 0) return { ...out, data: out.data.map((value) => value * 255) };
  // Two box blurs make a tent, which fades evenly.
  const half = Math.max(1, Math.round(radius / 2));
  let values = Float32Array.from(out.data, (value) => value * 255);
  for (let pass = 0; pass < 2; pass++) values = blurred(values, out.width, out.height, half);
  return { ...out, data: Uint8Array.from(values, Math.round) };
}

function blurred(values: Float32Array<ArrayBuffer>, width: number, height: number, radius: number): Float32Array<ArrayBuffer> {
  const across = new Float32Array(values.length);
  lines(values, across, width, 1, height, width, radius);
  const out = new Float32Array(values.length);
  lines(across, out, height, width, width, 1, radius);
  return out;
}

function lines(
  from: Float32Array, to: Float32Array,
  length: number, step: number, count: number, countStep: number, radius: number,
): void {
  for (let line = 0; line < count; line++) {
    const base = line * countStep;
    const value = (i: number): number => from[base + Math.min(Math.max(i, 0), length - 1) * step]!;
    let sum = 0;
    for (let i = -radius; i <= radius; i++) sum += value(i);
    for (let i = 0; i < length; i++) {
      to[base + i * step] = sum / (2 * radius + 1);
      sum += value(i + radius + 1) - value(i - radius);
    }
  }
}
