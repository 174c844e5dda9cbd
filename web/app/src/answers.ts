/** The masks of objects: from the model, or drawn; kept as long as undo may need them. */

import {
  covers, feathered, type Mask, polygons, type PromptLike, type Scale, type Segmentation, smoothPath,
} from "picosam2/custom";
import { isDrawn, type Item } from "./document";

/** How far a shown contour may be from the mask, in pixels. */
const SMOOTHING = 0.75;

export interface Answer {
  readonly mask: Mask;
  /** Predicted quality; null for a mask that was drawn or loaded. */
  readonly score: number | null;
  readonly contours: readonly Float64Array[];
  readonly path: Path2D;
  readonly scales: readonly Scale[];
  readonly scale: number;
  /** Opacity for a cut-out, its edge fading over so many pixels; 0 leaves it as the model has it. */
  alpha(feather: number): Mask;
}

export function answerOf(segmentation: Segmentation): Answer {
  const { mask, score, contours, scales, scale, alpha, width, height } = segmentation;
  return {
    mask, score, contours, scales, scale,
    path: pathOf(contours),
    alpha: (feather) => (feather > 0 ? feathered(mask, feather, width, height) : alpha),
  };
}

export function drawnAnswer(mask: Mask, width: number, height: number): Answer {
  const contours = polygons(mask, SMOOTHING).map(({ points }) => points);
  return {
    mask, contours,
    score: null,
    scales: [],
    scale: -1,
    path: pathOf(contours),
    alpha: (feather) => feathered(mask, feather, width, height),
  };
}

/** What the model is asked for an object; null if its mask is as it was drawn. */
export function questionOf(item: Item): PromptLike | null {
  if (isDrawn(item)) return null;
  const { prompt: { points, box }, mask, settled } = item;
  if (!mask) return { points, box };
  // A click that was painted over or rubbed out since has nothing more to say.
  return { points: points.filter((point, i) => i >= settled || covers(mask, point.x, point.y) === point.positive), mask };
}

export function pathOf(contours: readonly Float64Array[], scale = 1): Path2D {
  const path = new Path2D();
  for (const contour of contours) smoothPath(path, contour, scale);
  return path;
}
