/** RGBA pixels from what a browser can draw or decode. */

import type { RgbaImage } from "./geometry.ts";
import type { ImageSource } from "./segmenter.ts";

/** Canvases end at 16.7 megapixels on some phones, without an error: larger images go in tiles. */
const TILE = 2048;

/** An image whose pixels cannot be had. The message says why. */
export class ImageError extends Error {}

/** The pixels of an image on white, upright, as the file has them: no color profile is applied. */
export async function pixelsOf(source: ImageSource): Promise<RgbaImage> {
  if (isPixels(source)) return checked(source);
  if (source instanceof Blob) {
    let bitmap: ImageBitmap;
    try {
      bitmap = await createImageBitmap(source, { colorSpaceConversion: "none" });
    } catch {
      throw new ImageError("this is no image that this browser can read");
    }
    try {
      return drawnPixels(bitmap, bitmap.width, bitmap.height);
    } finally {
      bitmap.close();
    }
  }
  const [width, height] = sizeOf(source);
  if (!(width > 0 && height > 0)) throw new ImageError("the image has no pixels yet: wait until it is loaded");
  return drawnPixels(source, width, height);
}

function isPixels(source: ImageSource): source is RgbaImage {
  return "data" in source && ArrayBuffer.isView(source.data);
}

function checked(image: RgbaImage): RgbaImage {
  const { data, width, height } = image;
  if (!(width > 0 && height > 0) || data.length !== width * height * 4) {
    throw new ImageError(`an image of ${width} x ${height} needs ${width * height * 4} bytes of RGBA, not ${data.length}`);
  }
  return { data, width, height };
}

function sizeOf(source: CanvasImageSource): [number, number] {
  if ("naturalWidth" in source) return [source.naturalWidth, source.naturalHeight];
  if ("videoWidth" in source) return [source.videoWidth, source.videoHeight];
  if ("displayWidth" in source) return [source.displayWidth, source.displayHeight];
  return [Number(source.width), Number(source.height)];
}

export interface DrawOptions {
  /** What is under the image: white as for the network, or nothing, which keeps transparency. */
  readonly ground?: "white" | "none";
  /** Color values as the screen needs them, or as they are in the bitmap. */
  readonly part?: { readonly x: number; readonly y: number; readonly width: number; readonly height: number };
}

/**
 * RGBA of a source drawn at a size, or a part of it. Throws `ImageError` where the browser gives a
 * canvas that stays blank.
 */
export function drawnPixels(
  source: CanvasImageSource,
  width: number,
  height: number,
  { ground = "white", part = { x: 0, y: 0, width, height } }: DrawOptions = {},
): RgbaImage {
  const out = new Uint8ClampedArray(part.width * part.height * 4);
  const tileWidth = Math.min(TILE, part.width);
  const tileHeight = Math.min(TILE, part.height);
  const context = canvasContext(tileWidth, tileHeight);
  if (!context) throw new ImageError("this browser gives no canvas to read the image with");
  context.imageSmoothingQuality = "high";
  for (let y = 0; y < part.height; y += tileHeight) {
    for (let x = 0; x < part.width; x += tileWidth) {
      const w = Math.min(tileWidth, part.width - x);
      const h = Math.min(tileHeight, part.height - y);
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, tileWidth, tileHeight);
      if (ground === "white") {
        context.fillStyle = "#fff";
        context.fillRect(0, 0, tileWidth, tileHeight);
      }
      context.drawImage(source, -x - part.x, -y - part.y, width, height);
      const { data } = context.getImageData(0, 0, w, h);
      if (ground === "white" && data[3] === 0) {
        throw new ImageError("the image is too large for this device's memory");
      }
      for (let row = 0; row < h; row++) {
        const from = row * w * 4;
        out.set(data.subarray(from, from + w * 4), ((y + row) * part.width + x) * 4);
      }
    }
  }
  return { data: out, width: part.width, height: part.height };
}

function canvasContext(
  width: number,
  height: number,
): CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D | null {
  const settings: CanvasRenderingContext2DSettings = { willReadFrequently: true };
  if (typeof document === "undefined") {
    return new OffscreenCanvas(width, height).getContext("2d", settings);
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas.getContext("2d", settings);
}
