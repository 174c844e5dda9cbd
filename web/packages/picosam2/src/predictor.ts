/**
 * A image and prompts in, logits out: the twin of `picosam2/predictor.py`.
 *
 * A box goes through one window. A click goes through several windows of rising size in one batch;
 * a scorer that sees all of them chooses the scale, and the chosen mask's own box gives a second,
 * sharper pass. Several points are honoured by arithmetic on candidates.
 */

import {
  type Box,
  boxWindow,
  clickWindows,
  crop,
  pasteRegion,
  type RgbaImage,
  type Point,
  pointWindow,
  type Prompt,
  type Region,
  type Window,
} from "./geometry";
import type { ModelFacts } from "./metadata";
import { FEATURES, features, mapAt, type Maps } from "./scorer";

/** What a missed positive and a covered negative point take off a score; as in predictor.py. */
const MISSED_POINT = 0.4;
const COVERED_POINT = 0.05;

const BOX_CHANNEL = 0;
const CLICK_CHANNEL = 1;

/** Runs the network: crops (B, S, S, 3) RGB 8 bits to logits (B, K, S, S). */
export interface Runtime {
  readonly facts: ModelFacts;
  run(crops: Uint8Array, batch: number): Promise<Float32Array>;
}

/** One answer for a prompt. Its region is pasted when it is first looked at. */
export class Candidate {
  private pasted: Region | null;

  constructor(
    readonly window: Window,
    readonly score: number,
    region: Region | (() => Region),
  ) {
    this.pasted = typeof region === "function" ? null : region;
    this.paste = typeof region === "function" ? region : () => region;
  }

  private readonly paste: () => Region;

  get region(): Region {
    return (this.pasted ??= this.paste());
  }

  /** Whether a point's pixel is in the mask. */
  covers(point: Point): boolean {
    const { region } = this;
    const x = Math.trunc(point.x) - region.x;
    const y = Math.trunc(point.y) - region.y;
    if (x < 0 || y < 0 || x >= region.width || y >= region.height) return false;
    return region.logits[y * region.width + x]! > 0;
  }
}

/** A click's answers, one for each scale: smallest window first, and the order of their scores. */
export interface Ladder {
  readonly maps: Maps;
  readonly candidates: readonly Candidate[];
  readonly order: readonly number[];
}

/** Clicks whose ladders are kept, so that another point or another scale is quick. */
const KEPT = 48;

/** Answers prompts on one image. */
export class Predictor {
  private readonly ladders = new Map<string, Ladder>();
  private readonly refined = new WeakMap<Candidate, Candidate>();

  constructor(
    private readonly runtime: Runtime,
    readonly image: RgbaImage,
  ) {}

  /**
   * All answers for a prompt, best first. `choice` overrules the scorer for a prompt of one point:
   * the ladder's window of that index, counted from the smallest.
   */
  async candidates(prompt: Prompt, choice: number | null = null): Promise<Candidate[]> {
    const first: Candidate[] = [];
    const byPoint = new Map<Point, Candidate[]>();
    const around = span(prompt);
    if (prompt.box) first.push(await this.box(prompt.box));
    if (around) first.push(await this.box(around));
    const single = prompt.points.length === 1 && !prompt.box;
    for (const point of prompt.points) {
      const ladder = await this.ladder(point);
      const order =
        single && choice !== null && ladder.candidates[choice]
          ? [choice, ...ladder.order.filter((i) => i !== choice)]
          : ladder.order;
      const found = order.map((i) => ladder.candidates[i]!);
      found[0] = await this.secondPass(found[0]!);
      byPoint.set(point, found);
      if (!prompt.box && point.positive) first.push(...found);
    }
    return this.combine(prompt, first, byPoint);
  }

  /** One candidate for a box, from its window. */
  async box(box: Box): Promise<Candidate> {
    const { facts } = this.runtime;
    const { height, width } = this.image;
    const window = boxWindow(box, facts.boxGrowth, facts.boxMaxAspect);
    const maps = await this.maps([window], BOX_CHANNEL);
    const found = features(maps, height, width);
    const score = facts.boxScorer ? facts.boxScorer.score(found)[0]! : found[1]!;
    return this.candidate(maps, 0, score);
  }

