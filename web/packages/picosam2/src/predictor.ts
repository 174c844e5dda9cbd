/**
 * An image and prompts in, logits out: the twin of `picosam2/predictor.py`.
 *
 * A box goes through one window. A click goes through several windows of rising size in one batch;
 * a scorer that sees all of them chooses the scale, and the chosen mask's own box gives a second,
 * sharper pass. Every further click corrects the mask so far, with weights that take guidance; without
 * it several points are honoured by arithmetic on candidates.
 */

import {
  type Box,
  boxWindow,
  clickWindows,
  heightOf,
  pasteRegion,
  type Point,
  pointWindow,
  type Prompt,
  type Region,
  type RgbaImage,
  type Window,
  widthOf,
} from "./geometry.ts";
import { drawPlanes, followingBox, PLANES, probability, settled } from "./guidance.ts";
import { bounds, type Mask } from "./masks.ts";
import type { ModelFacts } from "./metadata.ts";
import { Pyramid } from "./pyramid.ts";
import { obeyed, union } from "./refine.ts";
import type { Rect } from "./resample.ts";
import { features, Ladder, mapAt, type Maps, ruleScore } from "./scorer.ts";

/** What a missed positive and a covered negative point take off a score; as in predictor.py. */
const MISSED_POINT = 0.4;
const COVERED_POINT = 0.05;

const BOX_CHANNEL = 0;
const CLICK_CHANNEL = 1;

/** Masks are measured on a grid that has at most this many cells along the long side of what was looked at. */
const GRID_SIDE = 1280;

/** Cells across the window of a glimpse: its outline is for the eye, while the pointer moves. */
const GLIMPSE_SIDE = 320;

/**
 * Runs the network: crops (B, S, S, 3) RGB 8 bits, with guidance (B, 3, S, S) if it takes any, to
 * logits (B, K, s, s). No guidance is the same as zeros.
 */
export interface Runtime {
  readonly facts: ModelFacts;
  run(crops: Uint8Array, batch: number, guidance?: Float32Array | null): Promise<Float32Array>;
}

/** The image's pixels (step 1), or squares of `step` x `step` of them. */
export interface Grid {
  readonly step: number;
  readonly width: number;
  readonly height: number;
}

function gridOf(width: number, height: number, step: number): Grid {
  return { step, width: Math.ceil(width / step), height: Math.ceil(height / step) };
}

/** Pixels in a cell of what is measured in a rectangle. */
function stepOf(width: number, height: number): number {
  return Math.max(Math.ceil(Math.max(width, height) / GRID_SIDE), 1);
}

/** Logits on a grid, inside `clip` (whole cells) where it is given. */
type Draw = (grid: Grid, clip?: Rect) => Region;

/**
 * One answer for a prompt. Its logits are pasted on the image when they are looked at; of a large
 * window first coarsely, then finely inside the mask's box.
 */
export class Candidate {
  private readonly coarse: Grid;
  private onCoarse: Region | null = null;
  private onFine: Region | null = null;
  private box: Box | null | undefined;

  constructor(
    readonly window: Window,
    readonly score: number,
    /** Side of the logits. */
    readonly side: number,
    private readonly width: number,
    private readonly height: number,
    readonly draw: Draw,
    /** Pixels in a cell of `preview` at least. */
    step = 1,
  ) {
    this.coarse = gridOf(width, height, Math.max(stepOf(widthOf(window), heightOf(window)), step));
  }

  /** The same window and score with other logits. */
  redrawn(draw: Draw): Candidate {
    return new Candidate(this.window, this.score, this.side, this.width, this.height, draw);
  }

  /** The same mask with another score. */
  rescored(score: number): Candidate {
    return new Candidate(this.window, score, this.side, this.width, this.height, this.draw);
  }

  /** Pixels in a cell of `preview`. */
  get step(): number {
    return this.coarse.step;
  }

  /** The logits on cells of `step` pixels: the image's own pixels unless the window is large. */
  get preview(): Region {
    return (this.onCoarse ??= this.draw(this.coarse));
  }

