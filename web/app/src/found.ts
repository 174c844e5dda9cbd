/** Objects that were found without a click: which of them are still to be had, which lies where. */

import type { Box, FoundObject, Mask } from "picosam2/custom";

/** From this IoU of their boxes on, a found object is the same as a kept one. */
const SAME = 0.8;

/** The outlines' box. */
export function boundsOf({ contours }: FoundObject): Box {
  const box = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
  for (const contour of contours) {
    for (let i = 0; i < contour.length; i += 2) {
      box.x0 = Math.min(box.x0, contour[i]!);
      box.x1 = Math.max(box.x1, contour[i]!);
      box.y0 = Math.min(box.y0, contour[i + 1]!);
      box.y1 = Math.max(box.y1, contour[i + 1]!);
    }
  }
  return box;
}

/** The found objects that none of the kept masks is. */
export function remaining(found: readonly FoundObject[], kept: readonly Mask[]): FoundObject[] {
  const boxes = kept.map(({ x, y, width, height }) => ({ x0: x, y0: y, x1: x + width, y1: y + height }));
  return found.filter((object) => {
    const own = boundsOf(object);
    return !boxes.some((box) => boxIou(own, box) > SAME);
  });
}

function boxIou(a: Box, b: Box): number {
  const across = Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0);
  const down = Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0);
  const both = Math.max(across, 0) * Math.max(down, 0);
  const areaOf = ({ x0, y0, x1, y1 }: Box): number => (x1 - x0) * (y1 - y0);
  return both / (areaOf(a) + areaOf(b) - both);
}

/** The smallest object at a place: what lies in another one can be reached, too. */
export function smallestAt(found: readonly FoundObject[], x: number, y: number): FoundObject | null {
  let smallest: FoundObject | null = null;
  for (const object of found) {
    if (smallest && object.area >= smallest.area) continue;
    if (within(object.contours, x, y)) smallest = object;
  }
  return smallest;
}

/** Whether a place lies inside an odd number of contours: in holes it does not. */
function within(contours: readonly Float64Array[], x: number, y: number): boolean {
  let inside = false;
  for (const contour of contours) {
    let [ax, ay] = [contour.at(-2)!, contour.at(-1)!];
    for (let i = 0; i < contour.length; i += 2) {
      const [bx, by] = [contour[i]!, contour[i + 1]!];
      if (ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) inside = !inside;
      [ax, ay] = [bx, by];
    }
  }
  return inside;
}

/** In which third of the photo an object lies, across and down: 0, 1 or 2. */
export function thirds(object: FoundObject, width: number, height: number): [across: number, down: number] {
  const { x0, y0, x1, y1 } = boundsOf(object);
  const third = (middle: number, length: number): number => Math.min(Math.max(Math.floor((3 * middle) / length), 0), 2);
  return [third((x0 + x1) / 2, width), third((y0 + y1) / 2, height)];
}
