/**
 * Every object of an image: the finder's boxes, the mask of each, and the choice among masks that are
 * alike. The twin of `picosam2/tasks/finder.py` and `tasks/answers.py`, in steps, so that whatever else
 * is asked meanwhile gets its turn.
 */

import { type Box, inside, pasteRegion, toImage, type Window } from "./geometry.ts";
import type { BoxFinder } from "./finder.ts";
import { area, iou, type Mask, maskOf, polygons } from "./masks.ts";
import { boundsOf, type Predictor } from "./predictor.ts";
import type { FoundObject } from "./protocol.ts";
import { features, mapAt } from "./scorer.ts";
import { decode, overlaps, partWindows, type Proposal, thinned, wholeWindow } from "./views.ts";

/** What is looked at, and what is kept; named as in SAM's automatic mask generator. */
export const SETTINGS = {
  maxBoxes: 120,
  objectnessThresh: 0.22,
  secondLooks: 0,
  predIouThresh: 0.4,
  stabilityScoreThresh: 0.4,
  boxNmsThresh: 0.7,
  maskNmsThresh: 0.75,
  minMaskRegionArea: 32,
  maxMasks: 300,
};

const LEAST = 0.02; // boxes of a lower objectness are not worth a look
const COMPARED_BOXES = 1000; // the best ones
const ALWAYS = 50; // so many of the best are looked at, whatever their objectness
const SAME = 0.85; // a second look through a box of a higher IoU with the first would show the same
const WHOLE = 0.95; // a mask of a larger share of the image is the image itself
const COMPARED_SIDE = 1024; // long side of the image on which masks are compared, pixels
const BATCH = 8; // boxes in a step
const VIEW = 4; // a view takes about as long as so many boxes

/** How far an outline may be from its mask, in pixels of the image on which masks are compared. */
const SMOOTHING = 0.75;

const STABILITY = 1; // of `FEATURES`

interface Answer {
  /** Through whose window it was seen. */
  readonly box: Box;
  readonly window: Window;
  readonly logits: Float32Array;
  readonly side: number;
  readonly score: number;
}

/** A place's answer, where it is good enough, and the tight box around its mask. */
interface Seen extends Proposal {
  answer: Answer;
}

/** A search for every object of the image that a predictor has. */
export class Search {
  private readonly views: readonly Window[];
  private viewed = 0;
  private proposals: Proposal[] = [];
  private looked = 0;
  private readonly seen: Seen[] = [];
  /** The best masks whose own boxes differ from the finder's: they are looked at once more, by these. */
  private again: readonly Seen[] | null = null;
  private lookedAgain = 0;

  constructor(
    private readonly predictor: Predictor,
    private readonly finder: BoxFinder,
    private readonly settings = SETTINGS,
  ) {
    const { height, width, oneColor } = predictor.image;
    // The networks see shapes even in one color.
    this.views = oneColor ? [] : [wholeWindow(height, width), ...partWindows(height, width)];
  }

  /** The share of the work that is done, 0..1; 1 is all of it. */
  get share(): number {
    const { viewed, views, looked, proposals, again, lookedAgain, settings } = this;
    if (again && lookedAgain === again.length) return 1;
    const boxes = viewed < views.length ? settings.maxBoxes : proposals.length;
    const more = again ? again.length : settings.secondLooks;
    const all = views.length * VIEW + boxes + more;
    return all > 0 ? Math.min((viewed * VIEW + looked + lookedAgain) / all, 0.999) : 0;
  }

  /** Does the next piece of the work: one view, or a few boxes. */
  async step(): Promise<void> {
    const { views, viewed, proposals, looked, again, lookedAgain } = this;
    if (viewed < views.length) await this.view(views[viewed]!);
    else if (looked < proposals.length) {
      const some = proposals.slice(looked, looked + BATCH);
      for (const seen of await this.look(some)) if (seen) this.seen.push(seen);
      this.looked += some.length;
    } else if (again && lookedAgain < again.length) {
      const some = again.slice(lookedAgain, lookedAgain + BATCH);
      (await this.look(some)).forEach((closer, i) => {
        if (closer && closer.answer.score > some[i]!.answer.score) some[i]!.answer = closer.answer;
      });
      this.lookedAgain += some.length;
    }
    if (!this.again && this.viewed === views.length && this.looked === this.proposals.length) this.again = this.best();
  }

  private async view(window: Window): Promise<void> {
    const { finder, settings, predictor: { image } } = this;
    const { inputSize, pad } = finder.facts;
    const cells = await finder.run(image.crop(window, inputSize, pad));
    this.proposals.push(...decode(cells, window, image.height, image.width, finder.facts, LEAST));
    this.viewed++;
    if (this.viewed < this.views.length) return;
    const ranked = this.proposals.sort((a, b) => b.objectness - a.objectness).slice(0, COMPARED_BOXES);
    this.proposals = thinned(ranked, settings.boxNmsThresh, settings.maxBoxes)
      .filter(({ objectness }, i) => i < ALWAYS || objectness >= settings.objectnessThresh)
      // No mask of the others can be good enough, however sure the segmenter is of it.
      .filter(({ objectness }) => combined(objectness, 1) >= settings.predIouThresh);
  }