  /** The tight box of the mask in pixels, to within `step`; null if it is empty. */
  get bounds(): Box | null {
    if (this.box === undefined) {
      const { step } = this;
      const cells = boundsOf(this.preview);
      this.box = cells && {
        x0: cells.x0 * step,
        y0: cells.y0 * step,
        x1: Math.min(cells.x1 * step, this.width),
        y1: Math.min(cells.y1 * step, this.height),
      };
    }
    return this.box;
  }

  /** The logits on the image's pixels; of a large window only around the mask. */
  get region(): Region {
    if (this.step === 1) return this.preview;
    if (!this.onFine) {
      const grid = gridOf(this.width, this.height, 1);
      const { bounds } = this;
      const margin = 2 * this.step + EDGE;
      this.onFine = bounds
        ? this.draw(grid, {
            x0: Math.max(bounds.x0 - margin, 0),
            y0: Math.max(bounds.y0 - margin, 0),
            x1: Math.min(bounds.x1 + margin, this.width),
            y1: Math.min(bounds.y1 + margin, this.height),
          })
        : { x: 0, y: 0, width: 0, height: 0, logits: new Float32Array(0) };
    }
    return this.onFine;
  }

  /** Whether a point's pixel is in the mask. */
  covers(point: Point): boolean {
    const { preview, step } = this;
    const x = Math.trunc(point.x / step) - preview.x;
    const y = Math.trunc(point.y / step) - preview.y;
    if (x < 0 || y < 0 || x >= preview.width || y >= preview.height) return false;
    return preview.logits[y * preview.width + x]! > 0;
  }
}

/** Pixels around a mask that its soft edge may need. */
const EDGE = 14;

/** A click's answers: of the windows that were looked through, smallest first, and the best first. */
export interface ClickAnswers {
  readonly ladder: Ladder;
  /** By the place of their window. */
  readonly candidates: ReadonlyMap<number, Candidate>;
  readonly order: readonly number[];
}

/** Clicks whose ladders are kept, so that another point or another scale is quick. */
const KEPT = 48;

/** Makes room for one more. */
function bounded(kept: Map<string, unknown>, most: number): void {
  if (kept.size < most) return;
  for (const oldest of kept.keys()) {
    kept.delete(oldest);
    break;
  }
}

function keyOf({ x, y }: Point): string {
  return `${x},${y}`;
}

function keyOfPrompt({ points, box }: Prompt, choice: number | null): string {
  return JSON.stringify([points, box, box ? null : choice]);
}

/** Answers prompts on one image. */
export class Predictor {
  readonly image: Pyramid;
  private readonly clicked = new Map<string, ClickAnswers>();
  private readonly refined = new WeakMap<Candidate, Candidate>();
  private readonly answers = new Map<string, Candidate>();

  constructor(
    private readonly runtime: Runtime,
    image: RgbaImage | Pyramid,
  ) {
    this.image = image instanceof Pyramid ? image : new Pyramid(image);
  }

  /**
   * The answers for a prompt, best first. `choice` overrules the scorer for a click: the window of that
   * place, counted from the smallest, with guidance also where further clicks correct its answer. With
   * `every` a click has an answer of each window, else the best one at least.
   */
  async candidates(
    prompt: Prompt,
    choice: number | null = null,
    mask: Mask | null = null,
    every = false,
  ): Promise<Candidate[]> {
    const marked = mask && bounds(mask);
    if (!marked) mask = null; // an empty mask is none
    const box = prompt.box ?? marked;
    if (!box && !prompt.points.some(({ positive }) => positive)) return [];
    if (box && prompt.points.length === 0) {
      // A mask with no click is answered anew by its box, like a box with a mask and no click.
      return [await this.kept({ points: [], box }, null, () => this.box(box))];
    }
    if (this.runtime.facts.guidance && (mask || prompt.points.length + (prompt.box ? 1 : 0) > 1)) {
      return [
        mask
          ? await this.mended(prompt, this.given(mask, marked!))
          : await this.kept(prompt, choice, () => this.corrected(prompt, choice)),
      ];
    }
    const first: Candidate[] = [];
    const byPoint = new Map<Point, Candidate[]>();
    const around = span(prompt);
    if (prompt.box) first.push(await this.box(prompt.box));
    if (around) first.push(await this.box(around));
    const single = prompt.points.length === 1 && !prompt.box;
    for (const point of prompt.points) {
      const { candidates, order: ranked } = await this.clicks(point, every || !single || choice !== null);
      const order =
        single && choice !== null && candidates.has(choice)
          ? [choice, ...ranked.filter((i) => i !== choice)]
          : ranked;
      const found = order.map((i) => candidates.get(i)!);
      found[0] = await this.secondPass(found[0]!, point);
      if (!single || choice === null) {
        // Where the best one has turned out empty, one of the other windows may hold something.
        if (found.length === 1 && found[0].score === 0 && !every) return this.candidates(prompt, null, null, true);
        found.sort((a, b) => Number(a.score === 0) - Number(b.score === 0));
      }
      byPoint.set(point, found);
      if (!prompt.box && point.positive) first.push(...found);
    }
    if (mask) return [this.mend(this.given(mask, marked!), prompt.points, byPoint)];
    return this.combine(prompt, first, byPoint);
  }

