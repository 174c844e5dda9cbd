/** Contours with their corners rounded, for the screen and for SVG: one shape in both. */

/** Corners are cut by this many pixels at most: long sides stay where they are. */
const ROUNDING = 3;

/** What `CanvasPath`, `Path2D` and `SvgPath` have in common. */
export interface PathSink {
  moveTo(x: number, y: number): void;
  lineTo(x: number, y: number): void;
  quadraticCurveTo(cx: number, cy: number, x: number, y: number): void;
  closePath(): void;
}

/**
 * Adds a contour (x, y in turn), enlarged by `scale`: a mask's contour is made of pixels' edges, the
 * object's is not.
 */
export function smoothPath(path: PathSink, contour: ArrayLike<number>, scale = 1): void {
  const n = contour.length;
  const at = (i: number): [number, number] => [contour[i % n]! * scale, contour[(i + 1) % n]! * scale];
  for (let i = 0; i < n; i += 2) {
    const [x, y] = at(i);
    const [fromX, fromY] = towards(x, y, ...at(i + n - 2), scale);
    const [toX, toY] = towards(x, y, ...at(i + 2), scale);
    if (i === 0) path.moveTo(fromX, fromY);
    else path.lineTo(fromX, fromY);
    path.quadraticCurveTo(x, y, toX, toY);
  }
  path.closePath();
}

function towards(x: number, y: number, x1: number, y1: number, scale: number): [number, number] {
  const length = Math.hypot(x1 - x, y1 - y);
  const share = Math.min(0.5, (ROUNDING * scale) / Math.max(length, 1e-9));
  return [x + (x1 - x) * share, y + (y1 - y) * share];
}

/** The `d` of an SVG path. */
export class SvgPath implements PathSink {
  text = "";

  moveTo(x: number, y: number): void {
    this.text += `M${short(x)} ${short(y)}`;
  }

  lineTo(x: number, y: number): void {
    this.text += `L${short(x)} ${short(y)}`;
  }

  quadraticCurveTo(cx: number, cy: number, x: number, y: number): void {
    this.text += `Q${short(cx)} ${short(cy)} ${short(x)} ${short(y)}`;
  }

  closePath(): void {
    this.text += "Z";
  }
}

function short(value: number): string {
  return String(Math.round(value * 100) / 100);
}
