/** What can be taken away: mask, cut-out, COCO JSON, SVG. Pure functions of the objects. */

import type { Prompt } from "./geometry.ts";
import { area, bounds, type Mask, polygons, rleEncode } from "./masks.ts";
import { smoothPath, SvgPath } from "./outline.ts";

/** An object with its answer. */
export interface Named {
  readonly name: string;
  readonly color: string;
  /** Predicted quality 0..1; null for a mask that was drawn or loaded. */
  readonly score: number | null;
  readonly prompt: Prompt;
  readonly mask: Mask;
  readonly alpha: Mask;
}

/** What the image is called and how large it is. */
export interface Sheet {
  readonly fileName: string;
  readonly width: number;
  readonly height: number;
}

/** 255 on any of the objects, 0 elsewhere: one byte a pixel, the whole image. */
export function maskPixels(sheet: Sheet, objects: readonly Named[]): Uint8Array {
  const out = new Uint8Array(sheet.width * sheet.height);
  for (const { mask } of objects) {
    spread(mask, sheet.width, (at, value) => {
      if (value) out[at] = 255;
    });
  }
  return out;
}

/** Each object's number, from 1 in their order, on its pixels; 0 elsewhere; later ones lie above. */
export function indexPixels(sheet: Sheet, objects: readonly Named[]): Uint8Array {
  if (objects.length > 255) throw new Error("an index map has numbers for 255 objects");
  const out = new Uint8Array(sheet.width * sheet.height);
  objects.forEach(({ mask }, i) => {
    spread(mask, sheet.width, (at, value) => {
      if (value) out[at] = i + 1;
    });
  });
  return out;
}

/** RGBA of a cut-out laid over a background of the same size, which is opaque. */
export function overlaid(cutout: Uint8Array, background: Uint8Array | Uint8ClampedArray): Uint8Array {
  const out = Uint8Array.from(background);
  for (let i = 0; i < out.length; i += 4) {
    const share = cutout[i + 3]! / 255;
    for (let c = 0; c < 3; c++) out[i + c] = Math.round(cutout[i + c]! * share + out[i + c]! * (1 - share));
    out[i + 3] = 255;
  }
  return out;
}

/**
 * The objects on a transparent ground, RGBA, the whole image. `photo` is RGBA, and where it is clear so is the cut-out. Clear pixels are
 * black, so nothing of the background stays in the file.
 */
export function cutoutPixels(
  sheet: Sheet,
  photo: Uint8Array | Uint8ClampedArray,
  objects: readonly Named[],
): Uint8Array {
  const out = new Uint8Array(sheet.width * sheet.height * 4);
  for (const { alpha } of objects) {
    spread(alpha, sheet.width, (at, value) => {
      const opacity = Math.round((value * photo[at * 4 + 3]!) / 255);
      if (opacity > out[at * 4 + 3]!) {
        out[at * 4] = photo[at * 4]!;
        out[at * 4 + 1] = photo[at * 4 + 1]!;
        out[at * 4 + 2] = photo[at * 4 + 2]!;
        out[at * 4 + 3] = opacity;
      }
    });
  }
  return out;
}

/** The part of an RGBA image that is not clear, for pasting elsewhere. */
export function trim(
  pixels: Uint8Array,
  width: number,
  height: number,
): { pixels: Uint8Array; width: number; height: number } {
  let x0 = width, y0 = height, x1 = 0, y1 = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!pixels[(y * width + x) * 4 + 3]) continue;
      x0 = Math.min(x0, x);
      x1 = Math.max(x1, x + 1);
      y0 = Math.min(y0, y);
      y1 = y + 1;
    }
  }
  if (y1 === 0) return { pixels, width, height };
  const out = new Uint8Array((x1 - x0) * (y1 - y0) * 4);
  for (let y = y0; y < y1; y++) {
    const row = pixels.subarray((y * width + x0) * 4, (y * width + x1) * 4);
    out.set(row, (y - y0) * (x1 - x0) * 4);
  }
  return { pixels: out, width: x1 - x0, height: y1 - y0 };
}

/**
 * COCO's annotation file: one category a name, exact masks as compressed RLE; the prompts come along
 * in the form that `picosam2.Prompt.from_json` reads.
 */
export function cocoJson(sheet: Sheet, objects: readonly Named[]): string {
  const names = [...new Set(objects.map((object) => object.name))];
  const { fileName, width, height } = sheet;
  const value = {
    images: [{ id: 1, file_name: fileName, width, height }],
    categories: names.map((name, i) => ({ id: i + 1, name, supercategory: "" })),
    annotations: objects.map(({ mask, name, prompt, score }, i) => {
      const box = bounds(mask);
      return {
        id: i + 1,
        image_id: 1,
        category_id: names.indexOf(name) + 1,
        segmentation: rleEncode(mask, height, width),
        area: area(mask),
        bbox: box ? [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0] : [0, 0, 0, 0],
        ...(score !== null && { score: Math.round(score * 1e4) / 1e4 }),
        iscrowd: 0,
        ...((prompt.points.length > 0 || prompt.box) && { prompt: promptJson(prompt) }),
      };
    }),
  };
  return `${JSON.stringify(value, null, 1)}\n`;
}

function promptJson({ points, box }: Prompt): Record<string, unknown> {
  return {
    ...(points.length > 0 && { points: points.map(({ x, y, positive }) => [x, y, positive ? 1 : 0]) }),
    ...(box && { box: [box.x0, box.y0, box.x1, box.y1] }),
  };
}

/**
 * Outlines in the image's pixels, one path an object, to lay over it or to edit: smooth as on the
 * screen, or with `tolerance` 0 along the pixels' edges.
 */
export function svg(sheet: Sheet, objects: readonly Named[], tolerance = 0.75): string {
  const paths = objects.map(({ name, color, mask }, i) => {
    const path = new SvgPath();
    for (const { points } of polygons(mask, tolerance)) {
      if (tolerance > 0) smoothPath(path, points);
      else straight(path, points);
    }
    const outline = path.text;
    return (
      `  <path id="object-${i + 1}" fill="${color}" fill-opacity="0.5" fill-rule="evenodd" ` +
      `stroke="${color}" d="${outline}"><title>${escape(name)}</title></path>\n`
    );
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${sheet.width}" height="${sheet.height}" ` +
    `viewBox="0 0 ${sheet.width} ${sheet.height}">\n${paths.join("")}</svg>\n`
  );
}

function straight(path: SvgPath, points: Float64Array): void {
  for (let i = 0; i < points.length; i += 2) {
    if (i === 0) path.moveTo(points[0]!, points[1]!);
    else path.lineTo(points[i]!, points[i + 1]!);
  }
  path.closePath();
}

function escape(text: string): string {
  const clean = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "");
  return clean.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** A file name from the photo's, such as `holiday-mask.png`. */
export function derivedName(fileName: string, what: string): string {
  const stem = fileName.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._ -]+/gu, "_").trim();
  return `${stem || "image"}${what}`;
}

function spread(mask: Mask, stride: number, visit: (at: number, value: number) => void): void {
  for (let y = 0, from = 0; y < mask.height; y++) {
    const row = (y + mask.y) * stride + mask.x;
    for (let x = 0; x < mask.width; x++) visit(row + x, mask.data[from++]!);
  }
}