  /**
   * Several clicks, or a box and clicks, with weights that take guidance: the box or the first click on
   * the object gives a mask, and each further click corrects the mask before it, by one window.
   */
  private async corrected({ points, box }: Prompt, choice: number | null): Promise<Candidate> {
    // The click that says what is meant may come after one that says what is not.
    const start = points.findIndex(({ positive }) => positive);
    const ordered = box || start <= 0
      ? points
      : [points[start]!, ...points.slice(0, start), ...points.slice(start + 1)];
    const earlier = { points: ordered.slice(0, -1), box };
    const [before] = await this.candidates(earlier, choice);
    // The scale of a click alone is a guess.
    return this.correct(before!, ordered, box, !box && ordered.length === 2);
  }

  /** A prompt's answer from before, or made now. A pointer that hovers asks for what it adds to many times. */
  private async kept(
    prompt: Prompt,
    choice: number | null,
    make: () => Promise<Candidate>,
  ): Promise<Candidate> {
    const key = keyOfPrompt(prompt, choice);
    const candidate = this.answers.get(key) ?? (await make());
    this.answers.delete(key); // what was asked for last is forgotten last
    bounded(this.answers, KEPT);
    this.answers.set(key, candidate);
    return candidate;
  }

  /**
   * A given mask corrected by clicks, one window each. Clicks that the mask agrees with are known, up to
   * the first that it contradicts, or the last.
   */
  private async mended({ points, box }: Prompt, given: Candidate): Promise<Candidate> {
    let known = points.findIndex((point) => given.covers(point) !== point.positive);
    if (known < 0) known = points.length - 1;
    let candidate = given;
    let around = box;
    while (known < points.length) {
      // Clicks have emptied the mask: go on where it was.
      if (!candidate.bounds) around = box ?? given.bounds;
      known++;
      candidate = await this.correct(candidate, points.slice(0, known), around);
    }
    return candidate;
  }

  /**
   * The next mask from the mask so far and all clicks, by one window. The mask counts in the answer away from
   * the newest click, if it is no guess.
   */
  private async correct(
    before: Candidate,
    points: readonly Point[],
    box: Box | null,
    guess = false,
  ): Promise<Candidate> {
    const { facts } = this.runtime;
    const { height, width } = this.image;
    const around = followingBox(union(before.bounds, box), points, height, width);
    if (!around) return before;
    const window = boxWindow(around, facts.boxGrowth, facts.boxMaxAspect);
    const { preview, step } = before;
    const grid = gridOf(width, height, step);
    const known = { data: new Uint8Array(grid.width * grid.height), ...grid };
    const share = probability(preview.logits);
    for (let y = 0; y < preview.height; y++) {
      const row = share.subarray(y * preview.width, (y + 1) * preview.width);
      known.data.set(row, (y + preview.y) * grid.width + preview.x);
    }
    const planes = new Float32Array(PLANES * facts.inputSize ** 2);
    drawPlanes(window, facts.inputSize, known, points, planes);
    const answered = await this.maps([window], BOX_CHANNEL, planes);
    const { logits, side } = answered;
    const newest = points.at(-1);
    const counts = newest && before.bounds && !guess;
    const maps = counts
      ? { ...answered, logits: settled(logits, side, planes, facts.inputSize, window, newest) }
      : answered;
    const answer = this.pasted(maps, 0, this.boxScore(answered));
    return scored(
      answer.redrawn((cells, clip) => obeyed(answer.draw(cells, clip), window, points, cells.step)),
    );
  }

