/**
 * How good is each candidate of a prompt? The twin of `picosam2/scorer.py`: the same measurements,
 * and a perceptron whose weights come from the model file.
 */

import { heightOf, type Window, widthOf } from "./geometry.ts";
import { type Rect, resampleFloat } from "./resample.ts";

export const FEATURES = [
  "area", "stability", "loose_stability", "inside", "outside", "edge_share", "centre",
  "left", "top", "right", "bottom", "width", "height", "fill", "beyond",
  "agree_larger", "agree_smaller", "grows",
] as const;

const COUNT = FEATURES.length;
const GRID = 32;

/** Logit maps of one prompt, smallest window first: (windows.length, side, side). */
export interface Maps {
  readonly logits: Float32Array;
  readonly side: number;
  readonly windows: readonly Window[];
}

export function mapAt(maps: Maps, index: number): Float32Array {
  const size = maps.side * maps.side;
  return maps.logits.subarray(index * size, (index + 1) * size);
}

/** The `FEATURES` of one prompt's candidates: (N, F), in single precision as in Python. */
export function features(maps: Maps, height: number, width: number): Float32Array {
  const n = maps.windows.length;
  const out = new Float32Array(n * COUNT);
  for (let i = 0; i < n; i++) {
    out.set(measure(mapAt(maps, i), maps.side), i * COUNT);
    out[i * COUNT + 14] = beyond(maps.windows[i]!, height, width);
  }
  agreement(maps, out);
  return out;
}

function measure(logits: Float32Array, side: number): Float32Array {
  const total = side * side;
  const columns = new Uint8Array(side);
  const rows = new Uint8Array(side);
  const border = { left: 0, top: 0, right: 0, bottom: 0 };
  let on = 0;
  let tightIn = 0, tightOut = 0, looseIn = 0, looseOut = 0;
  let inside = 0, outside = 0, unsure = 0;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const value = logits[y * side + x]!;
      const probability = sigmoid(value);
      if (value > 0) {
        on++;
        columns[x] = rows[y] = 1;
        inside += probability;
        if (x === 0) border.left++;
        if (y === 0) border.top++;
        if (x === side - 1) border.right++;
        if (y === side - 1) border.bottom++;
      } else {
        outside += 1 - probability;
      }
      if (value > 1) tightIn++;
      if (value > -1) tightOut++;
      if (value > 3) looseIn++;
      if (value > -3) looseOut++;
      if (Math.abs(value) < 1) unsure++;
    }
  }
  const found = Math.max(on, 1);
  const middle = (side >> 1) - 2;
  let centre = 0;
  for (let y = middle; y < middle + 4; y++) {
    for (let x = middle; x < middle + 4; x++) centre += logits[y * side + x]!;
  }
  const area = on / total;
  const spanX = sum(columns) / side;
  const spanY = sum(rows) / side;
  return Float32Array.of(
    area,
    tightIn / Math.max(tightOut, 1),
    looseIn / Math.max(looseOut, 1),
    inside / found,
    outside / Math.max(total - on, 1),
    unsure / Math.sqrt(found * side),
    Math.tanh(centre / 16 / 4),
    border.left / side,
    border.top / side,
    border.right / side,
    border.bottom / side,
    spanX,
    spanY,
    area / Math.max(spanX * spanY, 1e-6),
  );
}

function sum(values: Uint8Array): number {
  return values.reduce((total, value) => total + value, 0);
}

/** The share of a window that lies outside the image. */
function beyond(window: Window, height: number, width: number): number {
  const x = Math.max(Math.min(window.x1, width) - Math.max(window.x0, 0), 0);
  const y = Math.max(Math.min(window.y1, height) - Math.max(window.y0, 0), 0);
  return 1 - (x * y) / (widthOf(window) * heightOf(window));
}

