/**
 * An image in several sizes, so that a large window is cropped from a small copy that is still `FINE` times
 * as fine as the crop. Windows whose crop shrinks the image by less than twice as much come from the image
 * itself and equal Python's crops. For a glimpse the copy is as fine as the crop.
 */

import { crop, heightOf, type RgbaImage, type Window, widthOf } from "./geometry.ts";

const FINE = 3;
const COARSE = 1;

interface Level {
  readonly image: RgbaImage;
  /** Pixels of the full image in one of this level's. */
  readonly stepX: number;
  readonly stepY: number;
}

/** Transparent pixels lie on white, as in Python; the image itself where there are none. */
export function onWhite(image: RgbaImage): RgbaImage {
  const { data, width, height } = image;
  let clear = 3;
  while (clear < data.length && data[clear] === 255) clear += 4;
  if (clear >= data.length) return image;
  const laid = new Uint8ClampedArray(data);
  for (let at = clear - 3; at < laid.length; at += 4) {
    const alpha = laid[at + 3]!;
    for (let c = at; c < at + 3; c++) laid[c] = (laid[c]! * alpha + 255 * (255 - alpha)) / 255;
    laid[at + 3] = 255;
  }
  return { data: laid, width, height };
}

export class Pyramid {
  private readonly levels: Level[];

  /**
   * `image` may be a reduced copy of an image of `width` x `height`: windows are in pixels of the
   * full size either way.
   */
  constructor(
    image: RgbaImage,
    readonly width = image.width,
    readonly height = image.height,
  ) {
    this.levels = [{ image, stepX: width / image.width, stepY: height / image.height }];
  }

  /** The image through `window` (full pixels) as (size, size, 3) RGB; `pad` outside. */
  crop(window: Window, size: number, pad: readonly number[], glimpse = false): Uint8Array {
    const { image, stepX, stepY } = this.level(window, size, glimpse ? COARSE : FINE);
    const scaled = {
      x0: window.x0 / stepX,
      y0: window.y0 / stepY,
      x1: window.x1 / stepX,
      y1: window.y1 / stepY,
    };
    return crop(image, scaled, size, pad);
  }

  /** Whether all pixels are alike. */
  get oneColor(): boolean {
    const { data } = this.levels[0]!.image;
    for (let i = 4; i < data.length; i++) {
      if (i % 4 !== 3 && data[i] !== data[i % 4]) return false; // alpha is not looked at
    }
    return true;
  }

  private level(window: Window, size: number, rest: number): Level {
    const base = this.levels[0]!;
    const shrink = Math.min(widthOf(window) / base.stepX, heightOf(window) / base.stepY) / size;
    const wanted = shrink < 2 * rest ? 0 : Math.floor(Math.log2(shrink / rest));
    while (this.levels.length <= wanted) {
      const last = this.levels.at(-1)!;
      if (Math.min(last.image.width, last.image.height) < 2) break;
      this.levels.push({ image: halved(last.image), stepX: last.stepX * 2, stepY: last.stepY * 2 });
    }
    return this.levels[Math.min(wanted, this.levels.length - 1)]!;
  }
}

/** The mean of 2x2 pixels, rounded; a last odd column or row is repeated. */
export function halved({ data, width, height }: RgbaImage): RgbaImage {
  const w = Math.ceil(width / 2);
  const h = Math.ceil(height / 2);
  const out = new Uint8ClampedArray(w * h * 4);
  for (let y = 0; y < h; y++) {
    const top = 2 * y * width * 4;
    const bottom = Math.min(2 * y + 1, height - 1) * width * 4;
    for (let x = 0, at = y * w * 4; x < w; x++, at += 4) {
      const left = 8 * x;
      const right = 4 * Math.min(2 * x + 1, width - 1);
      for (let c = 0; c < 4; c++) {
        const sum =
          data[top + left + c]! + data[top + right + c]! +
          data[bottom + left + c]! + data[bottom + right + c]!;
        out[at + c] = (sum + 2) >> 2;
      }
    }
  }
  return { data: out, width: w, height: h };
}