  /** A mask, and its bounds, as a candidate that is sure of itself. */
  private given(mask: Mask, window: Box): Candidate {
    const { width, height } = this.image;
    const { outsideLogit, outputSize } = this.runtime.facts;
    const draw: Draw = ({ step, ...grid }, part) => {
      const clip = part ?? {
        x0: Math.floor(window.x0 / step),
        y0: Math.floor(window.y0 / step),
        x1: Math.min(Math.ceil(window.x1 / step), grid.width),
        y1: Math.min(Math.ceil(window.y1 / step), grid.height),
      };
      const [across, down] = [clip.x1 - clip.x0, clip.y1 - clip.y0];
      const logits = new Float32Array(across * down).fill(outsideLogit);
      for (let y = 0, at = 0; y < down; y++) {
        const row = Math.floor((y + clip.y0 + 0.5) * step) - mask.y;
        for (let x = 0; x < across; x++, at++) {
          const column = Math.floor((x + clip.x0 + 0.5) * step) - mask.x;
          if (row < 0 || column < 0 || row >= mask.height || column >= mask.width) continue;
          if (mask.data[row * mask.width + column]) logits[at] = -outsideLogit;
        }
      }
      return { x: clip.x0, y: clip.y0, width: across, height: down, logits };
    };
    return new Candidate(window, 1, outputSize, width, height, draw);
  }

  /** Whether the network has nothing more to do for a prompt. */
  knows({ points, box }: Prompt, choice: number | null = null): boolean {
    if (points.length === 1 && !box) return this.clicked.has(keyOf(points[0]!));
    return this.answers.has(keyOfPrompt({ points, box }, choice));
  }

  /** One candidate for a box, from its window. */
  async box(box: Box): Promise<Candidate> {
    const { facts } = this.runtime;
    const window = boxWindow(box, facts.boxGrowth, facts.boxMaxAspect);
    const maps = await this.maps([window], BOX_CHANNEL);
    return this.candidate(maps, 0, this.boxScore(maps));
  }

  /** The logits of the windows of several boxes, in one batch, and the predicted IoU of each. */
  async boxes(boxes: readonly Box[]): Promise<{ maps: Maps; scores: number[] }> {
    const { boxGrowth, boxMaxAspect } = this.runtime.facts;
    const maps = await this.maps(boxes.map((box) => boxWindow(box, boxGrowth, boxMaxAspect)), BOX_CHANNEL);
    const scores = maps.windows.map((window, i) =>
      this.boxScore({ logits: mapAt(maps, i), side: maps.side, windows: [window] }),
    );
    return { maps, scores };
  }

  private boxScore(maps: Maps): number {
    const { boxScorer } = this.runtime.facts;
    const measured = features(maps, this.image.height, this.image.width);
    return boxScorer ? boxScorer.score(measured)[0]! : measured[1]!;
  }

  /**
   * The answers of a click: the best of the windows that `Ladder` looks through, or with `every` those of all
   * windows. The best one is the same either way; the others are in the order of the scores that all give.
   */
  async clicks(point: Point, every: boolean): Promise<ClickAnswers> {
    const key = keyOf(point);
    const kept = this.clicked.get(key);
    if (kept && !(every && kept.ladder.missing().length > 0)) return kept;
    const { height, width } = this.image;
    const { facts } = this.runtime;
    const windows = this.clickWindows(point);
    const ladder =
      kept?.ladder ?? new Ladder(windows, facts.outputSize, height, width, facts.clickScorer);
    if (!kept) {
      for (let wanted = ladder.wanted(); wanted.length > 0; wanted = ladder.wanted()) await this.look(ladder, wanted);
    }
    const [best] = kept ? [kept.order[0]!] : [ladder.ranked()[0]!.place];
    const candidates = new Map<number, Candidate>(kept?.candidates);
    const add = (place: number, score: number): void => {
      if (!candidates.has(place)) candidates.set(place, this.clickCandidate(ladder, place, score));
    };
    add(best, ladder.scores()[best]!);
    const order = [best];
    if (every || ladder.missing().length === 0) {
      const missing = ladder.missing();
      if (missing.length > 0) await this.look(ladder, missing);
      for (const { place, score } of ladder.ranked()) {
        add(place, score);
        if (place !== best) order.push(place);
      }
      // Those with a mask come first.
      order.sort((a, b) => Number(candidates.get(a)!.score === 0) - Number(candidates.get(b)!.score === 0));
    } else if (candidates.get(best)!.score === 0) return this.clicks(point, true);
    const answers = { ladder, candidates, order };
    this.clicked.delete(key);
    bounded(this.clicked, KEPT);
    this.clicked.set(key, answers);
    return answers;
  }