/** IoU with the next larger and next smaller window on what both see, and the area's growth. */
function agreement(maps: Maps, out: Float32Array): void {
  const { side, windows } = maps;
  for (let small = 0; small + 1 < windows.length; small++) {
    const ratio = widthOf(windows[small]!) / widthOf(windows[small + 1]!);
    const low = (side * (1 - ratio)) / 2;
    const high = (side * (1 + ratio)) / 2;
    const whole: Rect = { x0: 0, y0: 0, x1: side, y1: side };
    const part: Rect = { x0: low, y0: low, x1: high, y1: high };
    const largeMap = mapAt(maps, small + 1);
    const fine = resampleFloat(mapAt(maps, small), side, side, whole, GRID, GRID);
    const coarse = resampleFloat(largeMap, side, side, part, GRID, GRID);
    let both = 0, either = 0, fineArea = 0;
    for (let i = 0; i < fine.length; i++) {
      const a = fine[i]! > 0;
      const b = coarse[i]! > 0;
      if (a) fineArea++;
      if (a && b) both++;
      if (a || b) either++;
    }
    const agree = either ? both / either : 1;
    const area = largeMap.reduce((n, value) => n + (value > 0 ? 1 : 0), 0) / (side * side);
    const growth = ((fineArea / (GRID * GRID)) * ratio ** 2 + 1e-3) / (area + 1e-3);
    out[small * COUNT + 15] = agree;
    out[(small + 1) * COUNT + 16] = agree;
    out[small * COUNT + 17] = Math.min(growth, 4);
  }
}

/** A perceptron with one hidden layer over the features of all candidates at once. */
export class Scorer {
  readonly candidates: number;

  private constructor(
    private readonly mean: number[],
    private readonly scale: number[],
    private readonly hidden: number[][],
    private readonly hiddenBias: number[],
    private readonly out: number[][],
    private readonly outBias: number[],
  ) {
    this.candidates = outBias.length;
  }

  /** Reads what Python's `Scorer.to_json` wrote; throws if it measures other things. */
  static fromJson(value: unknown): Scorer {
    const said = value as Record<string, unknown>;
    const named = (key: string): unknown => {
      if (said === null || typeof said !== "object" || !(key in said)) {
        throw new Error(`the model's scorer has no ${key}`);
      }
      return said[key];
    };
    if (JSON.stringify(named("features")) !== JSON.stringify(FEATURES)) {
      throw new Error("the model's scorer measures other features than this page");
    }
    const scorer = new Scorer(
      numbers(named("mean")),
      numbers(named("scale")),
      (named("hidden") as unknown[]).map(numbers),
      numbers(named("hidden_bias")),
      (named("out") as unknown[]).map(numbers),
      numbers(named("out_bias")),
    );
    const inputs = scorer.candidates * COUNT;
    const units = scorer.hiddenBias.length;
    if (
      scorer.mean.length !== inputs ||
      scorer.scale.length !== inputs ||
      scorer.hidden.length !== inputs ||
      scorer.hidden.some((row) => row.length !== units) ||
      scorer.out.length !== units ||
      scorer.out.some((row) => row.length !== scorer.candidates)
    ) {
      throw new Error("the shapes of the model's scorer do not fit");
    }
    return scorer;
  }

  /** The features (N, F) of N candidates to their predicted IoU, 0..1. */
  score(found: Float32Array): number[] {
    const hidden = [...this.hiddenBias];
    for (let i = 0; i < this.mean.length; i++) {
      const x = (found[i]! - this.mean[i]!) * this.scale[i]!;
      const row = this.hidden[i]!;
      for (let j = 0; j < hidden.length; j++) hidden[j]! += x * row[j]!;
    }
    const raw = [...this.outBias];
    hidden.forEach((value, j) => {
      if (value > 0) for (let k = 0; k < raw.length; k++) raw[k]! += value * this.out[j]![k]!;
    });
    return raw.map(sigmoid);
  }
}

function numbers(value: unknown): number[] {
  if (!Array.isArray(value) || !value.every((v): v is number => Number.isFinite(v))) {
    throw new Error("the model's scorer is not made of numbers");
  }
  return value;
}

function sigmoid(value: number): number {
  return 1 / (1 + Math.exp(-Math.min(Math.max(value, -30), 30)));
}