  /** What the windows of some boxes show; null where it is not good enough. */
  private async look(places: readonly Proposal[]): Promise<(Seen | null)[]> {
    const { predictor, settings } = this;
    const { height, width } = predictor.image;
    const { maps, scores } = await predictor.boxes(places.map(({ box }) => box));
    return places.map(({ box, objectness }, i) => {
      const window = maps.windows[i]!;
      const alone = { logits: mapAt(maps, i).slice(), side: maps.side, windows: [window] };
      const score = combined(objectness, scores[i]!);
      const stability = features(alone, height, width)[STABILITY]!;
      if (score < settings.predIouThresh || stability < settings.stabilityScoreThresh) return null;
      const own = imageBox(alone.logits, maps.side, window, height, width);
      if (coversImage(alone.logits, maps.side, window, height, width)) return null;
      return own && { box: own, objectness, answer: { box, window, logits: alone.logits, side: maps.side, score } };
    });
  }

  private best(): Seen[] {
    const { maskNmsThresh, secondLooks } = this.settings;
    const ranked = [...this.seen].sort((a, b) => b.answer.score - a.answer.score);
    return thinned(ranked, maskNmsThresh, secondLooks).filter(({ box, answer }) => !overlaps(box, answer.box, SAME));
  }

  /** What was found so far, each object once, the largest first. */
  objects(): FoundObject[] {
    const { settings, predictor: { image: { height, width } } } = this;
    const shrink = Math.min(COMPARED_SIDE / Math.max(height, width), 1);
    const least = Math.max(settings.minMaskRegionArea * shrink ** 2, 1);
    const kept: { answer: Answer; mask: Mask; size: number }[] = [];
    const ranked = this.seen.map(({ answer }) => answer).sort((a, b) => b.score - a.score);
    for (const answer of ranked) {
      if (kept.length === settings.maxMasks) break;
      const mask = maskAt(answer, shrink, height, width);
      const size = mask ? area(mask) : 0;
      if (!mask || size < least) continue;
      if (kept.some((other) => alike(mask, size, other.mask, other.size, settings.maskNmsThresh))) continue;
      kept.push({ answer, mask, size });
    }
    return kept
      .sort((a, b) => b.size - a.size)
      .map(({ answer: { box, score }, mask, size }) => ({
        box,
        score,
        area: Math.round(size / shrink ** 2),
        contours: polygons(mask, SMOOTHING).map(({ points }) => points.map((value) => value / shrink)),
      }));
  }
}

/**
 * The expected IoU of a mask, from the objectness of its box and its predicted IoU: the one knows whether
 * the box holds an object, the other how good the mask is if it does.
 */
export function combined(objectness: number, predicted: number): number {
  return Math.sqrt(objectness) * predicted;
}

/** The box of a window's mask in pixels of the image, without what lies in the padding; null if that is empty. */
function imageBox(logits: Float32Array, side: number, window: Window, height: number, width: number): Box | null {
  const part = inside(window, height, width, side);
  const seen = { x: part.x0, y: part.y0, width: part.x1 - part.x0, height: part.y1 - part.y0 };
  const cells = new Float32Array(seen.width * seen.height);
  for (let y = 0; y < seen.height; y++) {
    const from = (y + seen.y) * side + seen.x;
    cells.set(logits.subarray(from, from + seen.width), y * seen.width);
  }
  const bounds = boundsOf({ ...seen, logits: cells });
  if (!bounds) return null;
  const [x0, y0] = toImage(window, bounds.x0, bounds.y0, side);
  const [x1, y1] = toImage(window, bounds.x1, bounds.y1, side);
  return { x0: Math.max(x0, 0), y0: Math.max(y0, 0), x1: Math.min(x1, width), y1: Math.min(y1, height) };
}

/** Whether a window's mask is nearly all of the image: no object in it. */
function coversImage(logits: Float32Array, side: number, window: Window, height: number, width: number): boolean {
  const part = inside(window, height, width, side);
  let cells = 0;
  for (let y = part.y0; y < part.y1; y++) for (let x = part.x0; x < part.x1; x++) if (logits[y * side + x]! > 0) cells++;
  const share = (cells / side ** 2) * (((window.x1 - window.x0) * (window.y1 - window.y0)) / (width * height));
  return share > WHOLE;
}

/** An answer's mask on the image made smaller by `shrink`; null if it is empty. */
function maskAt({ window, logits, side }: Answer, shrink: number, height: number, width: number): Mask | null {
  const small = {
    x0: shrink * window.x0, y0: shrink * window.y0, x1: shrink * window.x1, y1: shrink * window.y1,
  };
  const region = pasteRegion(logits, side, small, roundedEven(shrink * height), roundedEven(shrink * width));
  const bounds = boundsOf(region);
  return bounds && maskOf(region, bounds);
}

/** Whether the IoU of two masks, which are not empty, is above a threshold. */
function alike(a: Mask, areaA: number, b: Mask, areaB: number, threshold: number): boolean {
  // As much as it can be.
  if (Math.min(areaA, areaB) <= threshold * Math.max(areaA, areaB)) return false;
  return iou(a, b) > threshold;
}

/** Rounded to the nearest integer, halves to the even one, as in Python. */
function roundedEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