  /** Looks through the windows of a click at some places, in one batch. */
  private async look(ladder: Ladder, places: readonly number[]): Promise<void> {
    ladder.add(places, await this.maps(places.map((place) => ladder.windows[place]!), CLICK_CHANNEL));
  }

  private clickCandidate(ladder: Ladder, place: number, score: number): Candidate {
    const logits = ladder.maps.get(place)!;
    return this.candidate({ logits, side: ladder.side, windows: [ladder.windows[place]!] }, 0, score);
  }

  /** One scale of a click alone, and coarsely: what there is time for while the pointer moves. */
  async glimpse(point: Point, scale: number): Promise<{ candidate: Candidate; measured: Float32Array }> {
    const { height, width } = this.image;
    const window = this.clickWindows(point)[scale]!;
    const maps = await this.maps([window], CLICK_CHANNEL, null, true);
    const measured = features(maps, height, width);
    const step = Math.ceil(widthOf(window) / GLIMPSE_SIDE);
    return { candidate: this.candidate(maps, 0, ruleScore(measured, 0), step), measured };
  }

  clickWindows(point: Point): Window[] {
    const { facts } = this.runtime;
    if (facts.native) return [pointWindow(point.x, point.y, facts.inputSize / 2)];
    const { height, width } = this.image;
    return clickWindows(point.x, point.y, height, width, facts.clickHalves);
  }

  /**
   * A click's candidate again, through the box window of its mask. Weights with guidance are told the first
   * mask and the click; without it, the answer is averaged with the first pass.
   */
  async secondPass(first: Candidate, point: Point): Promise<Candidate> {
    const kept = this.refined.get(first);
    if (kept) return kept;
    const result = await this.again(first, point);
    this.refined.set(first, result);
    return result;
  }

  private async again(first: Candidate, point: Point): Promise<Candidate> {
    const { guidance, native } = this.runtime.facts;
    const { bounds } = first;
    if (!bounds || native) return first;
    if (!guidance) return blend(first, await this.box(bounds), this.image);
    // The first pass's score knows the scale.
    return scored((await this.correct(first, [point], null, true)).rescored(first.score));
  }

  private candidate(maps: Maps, index: number, score: number, step = 1): Candidate {
    // The score of an empty mask is 0.
    return this.pasted(maps, index, mapAt(maps, index).some((logit) => logit > 0) ? score : 0, step);
  }

  /** One window's logits on the image, measured on cells of `step` pixels at least. */
  private pasted(maps: Maps, index: number, score: number, step = 1): Candidate {
    const { height, width } = this.image;
    const window = maps.windows[index]!;
    const map = mapAt(maps, index);
    return new Candidate(window, score, maps.side, width, height, (grid, clip) => {
      const { step } = grid;
      const scaled = {
        x0: window.x0 / step, y0: window.y0 / step, x1: window.x1 / step, y1: window.y1 / step,
      };
      return pasteRegion(map, maps.side, scaled, grid.height, grid.width, clip);
    }, step);
  }

  private async maps(
    windows: readonly Window[],
    channel: number,
    guidance: Float32Array | null = null,
    glimpse = false,
  ): Promise<Maps> {
    const { facts } = this.runtime;
    const { inputSize, outputSize: side } = facts;
    const bytes = inputSize * inputSize * 3;
    const crops = new Uint8Array(windows.length * bytes);
    windows.forEach((window, i) => {
      crops.set(this.image.crop(window, inputSize, facts.pad, glimpse), i * bytes);
    });
    const all = await this.runtime.run(crops, windows.length, guidance);
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
    return [this.mend(best, prompt.points, byPoint), ...ordered.slice(1)];
  }

