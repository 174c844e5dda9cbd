/**
 * Corrections: a mask so far and clicks in, the next mask out, by one window of a network that takes
 * guidance. The twin of `picosam2/refine.py`: the window is laid around the mask and the clicks, and
 * where the answer still contradicts a click, a small disk around it takes the click's word.
 */

import { type Box, heightOf, type Point, type Region, type Window, widthOf } from "./geometry.ts";
import { DISK_RADIUS } from "./guidance.ts";

/** The logit of a disk that takes a click's word. */
const GIVEN = 1;

/** The box around two, either of which may be missing. */
export function union(a: Box | null, b: Box | null): Box | null {
  if (!a || !b) return a ?? b;
  return {
    x0: Math.min(a.x0, b.x0), y0: Math.min(a.y0, b.y0), x1: Math.max(a.x1, b.x1), y1: Math.max(a.y1, b.y1),
  };
}

/** `region`, on cells of `step` pixels, with every click inside it obeyed; the newest has the last word. */
export function obeyed(region: Region, window: Window, points: readonly Point[], step = 1): Region {
  const radiusX = Math.max(DISK_RADIUS * widthOf(window), 0.75 * step);
  const radiusY = Math.max(DISK_RADIUS * heightOf(window), 0.75 * step);
  let { logits } = region;
  const { width, height } = region;
  for (const { x, y, positive } of points) {
    const column = Math.trunc(x / step) - region.x;
    const row = Math.trunc(y / step) - region.y;
    if (column < 0 || row < 0 || column >= width || row >= height) continue;
    if (logits[row * width + column]! > 0 === positive) continue;
    if (logits === region.logits) logits = logits.slice();
    const give = (at: number): void => {
      logits[at] = positive ? Math.max(logits[at]!, GIVEN) : Math.min(logits[at]!, -GIVEN);
    };
    for (let r = 0; r < height; r++) {
      const dy = ((r + region.y + 0.5) * step - y) / radiusY;
      if (Math.abs(dy) > 1) continue;
      for (let c = 0; c < width; c++) {
        const dx = ((c + region.x + 0.5) * step - x) / radiusX;
        if (dx * dx + dy * dy <= 1) give(r * width + c);
      }
    }
    give(row * width + column);
  }
  return logits === region.logits ? region : { ...region, logits };
}
