/** A photo the user gives, decoded for the eye and for the network. */

import { drawnPixels, type RgbaImage } from "picosam2/custom";
import { STRINGS } from "./strings";

export interface Photo {
  readonly name: string;
  /** The size in the file, turned upright: prompts and results are in its pixels. */
  readonly width: number;
  readonly height: number;
  /** For showing: color profile applied, transparency kept; reduced if the photo is large. */
  readonly bitmap: ImageBitmap;
  /** For the network: the file's own values, on white, no profile, as in Python; reduced likewise. */
  readonly image: RgbaImage;
}

/** A file that is no readable image. The message is for the user. */
export class PhotoError extends Error {}

/** More pixels than this are refused before they are decoded. */
const MOST_PIXELS = 100e6;

/** More than this is reduced for showing and for the network: memory ends not far above. */
const MOST_WORKING = 24e6;

/** Tries smaller sizes down to this one where a device gives blank canvases or no memory. */
const LEAST_WORKING = 2e6;

export function isReduced({ bitmap, width }: Photo): boolean {
  return bitmap.width < width;
}

/** Checks a file and measures it, without keeping its pixels. Throws `PhotoError`. */
export async function measurePhoto(file: Blob, name: string): Promise<{ width: number; height: number }> {
  if (file.size === 0) throw new PhotoError(STRINGS.empty(name));
  if (/\.hei[cf]$/i.test(name) || /^image\/hei[cf]/.test(file.type)) {
    throw new PhotoError(STRINGS.heic(name));
  }
  const size = await decodedSize(file).catch(() => {
    throw new PhotoError(STRINGS.unreadable(name));
  });
  const pixels = size.width * size.height;
  if (pixels === 0) throw new PhotoError(STRINGS.noPixels(name));
  if (pixels > MOST_PIXELS) throw new PhotoError(STRINGS.tooMany(name, Math.round(pixels / 1e6)));
  return size;
}

/** Decodes a photo that was measured. */
export async function openPhoto(file: Blob, name: string): Promise<Photo> {
  const { width, height } = await measurePhoto(file, name);
  let most = Math.min(MOST_WORKING, width * height);
  do {
    try {
      return await decoded(file, name, width, height, most);
    } catch {
      most /= 2; // too large for this device: a smaller copy may do
    }
  } while (most >= LEAST_WORKING);
  throw new PhotoError(STRINGS.tooLarge(name));
}

async function decoded(file: Blob, name: string, width: number, height: number, most: number): Promise<Photo> {
  const factor = Math.min(1, Math.sqrt(most / (width * height)));
  const resize: ImageBitmapOptions =
    factor < 1
      ? {
          resizeWidth: Math.max(1, Math.floor(width * factor)),
          resizeHeight: Math.max(1, Math.floor(height * factor)),
          resizeQuality: "high",
        }
      : {};
  const bitmap = await createImageBitmap(file, resize);
  const raw = await createImageBitmap(file, { ...resize, colorSpaceConversion: "none" });
  try {
    return { name, width, height, bitmap, image: drawnPixels(raw, raw.width, raw.height) };
  } finally {
    raw.close();
  }
}

/** RGBA of a photo in its full size, as it is shown, transparency kept. */
export async function fullPixels(photo: Photo, file: Blob): Promise<RgbaImage> {
  const { width, height } = photo;
  if (!isReduced(photo)) return drawnPixels(photo.bitmap, width, height, { ground: "none" });
  const bitmap = await createImageBitmap(file);
  try {
    return drawnPixels(bitmap, width, height, { ground: "none" });
  } finally {
    bitmap.close();
  }
}

/** What a video shows now, as a file without loss. */
export async function frameOf(video: HTMLVideoElement): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new PhotoError(STRINGS.cameraBusy);
  return blob;
}

/** The size of an image file, turned upright. */
async function decodedSize(file: Blob): Promise<{ width: number; height: number }> {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    await new Promise<void>((resolve, reject) => {
      image.onload = () => resolve();
      image.onerror = () => reject(new Error("not an image"));
      image.src = url;
    });
    return { width: image.naturalWidth, height: image.naturalHeight };
  } finally {
    URL.revokeObjectURL(url);
  }
}
