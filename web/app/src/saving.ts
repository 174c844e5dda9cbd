/** Files of the objects: what each button of the panel gives. */

import {
  cocoJson, cutoutPixels, derivedName, encodePng, indexPixels, maskPixels, type Named, overlaid, type RgbaImage,
  drawnPixels, svg, trim, zip,
} from "picosam2/custom";
import { PhotoError } from "./photo";
import { STRINGS } from "./strings";

export type Background =
  | { readonly kind: "clear" }
  | { readonly kind: "color"; readonly color: string }
  | { readonly kind: "blur" }
  | { readonly kind: "image"; readonly file: globalThis.File };

export interface Saving {
  readonly fileName: string;
  readonly width: number;
  readonly height: number;
  readonly objects: readonly Named[];
  /** The photo in its full size, RGBA; asked for when it is needed. */
  readonly pixels: () => Promise<RgbaImage>;
  readonly crop: boolean;
  readonly background: Background;
}

export interface File {
  readonly name: string;
  readonly data: Blob;
}

export async function fileOf(kind: string, saving: Saving): Promise<File> {
  const { fileName, width, height, objects } = saving;
  const sheet = { fileName, width, height };
  switch (kind) {
    case "mask": {
      const data = await encodePng(maskPixels(sheet, objects), width, height);
      return { name: derivedName(fileName, "-mask.png"), data };
    }
    case "index": {
      const data = await encodePng(indexPixels(sheet, objects), width, height);
      return { name: derivedName(fileName, "-index.png"), data };
    }
    case "svg": {
      const data = new Blob([svg(sheet, objects)], { type: "image/svg+xml" });
      return { name: derivedName(fileName, ".svg"), data };
    }
    case "coco": {
      const data = new Blob([cocoJson(sheet, objects)], { type: "application/json" });
      return { name: derivedName(fileName, ".json"), data };
    }
    case "zip":
      return { name: derivedName(fileName, ".zip"), data: await archive(saving) };
    default:
      return { name: derivedName(fileName, "-cutout.png"), data: await cutout(saving) };
  }
}

/** The objects on the chosen background. */
export async function cutout({ fileName, width, height, objects, pixels, crop, background }: Saving): Promise<Blob> {
  const photo = await pixels();
  const cut = cutoutPixels({ fileName, width, height }, photo.data, objects);
  const box = crop ? boxOf(cut, width, height) : { x: 0, y: 0, width, height };
  const part = crop ? trim(cut, width, height) : { pixels: cut, width, height };
  if (background.kind === "clear") return encodePng(part.pixels, part.width, part.height);
  const ground = await groundOf(background, photo, box);
  return encodePng(overlaid(part.pixels, ground), part.width, part.height);
}

/** Long side of the copy that is enlarged again for a blurred background. */
const BLURRED = 40;

interface Part {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function boxOf(pixels: Uint8Array, width: number, height: number): Part {
  let x0 = width, y0 = height, x1 = 0, y1 = 0;
  for (let i = 3, n = 0; i < pixels.length; i += 4, n++) {
    if (!pixels[i]) continue;
    const [x, y] = [n % width, Math.floor(n / width)];
    x0 = Math.min(x0, x);
    x1 = Math.max(x1, x + 1);
    y0 = Math.min(y0, y);
    y1 = y + 1;
  }
  return y1 === 0 ? { x: 0, y: 0, width, height } : { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
}

/** The background's pixels in the part that is saved. */
async function groundOf(background: Exclude<Background, { kind: "clear" }>, photo: RgbaImage, part: Part): Promise<Uint8ClampedArray> {
  if (background.kind === "color") return filled(background.color, part.width * part.height);
  const { width, height } = photo;
  const bitmap = await (background.kind === "image"
    ? createImageBitmap(background.file).catch(() => {
        throw new PhotoError(STRINGS.unreadable(background.file.name));
      })
    : createImageBitmap(new ImageData(new Uint8ClampedArray(photo.data), width, height)));
  try {
    // Another image covers the whole photo, its middle in the middle.
    const scale = Math.max(width / bitmap.width, height / bitmap.height);
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    const shifted = { ...part, x: part.x - (width - w) / 2, y: part.y - (height - h) / 2 };
    // In tiles: one canvas of a large photo's size stays blank on some phones.
    return drawnPixels(background.kind === "blur" ? blurred(bitmap) : bitmap, w, h, { part: shifted }).data as Uint8ClampedArray;
  } finally {
    bitmap.close();
  }
}

/** `count` pixels of a color, "#rrggbb". */
function filled(color: string, count: number): Uint8ClampedArray {
  const rgba = [...[1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)), 255];
  return Uint8ClampedArray.from({ length: count * 4 }, (_, i) => rgba[i % 4]!);
}

/** An image made so small that it is blurred when it is drawn large: canvas filters are not in every browser. */
function blurred(bitmap: ImageBitmap): HTMLCanvasElement {
  const { width, height } = bitmap;
  const small = document.createElement("canvas");
  const share = BLURRED / Math.max(width, height);
  small.width = Math.max(1, Math.round(width * share));
  small.height = Math.max(1, Math.round(height * share));
  const context = small.getContext("2d");
  if (!context) throw new Error(STRINGS.noCanvas);
  context.drawImage(bitmap, 0, 0, small.width, small.height);
  return small;
}

/** Each object's mask and cropped cut-out, and the files of all of them. */
async function archive(saving: Saving): Promise<Blob> {
  const photo = await saving.pixels();
  const pixels = (): Promise<RgbaImage> => Promise.resolve(photo);
  const files: File[] = [];
  for (const kind of ["coco", "svg", "index", "mask"]) files.push(await fileOf(kind, saving));
  for (const object of saving.objects) {
    const one = { ...saving, objects: [object], crop: true, pixels };
    const mask = await fileOf("mask", one);
    files.push({ name: derivedName(`${object.name}.x`, "-mask.png"), data: mask.data });
    files.push({ name: derivedName(`${object.name}.x`, "-cutout.png"), data: await cutout(one) });
  }
  return zip(files);
}
