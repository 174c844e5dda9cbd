/** A photo the user gives, decoded for the eye and for the network. */

import { drawnPixels, type RgbaImage } from "picosam2/custom";

export interface Photo {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  /** For showing and for cut-outs: color profile applied. */
  readonly bitmap: ImageBitmap;
  /** For the network: the file's own values, on white, turned upright; no profile, as in Python. */
  readonly image: RgbaImage;
  /** The size in the file, if it was too large and had to be reduced. */
  readonly original: { readonly width: number; readonly height: number } | null;
}

/** A file that is no readable picture. The message is for the user. */
export class PhotoError extends Error {}

/** More pixels than this are refused before they are decoded. */
const MOST_PIXELS = 100e6;

/** More than this is reduced on opening: phones' canvases and memory end not far above. */
const MOST_WORKING = 24e6;

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
  return { name, width, height, bitmap, image: drawnPixels(raw, width, height), original: null };
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