  /** A candidate that agrees with all points, as far as other candidates can make it. */
  private mend(
    best: Candidate,
    points: readonly Point[],
    byPoint: ReadonlyMap<Point, readonly Candidate[]>,
  ): Candidate {
    // What is done to the best candidate's logits, decided on the coarse grid.
    const changes: { candidate: Candidate; add: boolean }[] = [];
    const covered = (point: Point): boolean =>
      changes.reduce(
        (on, { candidate, add }) => (candidate.covers(point) ? add : on), best.covers(point),
      );
    const on = points.filter((point) => point.positive);
    for (const point of on) {
      const own = byPoint.get(point)!.find((c) => c.covers(point));
      if (own && !covered(point)) changes.push({ candidate: own, add: true });
    }
    for (const point of points) {
      if (point.positive || !covered(point)) continue;
      const own = byPoint.get(point)!.filter((c) => c.covers(point) && !on.some((k) => c.covers(k)));
      if (own.length === 0) continue;
      const sizes = own.map((c) => c.preview.logits.reduce((n, v) => n + (v > 0 ? 1 : 0), 0));
      changes.push({ candidate: own[sizes.indexOf(Math.min(...sizes))]!, add: false });
    }
    const { height, width } = this.image;
    const { outsideLogit } = this.runtime.facts;
    const draw: Draw = (grid, clip = { x0: 0, y0: 0, x1: grid.width, y1: grid.height }) => {
      const [across, down] = [clip.x1 - clip.x0, clip.y1 - clip.y0];
      const logits = new Float32Array(across * down).fill(outsideLogit);
      const put = (region: Region, join: (old: number, logit: number) => number): void =>
        each(region, clip.x0, clip.y0, across, (at, logit) => (logits[at] = join(logits[at]!, logit)));
      put(best.draw(grid, clip), (_, logit) => logit);
      for (const { candidate, add } of changes) {
        put(
          candidate.draw(grid, clip),
          add ? (old, logit) => Math.max(old, logit) : (old, logit) => Math.min(old, -logit),
        );
      }
      return { x: clip.x0, y: clip.y0, width: across, height: down, logits };
    };
    if (changes.length === 0) return best;
    const step = stepOf(width, height);
    return scored(new Candidate(best.window, best.score, best.side, width, height, draw, step));
  }
}

/** A candidate, with a score of 0 if its mask is empty. */
function scored(candidate: Candidate): Candidate {
  return candidate.bounds ? candidate : candidate.rescored(0);
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
function blend(first: Candidate, second: Candidate, image: Pyramid): Candidate {
  const draw: Draw = (grid, clip) => {
    const a = first.draw(grid, clip);
    const b = second.draw(grid, clip);
    const logits = b.logits.slice();
    const x0 = Math.max(a.x, b.x);
    const x1 = Math.min(a.x + a.width, b.x + b.width);
    const y1 = Math.min(a.y + a.height, b.y + b.height);
    for (let y = Math.max(a.y, b.y); y < y1; y++) {
      let from = (y - a.y) * a.width + x0 - a.x;
      let at = (y - b.y) * b.width + x0 - b.x;
      for (let x = x0; x < x1; x++, from++, at++) logits[at] = (logits[at]! + a.logits[from]!) / 2;
    }
    return { ...b, logits };
  };
  return scored(
    new Candidate(second.window, first.score, second.side, image.width, image.height, draw),
  );
}

/** Visits a region's logits with their places in a rectangle of `stride` columns from (x0, y0). */
function each(
  region: Region,
  x0: number,
  y0: number,
  stride: number,
  visit: (at: number, logit: number) => void,
): void {
  for (let y = 0, from = 0; y < region.height; y++) {
    const row = (y + region.y - y0) * stride + region.x - x0;
    for (let x = 0; x < region.width; x++) visit(row + x, region.logits[from++]!);
  }
}
