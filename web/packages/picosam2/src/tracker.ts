/**
 * An object followed from frame to frame: the last mask places the next window. Where the mask is
 * lost or changes size abruptly, the click is made again where the object was last seen.
 */

import { type Box, type RgbaImage, type Point, type Region } from "./geometry.ts";
import { type Candidate, Predictor, type Runtime } from "./predictor.ts";

/** A mask may grow or shrink by this factor of its box's area between frames. */
const MOST_CHANGE = 2.5;

/** A box window whose mask scores less than this is not trusted to have followed the object. */
const LEAST_SCORE = 0.35;

/** Frames after which a fixed click is made anew. */
const MOST_AGE = 15;

export interface Sighting {
  readonly region: Region | null;
  readonly bounds: Box | null;
  readonly score: number;
  readonly point: Point;
}

export class Tracker {
  private last: Box | null = null;
  private point: Point = { x: 0, y: 0, positive: true };
  private fixed = false;
  private age = 0;

  constructor(private readonly runtime: Runtime) {}

  /** Starts over at a click, for the next frame. A `fixed` click stays; another goes with its object. */
  restart(x: number, y: number, fixed: boolean): void {
    this.last = null;
    this.point = { x, y, positive: true };
    this.fixed = fixed;
  }

  async next(frame: RgbaImage): Promise<Sighting> {
    const predictor = new Predictor(this.runtime, frame);
    // A fixed click asks again now and then, because a larger or smaller thing may be meant by now.
    if (this.last && !(this.fixed && this.age++ >= MOST_AGE)) {
      const followed = await predictor.box(this.last);
      const { bounds } = followed;
      if (bounds && followed.score >= LEAST_SCORE && this.resembles(bounds) && this.isThere(followed)) {
        return this.saw(followed, bounds);
      }
    }
    const candidates = await predictor.candidates({ points: [this.point], box: null });
    const best = candidates[0]!;
    this.age = 0;
    const { bounds } = best;
    if (bounds) return this.saw(best, bounds);
    this.last = null;
    return { region: null, bounds: null, score: 0, point: this.point };
  }

  private saw(candidate: Candidate, bounds: Box): Sighting {
    this.last = bounds;
    if (!this.fixed) {
      const x = (bounds.x0 + bounds.x1) / 2;
      const y = (bounds.y0 + bounds.y1) / 2;
      this.point = { x, y, positive: true };
    }
    return { region: candidate.region, bounds, score: candidate.score, point: this.point };
  }

  /** A fixed click must still be on its object. */
  private isThere(candidate: Candidate): boolean {
    return !this.fixed || candidate.covers(this.point);
  }

  private resembles(bounds: Box): boolean {
    const size = (box: Box): number => (box.x1 - box.x0) * (box.y1 - box.y0);
    const ratio = size(bounds) / size(this.last!);
    return ratio < MOST_CHANGE && ratio > 1 / MOST_CHANGE;
  }
}
