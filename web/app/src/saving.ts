/** Files of the objects: what each button of the panel gives. */

import {
  cocoJson, cutoutPixels, derivedName, encodePng, indexPixels, maskPixels, type Named, overlaid, type RgbaImage,
  svg, trim, zip,
} from "picosam2/custom";

export type Background =
  | { readonly kind: "clear" }
  | { readonly kind: "color"; readonly color: string }
  | { readonly kind: "blur" }
  | { readonly kind: "image"; readonly file: Blob };

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
  const canvas = document.createElement("canvas");
  canvas.width = part.width;
  canvas.height = part.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("this browser gives no canvas");
  context.fillStyle = background.kind === "color" ? background.color : "#fff";
  context.fillRect(0, 0, part.width, part.height);
  if (background.kind !== "color") {
    const { width, height } = photo;
    const bitmap =
      background.kind === "image"
        ? await createImageBitmap(background.file)
        : await createImageBitmap(new ImageData(new Uint8ClampedArray(photo.data), width, height));
    // Another image covers the whole photo, its middle in the middle.
    const scale = Math.max(width / bitmap.width, height / bitmap.height);
    const [w, h] = [bitmap.width * scale, bitmap.height * scale];
    const [x, y] = [(width - w) / 2 - part.x, (height - h) / 2 - part.y];
    if (background.kind === "blur") {
      // Small and large again: canvas filters are not in every browser.
      const small = document.createElement("canvas");
      const share = BLURRED / Math.max(width, height);
      small.width = Math.max(1, Math.round(width * share));
      small.height = Math.max(1, Math.round(height * share));
      small.getContext("2d")?.drawImage(bitmap, 0, 0, small.width, small.height);
      context.imageSmoothingQuality = "high";
      context.drawImage(small, x, y, w, h);
    } else {
      context.drawImage(bitmap, x, y, w, h);
    }
    bitmap.close();
  }
  return context.getImageData(0, 0, part.width, part.height).data;
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
