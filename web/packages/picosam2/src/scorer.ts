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
const [LARGER, SMALLER, GROWS] = [15, 16, 17] as const;

/** The patience of scorers that were fitted before it was fitted, too. */
const PATIENCE = 0.05;

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
    measureAlone(out, i, mapAt(maps, i), maps.side, maps.windows[i]!, height, width);
    if (i > 0) compare(out, i - 1, mapAt(maps, i - 1), mapAt(maps, i), maps.side, maps.windows);
  }
  return out;
}

/** Writes what is measured of candidate `index` alone into its features. */
function measureAlone(
  out: Float32Array, index: number, map: Float32Array, side: number, window: Window, height: number, width: number,
): void {
  out.set(measure(map, side), index * COUNT);
  out[index * COUNT + 14] = beyond(window, height, width);
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

/**
 * Writes what two neighbouring candidates, `small` and the next, say of each other into their features:
 * their IoU on what both see, and how much the area grows in the larger window.
 */
function compare(
  out: Float32Array, small: number, map: Float32Array, largeMap: Float32Array, side: number, windows: readonly Window[],
): void {
  const ratio = widthOf(windows[small]!) / widthOf(windows[small + 1]!);
  const low = (side * (1 - ratio)) / 2;
  const high = (side * (1 + ratio)) / 2;
  const whole: Rect = { x0: 0, y0: 0, x1: side, y1: side };
  const part: Rect = { x0: low, y0: low, x1: high, y1: high };
  const fine = resampleFloat(map, side, side, whole, GRID, GRID);
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
  out[small * COUNT + LARGER] = agree;
  out[(small + 1) * COUNT + SMALLER] = agree;
  out[small * COUNT + GROWS] = Math.min(growth, 4);
}

/**
 * A perceptron with one hidden layer over the features of all candidates at once. Features that are not
 * known are NaN, and count as their mean.
 */
export class Scorer {
  readonly candidates: number;

  private constructor(
    private readonly mean: number[],
    private readonly scale: number[],
    private readonly hidden: number[][],
    private readonly hiddenBias: number[],
    private readonly out: number[][],
    private readonly outBias: number[],
    /** The window that a click is looked at first, if the scorer predicts of others what they will give. */
    readonly start: number | null,
    /** With a `start`: a window is worth a look if the IoU expected of it is above the best one's less this. */
    readonly patience: number,
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
      (said["start"] ?? null) as number | null,
      (said["patience"] ?? PATIENCE) as number,
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
    const { start } = scorer;
    if (start !== null && !(Number.isInteger(start) && start >= 0 && start < scorer.candidates)) {
      throw new Error("the model's scorer starts with a window that it does not know");
    }
    if (typeof scorer.patience !== "number" || !(scorer.patience >= 0 && scorer.patience <= 1)) {
      throw new Error("the patience of the model's scorer is not within 0..1");
    }
    return scorer;
  }

  /** The features (N, F) of N candidates to their predicted IoU, 0..1. */
  score(found: Float32Array): number[] {
    const hidden = [...this.hiddenBias];
    for (let i = 0; i < this.mean.length; i++) {
      const x = (found[i]! - this.mean[i]!) * this.scale[i]!;
      if (Number.isNaN(x)) continue;
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

/** The score of a candidate by its features, without a learned scorer: sure, and not running out of its window. */
export function ruleScore(measured: Float32Array, index: number): number {
  const one = measured.subarray(index * COUNT, (index + 1) * COUNT);
  const contact = Math.max(one[7]!, one[8]!, one[9]!, one[10]!);
  return one[0]! > 0 ? one[1]! * (1 - contact) : 0;
}

/**
 * A click's windows, and what those that the network has looked through say of all of them. With a scorer
 * that has a `start`, that window comes first; then the one that the scorer expects most of, as long as this
 * is more than the best one's predicted IoU less its patience. Otherwise all windows come at once.
 */
export class Ladder {
  /** Logits (side, side) of the windows that were looked through, by their place. */
  readonly maps = new Map<number, Float32Array>();
  private readonly features: Float32Array;

  constructor(
    /** Smallest first. */
    readonly windows: readonly Window[],
    readonly side: number,
    private readonly height: number,
    private readonly width: number,
    private readonly scorer: Scorer | null,
  ) {
    this.features = new Float32Array(windows.length * COUNT).fill(NaN);
    // Beyond the smallest and the largest there is nothing to agree with.
    const last = (windows.length - 1) * COUNT;
    this.features[SMALLER] = this.features[last + LARGER] = this.features[last + GROWS] = 0;
  }

  /** Takes in the logits of the windows at some places. */
  add(places: readonly number[], maps: Maps): void {
    places.forEach((place, i) => {
      const map = mapAt(maps, i).slice();
      this.maps.set(place, map);
      measureAlone(this.features, place, map, this.side, this.windows[place]!, this.height, this.width);
    });
    for (let small = 0; small + 1 < this.windows.length; small++) {
      const [map, large] = [this.maps.get(small), this.maps.get(small + 1)];
      if (!map || !large || !(places.includes(small) || places.includes(small + 1))) continue;
      compare(this.features, small, map, large, this.side, this.windows);
    }
  }

  /** The places of the windows to look through next; none when the best one is known. */
  wanted(): number[] {
    const { start, patience } = this.scorer ?? { start: null, patience: 0 };
    if (start === null) return this.maps.size > 0 ? [] : this.missing();
    if (this.maps.size === 0) return [start];
    const missing = this.missing();
    if (missing.length === 0) return [];
    const scores = this.scores();
    const next = missing.reduce((most, place) => (scores[place]! > scores[most]! ? place : most));
    const best = Math.max(...[...this.maps.keys()].map((place) => scores[place]!));
    return scores[next]! > best - patience ? [next] : [];
  }

  /** The places of the windows that were not looked through. */
  missing(): number[] {
    return this.windows.map((_, place) => place).filter((place) => !this.maps.has(place));
  }

  /** The predicted IoU of each window; of those not looked through what is expected. */
  scores(): number[] {
    if (this.scorer) return this.scorer.score(this.features);
    return this.windows.map((_, place) => ruleScore(this.features, place));
  }

  /** The places that were looked through, best first, with their predicted IoU. */
  ranked(): { place: number; score: number }[] {
    const scores = this.scores();
    return [...this.maps.keys()]
      .map((place) => ({ place, score: scores[place]! }))
      .sort((a, b) => b.score - a.score || a.place - b.place);
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