  /** The candidates of a click, one a scale, all in one batch. */
  async ladder(point: Point): Promise<Ladder> {
    const key = `${point.x},${point.y}`;
    const kept = this.ladders.get(key);
    if (kept) return kept;
    const { height, width } = this.image;
    const maps = await this.maps(this.clickWindows(point), CLICK_CHANNEL);
    const scores = this.scores(features(maps, height, width), maps.windows.length);
    const ladder = {
      maps,
      candidates: scores.map((score, i) => this.candidate(maps, i, score)),
      order: scores.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]!),
    };
    if (this.ladders.size >= KEPT) {
      for (const oldest of this.ladders.keys()) {
        this.ladders.delete(oldest);
        break;
      }
    }
    this.ladders.set(key, ladder);
    return ladder;
  }

  /** One scale of a click alone: what there is time for while the pointer moves. */
  async glimpse(point: Point, scale: number): Promise<{ candidate: Candidate; found: Float32Array }> {
    const { height, width } = this.image;
    const window = this.clickWindows(point)[scale]!;
    const maps = await this.maps([window], CLICK_CHANNEL);
    const found = features(maps, height, width);
    return { candidate: this.candidate(maps, 0, withoutScorer(found, 0)), found };
  }

  clickWindows(point: Point): Window[] {
    const { facts } = this.runtime;
    if (facts.native) return [pointWindow(point.x, point.y, facts.inputSize / 2)];
    const { height, width } = this.image;
    return clickWindows(point.x, point.y, height, width, facts.clickHalves);
  }

  /** A candidate again, through the box window of its mask, averaged with the first pass. */
  async secondPass(first: Candidate): Promise<Candidate> {
    const kept = this.refined.get(first);
    if (kept) return kept;
    const bounds = this.runtime.facts.native ? null : boundsOf(first.region);
    const result = bounds ? blend(first, await this.box(bounds)) : first;
    this.refined.set(first, result);
    return result;
  }

  private scores(found: Float32Array, count: number): number[] {
    const scorer = this.runtime.facts.clickScorer;
    if (scorer) return scorer.score(found);
    return Array.from({ length: count }, (_, i) => withoutScorer(found, i));
  }

  private candidate(maps: Maps, index: number, score: number): Candidate {
    const { height, width } = this.image;
    const window = maps.windows[index]!;
    const map = mapAt(maps, index);
    return new Candidate(window, score, () => pasteRegion(map, maps.side, window, height, width));
  }

  private async maps(windows: readonly Window[], channel: number): Promise<Maps> {
    const { facts } = this.runtime;
    const { inputSize, outputSize: side } = facts;
    const bytes = inputSize * inputSize * 3;
    const crops = new Uint8Array(windows.length * bytes);
    windows.forEach((window, i) => {
      crops.set(crop(this.image, window, inputSize, facts.pad), i * bytes);
    });
    const all = await this.runtime.run(crops, windows.length);
    const size = side * side;
    const logits = new Float32Array(windows.length * size);
    const from = Math.min(channel, facts.channels - 1);
    for (let i = 0; i < windows.length; i++) {
      const at = (i * facts.channels + from) * size;
      logits.set(all.subarray(at, at + size), i * size);
    }
    return { logits, side, windows };
  }

  /** Candidates by score and by points; the best one mended where it does not agree with one. */
  private combine(
    prompt: Prompt,
    found: readonly Candidate[],
    byPoint: ReadonlyMap<Point, readonly Candidate[]>,
  ): Candidate[] {
    if (prompt.points.length + (prompt.box ? 1 : 0) === 1) return [...found];
    const wrong = (candidate: Candidate): Point[] =>
      prompt.points.filter((point) => point.positive !== candidate.covers(point));
    const worth = (candidate: Candidate): number =>
      wrong(candidate).reduce(
        (left, point) => left - (point.positive ? MISSED_POINT : COVERED_POINT), candidate.score,
      );
    const ordered = found
      .map((candidate) => ({ candidate, worth: worth(candidate) }))
      .sort((a, b) => b.worth - a.worth)
      .map((item) => item.candidate);
    const best = ordered[0]!;
    if (wrong(best).length === 0) return ordered;

    const { height, width } = this.image;
    const full = new Float32Array(width * height).fill(this.runtime.facts.outsideLogit);
    const covered = (point: Point): boolean =>
      full[Math.trunc(point.y) * width + Math.trunc(point.x)]! > 0;
    each(best.region, width, (at, logit) => (full[at] = logit));
    const on = prompt.points.filter((point) => point.positive);
    for (const point of on) {
      const own = byPoint.get(point)!.find((c) => c.covers(point));
      if (!own || covered(point)) continue;
      each(own.region, width, (at, logit) => (full[at] = Math.max(full[at]!, logit)));
    }
    for (const point of prompt.points) {
      if (point.positive || !covered(point)) continue;
      const own = byPoint.get(point)!.filter((c) => c.covers(point) && !on.some((k) => c.covers(k)));
      if (own.length === 0) continue;
      const sizes = own.map((c) => c.region.logits.reduce((n, v) => n + (v > 0 ? 1 : 0), 0));
      const largest = own[sizes.indexOf(Math.max(...sizes))]!;
      each(largest.region, width, (at, logit) => (full[at] = Math.min(full[at]!, -logit)));
    }
    const mended = new Candidate(best.window, best.score, { x: 0, y: 0, width, height, logits: full });
    return [mended, ...ordered.slice(1)];
  }
}

