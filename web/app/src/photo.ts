/** A photo the user gives, decoded for the eye and for the network. */

import type { Picture } from "./geometry";

export interface Photo {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  /** For showing and for cut-outs: colour profile applied. */
  readonly bitmap: ImageBitmap;
  /** For the network: the file's own values, on white, turned upright; no profile, as in Python. */
  readonly picture: Picture;
  /** A smaller one for previews, if the photo is large. */
  readonly reduced: Picture | null;
  /** The size in the file, if it was too large and had to be reduced. */
  readonly original: { readonly width: number; readonly height: number } | null;
}

/** A file that is no readable picture. The message is for the user. */
export class PhotoError extends Error {}

/** More pixels than this are refused before they are decoded. */
const MOST_PIXELS = 100e6;

/** More than this is reduced on opening: phones' canvases and memory end not far above. */
const MOST_WORKING = 24e6;

/** The long side of the picture that previews are made on. */
const PREVIEW_SIDE = 1024;

export async function openPhoto(file: Blob, name: string): Promise<Photo> {
  if (file.size === 0) throw new PhotoError(`“${name}” is empty.`);
  if (/\.hei[cf]$/i.test(name) || /^image\/hei[cf]/.test(file.type)) {
    throw new PhotoError(`“${name}” is an HEIC picture. Save it as JPEG or PNG first.`);
  }
  const size = await measure(file).catch(() => {
    throw new PhotoError(`“${name}” is not a picture this browser can read. Try a JPEG, PNG or WebP file.`);
  });
  const pixels = size.width * size.height;
  if (pixels === 0) throw new PhotoError(`“${name}” has no pixels.`);
  if (pixels > MOST_PIXELS) {
    const millions = Math.round(pixels / 1e6);
    throw new PhotoError(`“${name}” has ${millions} million pixels; the limit is 100. Make it smaller first.`);
  }
  const factor = Math.min(1, Math.sqrt(MOST_WORKING / pixels));
  const width = Math.max(1, Math.floor(size.width * factor));
  const height = Math.max(1, Math.floor(size.height * factor));
  try {
    const resize: ImageBitmapOptions =
      factor < 1 ? { resizeWidth: width, resizeHeight: height, resizeQuality: "high" } : {};
    const bitmap = await createImageBitmap(file, resize);
    const raw = await createImageBitmap(file, { ...resize, colorSpaceConversion: "none" });
    const photo = fromBitmaps(name, bitmap, raw);
    raw.close();
    return { ...photo, original: factor < 1 ? size : null };
  } catch {
    throw new PhotoError(`“${name}” is damaged, or too large for this device.`);
  }
}

/** A photo from a canvas or video frame. */
export async function photoFrom(source: ImageBitmapSource, name: string): Promise<Photo> {
  const bitmap = await createImageBitmap(source);
  return fromBitmaps(name, bitmap, bitmap);
}

function fromBitmaps(name: string, bitmap: ImageBitmap, raw: ImageBitmap): Photo {
  const { width, height } = raw;
  const longSide = Math.max(width, height);
  const factor = PREVIEW_SIDE / longSide;
  const reduced =
    longSide > PREVIEW_SIDE
      ? pixelsOf(raw, Math.max(1, Math.round(width * factor)), Math.max(1, Math.round(height * factor)))
      : null;
  return { name, width, height, bitmap, picture: pixelsOf(raw, width, height), reduced, original: null };
}

/** RGBA of an image drawn on white at a size. */
export function pixelsOf(source: CanvasImageSource, width: number, height: number): Picture {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new PhotoError("This browser gives no canvas to read the photo with.");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

/** The size of a picture file, turned upright, without keeping its pixels. */
async function measure(file: Blob): Promise<{ width: number; height: number }> {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    await new Promise<void>((resolve, reject) => {
      image.onload = () => resolve();
      image.onerror = () => reject(new Error("not a picture"));
      image.src = url;
    });
    return { width: image.naturalWidth, height: image.naturalHeight };
  } finally {
    URL.revokeObjectURL(url);
  }
}
