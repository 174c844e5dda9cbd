/**
 * Pillow's triangle filter, number for number: support `max(1, scale)` source pixels on either
 * side of a sample, horizontally and then vertically. 8-bit planes use Pillow's fixed point
 * (22 fractional bits, rounded to 8 bits after each direction), float planes double sums.
 */

/** 8-bit samples, row by row, `stride` values a pixel of which the first `channels` count. */
export interface Plane {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  readonly stride: number;
  readonly channels: number;
}

/** Which source samples make each output sample: `count[i]` weights from sample `start[i]` on. */
interface Taps {
  readonly start: Int32Array;
  readonly count: Int32Array;
  readonly weights: Float64Array;
  readonly longest: number;
}

const PRECISION_BITS = 22;
const HALF = 2 ** (PRECISION_BITS - 1);

/** Pillow's `precompute_coeffs` for the stretch low..high of `size` samples, shown on `out`. */
function taps(size: number, low: number, high: number, out: number): Taps {
  // Pillow takes the box as single-precision numbers.
  const from = Math.fround(low);
  const scale = Math.fround(Math.fround(high) - from) / out;
  const support = Math.max(scale, 1);
  const longest = Math.ceil(support) * 2 + 1;
  const start = new Int32Array(out);
  const count = new Int32Array(out);
  const weights = new Float64Array(out * longest);
  for (let i = 0; i < out; i++) {
    const center = from + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const n = Math.min(Math.trunc(center + support + 0.5), size) - first;
    let sum = 0;
    for (let k = 0; k < n; k++) {
      const weight = Math.max(1 - Math.abs((k + first - center + 0.5) / support), 0);
      weights[i * longest + k] = weight;
      sum += weight;
    }
    if (sum !== 0) for (let k = 0; k < n; k++) weights[i * longest + k]! /= sum;
    start[i] = first;
    count[i] = n;
  }
  return { start, count, weights, longest };
}

function fixed(weights: Float64Array): Int32Array {
  return Int32Array.from(weights, (w) => Math.trunc(w * 2 ** PRECISION_BITS + (w < 0 ? -0.5 : 0.5)));
}

/** A rectangle of a plane, in its pixels; it may reach past the plane. */
export interface Rect {
  readonly x0: number;
  readonly y0: number;
  readonly x1: number;
  readonly y1: number;
}

/**
 * `plane` seen through `window`, (size, size, channels) 8 bits. What lies outside the plane is
 * `fill`, one value a channel. The longer axis goes first, as in Python, where it saves memory.
 */
export function resample8(
  plane: Plane,
  window: Rect,
  size: number,
  fill: readonly number[],
): Uint8Array {
  const { data, width, height, stride, channels } = plane;
  const across = new Span(window.x0, window.x1, size, width);
  const down = new Span(window.y0, window.y1, size, height);
  const out = new Uint8Array(size * size * channels);
  if (across.inside[0] >= across.inside[1] || down.inside[0] >= down.inside[1]) {
    for (let i = 0; i < out.length; i++) out[i] = fill[i % channels]!;
    return out;
  }
  const line = size * channels;
  if (width >= height) {
    const [top, bottom] = down.inside;
    const rows = new Uint8Array((bottom - top) * line);
    for (let y = top; y < bottom; y++) {
      shrinkLine(data, y * width * stride, stride, across, fill, rows, (y - top) * line);
    }
    addLines(rows, -top * line, line, line, down, fill, out);
  } else {
    const [left, right] = across.inside;
    const samples = (right - left) * stride;
    const columns = new Uint8Array(size * samples);
    const fills = Array.from({ length: stride }, (_, c) => fill[c] ?? 0);
    addLines(data, left * stride, width * stride, samples, down, fills, columns);
    for (let y = 0; y < size; y++) {
      shrinkLine(columns, y * samples - left * stride, stride, across, fill, out, y * line);
    }
  }
  return out;
}

/** One axis of a window: the crop pixels that see the plane, and how they are made. */
class Span {
  /** Crop pixels `first` to `last` (exclusive); the others see only padding. */
  readonly first: number;
  readonly last: number;
  /** Pixels of the plane that are read (end exclusive). */
  readonly inside: readonly [number, number];
  /** For crop pixel `first + i`: weights from `weights[i * longest]`, for plane pixels from
   * `begin[i]` to `end[i]`, and the weight `outside[i]` of padding. */
  readonly begin: Int32Array;
  readonly end: Int32Array;
  readonly outside: Float64Array;
  readonly weights: Int32Array;
  readonly longest: number;

  constructor(
    low: number,
    high: number,
    readonly size: number,
    limit: number,
  ) {
    const scale = (high - low) / size;
    const reach = Math.max(scale, 1);
    const clamp = (value: number, from: number, to: number): number =>
      Math.min(Math.max(value, from), to);
    this.first = clamp(Math.floor((-reach - low) / scale - 0.5), 0, size);
    this.last = Math.min(
      Math.max(Math.ceil((limit + reach - low) / scale + 0.5), this.first),
      size,
    );
    const near = low + this.first * scale;
    const far = low + this.last * scale;
    const start = Math.floor(near - reach);
    const stop = Math.ceil(far + reach);
    const from = clamp(start, 0, limit);
    this.inside = [from, Math.max(Math.min(stop, limit), from)];

    const seen = this.last - this.first;
    const found = taps(stop - start, near - start, far - start, seen);
    this.longest = found.longest;
    this.weights = fixed(found.weights);
    this.begin = new Int32Array(seen);
    this.end = new Int32Array(seen);
    this.outside = new Float64Array(seen);
    for (let i = 0; i < seen; i++) {
      const at = found.start[i]! + start;
      const count = found.count[i]!;
      const skip = clamp(-at, 0, count);
      const stays = clamp(limit - at, skip, count);
      for (let k = 0; k < count; k++) {
        if (k < skip || k >= stays) this.outside[i]! += this.weights[i * this.longest + k]!;
      }
      // The taps inside move to the front, so that they are found without knowing the canvas.
      this.weights.copyWithin(i * this.longest, i * this.longest + skip, i * this.longest + stays);
      this.begin[i] = at + skip;
      this.end[i] = at + stays;
    }
  }
}