/** Without a learned scorer: sure, and not running out of its window. */
function withoutScorer(found: Float32Array, index: number): number {
  const one = found.subarray(index * FEATURES.length, (index + 1) * FEATURES.length);
  const contact = Math.max(one[7]!, one[8]!, one[9]!, one[10]!);
  return one[0]! > 0 ? one[1]! * (1 - contact) : 0;
}

/** The box around several positive points, if it has an area and no box says better. */
export function span(prompt: Prompt): Box | null {
  const places = prompt.points.filter((point) => point.positive);
  if (prompt.box || places.length < 2) return null;
  const xs = places.map((point) => point.x);
  const ys = places.map((point) => point.y);
  const [x0, y0] = [Math.min(...xs), Math.min(...ys)];
  const [x1, y1] = [Math.max(...xs), Math.max(...ys)];
  // The points lie inside the object, not on its outline.
  const grow = 0.25 * Math.max(x1 - x0, y1 - y0);
  return grow > 0 ? { x0: x0 - grow, y0: y0 - grow, x1: x1 + grow, y1: y1 + grow } : null;
}

/** The tight box of a region's mask in the image, its end exclusive; null if it is empty. */
export function boundsOf(region: Region): Box | null {
  const { width, height, logits } = region;
  let x0 = width, y0 = height, x1 = 0, y1 = 0;
  for (let y = 0; y < height; y++) {
    const row = y * width;
    let left = 0;
    while (left < width && !(logits[row + left]! > 0)) left++;
    if (left === width) continue;
    let right = width;
    while (!(logits[row + right - 1]! > 0)) right--;
    x0 = Math.min(x0, left);
    x1 = Math.max(x1, right);
    y0 = Math.min(y0, y);
    y1 = y + 1;
  }
  if (y1 === 0) return null;
  return { x0: x0 + region.x, y0: y0 + region.y, x1: x1 + region.x, y1: y1 + region.y };
}

/** The mean of both passes' logits where both see; the first's score, which knows the scale. */
function blend(first: Candidate, second: Candidate): Candidate {
  const a = first.region;
  const b = second.region;
  const logits = b.logits.slice();
  const x0 = Math.max(a.x, b.x);
  const x1 = Math.min(a.x + a.width, b.x + b.width);
  const y1 = Math.min(a.y + a.height, b.y + b.height);
  for (let y = Math.max(a.y, b.y); y < y1; y++) {
    let from = (y - a.y) * a.width + x0 - a.x;
    let at = (y - b.y) * b.width + x0 - b.x;
    for (let x = x0; x < x1; x++, from++, at++) logits[at] = (logits[at]! + a.logits[from]!) / 2;
  }
  return new Candidate(second.window, first.score, { ...b, logits });
}

function each(region: Region, stride: number, visit: (at: number, logit: number) => void): void {
  for (let y = 0, from = 0; y < region.height; y++) {
    const row = (y + region.y) * stride + region.x;
    for (let x = 0; x < region.width; x++) visit(row + x, region.logits[from++]!);
  }
}