/** One line of a plane, whose pixel 0 would lie at `data[from]`, along itself. */
function shrinkLine(
  data: Uint8Array | Uint8ClampedArray,
  from: number,
  stride: number,
  span: Span,
  fill: readonly number[],
  out: Uint8Array,
  to: number,
): void {
  const channels = fill.length;
  for (let i = 0; i < span.size; i++) {
    const seen = i - span.first;
    const at = to + i * channels;
    if (seen < 0 || i >= span.last) {
      for (let c = 0; c < channels; c++) out[at + c] = fill[c]!;
      continue;
    }
    const outside = span.outside[seen]!;
    const count = span.end[seen]! - span.begin[seen]!;
    let weightAt = seen * span.longest;
    let pixel = from + span.begin[seen]! * stride;
    if (channels === 3) {
      // A sum is at most 255 * 2^22 and a half: it stays a small integer, which engines like.
      let red = (HALF + outside * fill[0]!) | 0;
      let green = (HALF + outside * fill[1]!) | 0;
      let blue = (HALF + outside * fill[2]!) | 0;
      for (let k = 0; k < count; k++, pixel += stride) {
        const weight = span.weights[weightAt++]!;
        red = (red + Math.imul(weight, data[pixel]!)) | 0;
        green = (green + Math.imul(weight, data[pixel + 1]!)) | 0;
        blue = (blue + Math.imul(weight, data[pixel + 2]!)) | 0;
      }
      out[at] = clip(red);
      out[at + 1] = clip(green);
      out[at + 2] = clip(blue);
    } else {
      for (let c = 0; c < channels; c++) {
        let sum = (HALF + outside * fill[c]!) | 0;
        for (let k = 0; k < count; k++) {
          sum = (sum + Math.imul(span.weights[weightAt + k]!, data[pixel + k * stride + c]!)) | 0;
        }
        out[at + c] = clip(sum);
      }
    }
  }
}
/** Lines of `samples` values, line 0 of which would lie at `data[from]`, added to each other. */
function addLines(
  data: Uint8Array | Uint8ClampedArray,
  from: number,
  step: number,
  samples: number,
  span: Span,
  fill: readonly number[],
  out: Uint8Array,
): void {
  const sums = new Int32Array(samples);
  for (let j = 0; j < span.size; j++) {
    const seen = j - span.first;
    const to = j * samples;
    if (seen < 0 || j >= span.last) {
      for (let i = 0; i < samples; i++) out[to + i] = fill[i % fill.length]!;
      continue;
    }
    for (let i = 0; i < samples; i++) {
      sums[i] = HALF + span.outside[seen]! * fill[i % fill.length]!;
    }
    let weightAt = seen * span.longest;
    for (let y = span.begin[seen]!; y < span.end[seen]!; y++) {
      const weight = span.weights[weightAt++]!;
      const line = from + y * step;
      for (let i = 0; i < samples; i++) sums[i]! += Math.imul(weight, data[line + i]!);
    }
    for (let i = 0; i < samples; i++) out[to + i] = clip(sums[i]!);
  }
}

function clip(sum: number): number {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

/** `plane` (height, width) of floats through `box`, as (outHeight, outWidth). */
export function resampleFloat(
  plane: Float32Array,
  width: number,
  height: number,
  box: Rect,
  outWidth: number,
  outHeight: number,
): Float32Array {
  const across = taps(width, box.x0, box.x1, outWidth);
  const down = taps(height, box.y0, box.y1, outHeight);
  const firstRow = down.start[0]!;
  const lastRow = down.start[outHeight - 1]! + down.count[outHeight - 1]!;
  const rows = new Float32Array((lastRow - firstRow) * outWidth);
  for (let r = firstRow; r < lastRow; r++) {
    const to = (r - firstRow) * outWidth;
    for (let i = 0; i < outWidth; i++) {
      const from = r * width + across.start[i]!;
      const weightAt = i * across.longest;
      let sum = 0;
      for (let k = 0; k < across.count[i]!; k++) {
        sum += plane[from + k]! * across.weights[weightAt + k]!;
      }
      rows[to + i] = sum;
    }
  }
  const out = new Float32Array(outWidth * outHeight);
  const sums = new Float64Array(outWidth);
  for (let j = 0; j < outHeight; j++) {
    sums.fill(0);
    for (let k = 0; k < down.count[j]!; k++) {
      const weight = down.weights[j * down.longest + k]!;
      if (weight === 0) continue;
      const from = (down.start[j]! + k - firstRow) * outWidth;
      for (let i = 0; i < outWidth; i++) sums[i]! += rows[from + i]! * weight;
    }
    out.set(sums, j * outWidth);
  }
  return out;
}
