/** What a program uses: an image, prompts, and masks that know their formats. */

import type { Box, Point, Prompt, RgbaImage } from "./geometry.ts";
import { area, bounds, covers, type Mask, polygons, type Polygon, type Rle, rleEncode } from "./masks.ts";
import { encodePng } from "./png.ts";
import type { Answer, FoundObject, Preview, Question, Scale, Searched, Tracked } from "./protocol.ts";

/** A point on the object, or off it if `positive` is false; also [x, y] or [x, y, 1 or 0]. */
export type PointLike =
  | { readonly x: number; readonly y: number; readonly positive?: boolean }
  | readonly [number, number]
  | readonly [number, number, number | boolean];

/** A box around the object; also [x0, y0, x1, y1]. */
export type BoxLike = Box | readonly [number, number, number, number];

/** What says which object is meant, in pixels of the image. */
export interface PromptLike {
  readonly points?: readonly PointLike[];
  readonly box?: BoxLike | null;
  /** A mask to refine: an earlier answer, or one from elsewhere. */
  readonly mask?: Mask | Segmentation | null;
}

export interface PredictOptions {
  /**
   * Overrules the model for a click: a window, 0 for the smallest. Further points correct its answer, with
   * weights that take guidance.
   */
  readonly scale?: number | null;
  /** Looks through all windows of a single point, for `scales`; most masks are known after a few of them. */
  readonly scales?: boolean;
}

/** A prompt that cannot be used. The message says what to change. */
export class PromptError extends Error {}

/** An object's mask. */
export class Segmentation {
  /** Predicted IoU with the object that was meant, 0..1. */
  readonly score: number;
  /** The mask, cut to its box; `x` and `y` say where it lies in the image. */
  readonly mask: Mask;
  /** Opacity 0..255 with soft edges, for a cut-out; cut to a little more than the mask's box. */
  readonly alpha: Mask;
  /** The outlines as they are best shown: smooth to within a pixel; x, y in turn. */
  readonly contours: readonly Float64Array[];
  /**
   * For a single point, what each window gave, smallest first, if all were looked through (`scales: true`
   * asks for it); else empty.
   */
  readonly scales: readonly Scale[];
  /** The window of this answer to a single point, 0 for the smallest; -1 for other prompts. */
  readonly scale: number;
  /** Milliseconds it took, and whether an earlier preview had done the work. */
  readonly ms: number;
  readonly reused: boolean;

  constructor(
    answer: Answer,
    /** Size of the image. */
    readonly width: number,
    readonly height: number,
  ) {
    this.score = answer.score;
    this.mask = answer.mask;
    this.alpha = answer.alpha;
    this.contours = answer.contours;
    this.scales = answer.scales;
    this.scale = answer.scale;
    this.ms = answer.ms;
    this.reused = answer.reused;
  }

  /** Pixels on the object. */
  get area(): number {
    return area(this.mask);
  }

  /** The tight box of the mask, its end exclusive. */
  get bounds(): Box {
    return bounds(this.mask)!;
  }

  /** Whether a pixel is on the object. */
  covers(x: number, y: number): boolean {
    return covers(this.mask, x, y);
  }

  /** Closed contours in pixels of the image; `tolerance` 0 follows the pixels' edges exactly. */
  polygons(tolerance = 0.75): Polygon[] {
    return polygons(this.mask, tolerance);
  }

  /** COCO's compressed run-length encoding, exact. */
  rle(): Rle {
    return rleEncode(this.mask, this.height, this.width);
  }

  /** The mask on the whole image: one byte a pixel, 255 on the object. */
  pixels(): Uint8Array {
    const out = new Uint8Array(this.width * this.height);
    const { x, y, width, height, data } = this.mask;
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        if (data[row * width + column]) out[(row + y) * this.width + column + x] = 255;
      }
    }
    return out;
  }

  /** A gray PNG as large as the image, 255 on the object. */
  png(): Promise<Blob> {
    return encodePng(this.pixels(), this.width, this.height);
  }
}

/** Runs the model on one image at a time. All coordinates are pixels of the image, origin top left. */
export interface Segmenter {
  /** What was loaded. */
  readonly model: {
    readonly name: string;
    readonly bytes: number;
    readonly threads: number;
    /** Whether the weights take a mask and clicks beside the image. */
    readonly guidance: boolean;
  };
  /** Takes an image for the prompts that follow. */
  setImage(source: ImageSource, options?: SetImageOptions): Promise<void>;
  /** The object that is meant; null where nothing was found. */
  predict(prompt: PromptLike, options?: PredictOptions): Promise<Segmentation | null>;
  /**
   * An outline for a prompt that may change with the next move of a pointer: quick, and exact if
   * `whole` is set.
   */
  preview(prompt: PromptLike, options?: PredictOptions & { whole?: boolean }): Promise<Preview | null>;
  /**
   * All objects of the image, the largest first, without being pointed at; the box of each is a prompt
   * for its mask. It takes seconds; other questions are answered in between. Rejects if another image
   * is set meanwhile, or with the signal's reason.
   */
  everything(options?: EverythingOptions): Promise<FoundObject[]>;
  /** The object in the next frame of a video; `restart` begins with the one at (x, y). */
  track(frame: RgbaImage, at: TrackRequest): Promise<Tracked>;
  /** Frees the model; the segmenter is of no use afterwards. */
  dispose(): Promise<void>;
}

export interface EverythingOptions {
  /** Hears the share of the work that is done, 0..1. */
  readonly onProgress?: (share: number) => void;
  /** Ends the search. */
  readonly signal?: AbortSignal;
}

export interface TrackRequest {
  readonly x: number;
  readonly y: number;
  readonly restart: boolean;
  /** The place stays, whatever moves through it; else it goes with the object. */
  readonly fixed: boolean;
}

export interface SetImageOptions {
  /** The size prompts and masks are in, if `source` is a reduced copy. */
  readonly width?: number;
  readonly height?: number;
  /** Gives the pixels' memory away instead of copying it. */
  readonly transfer?: boolean;
}

/** RGBA pixels (8 bits, as `ImageData`), or what a browser can draw or decode. */
export type ImageSource = RgbaImage | Blob | CanvasImageSource;

/** What the search for all objects asks of an engine. */
export interface Searching {
  /** Gets the finder, beside what else is asked. */
  load(): Promise<unknown>;
  next(begin: boolean): Promise<Searched>;
  /** Tells images apart: another value is another image. */
  image(): unknown;
}

/** Searches piece by piece until all is done. */
export async function searched(
  { load, next, image }: Searching,
  { onProgress, signal }: EverythingOptions,
): Promise<FoundObject[]> {
  const own = image();
  const current = (): void => {
    signal?.throwIfAborted();
    if (image() !== own) throw new Error("another image was set while its objects were searched for");
  };
  current();
  await unlessAborted(load(), signal);
  for (let begin = true; ; begin = false) {
    current();
    const { share, objects } = await unlessAborted(next(begin), signal);
    current();
    onProgress?.(share);
    if (objects) return [...objects];
  }
}

/** Does not wait for what nobody wants any more. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** Checks a prompt and gives it one form. Throws `PromptError`. */
export function questionOf(
  prompt: PromptLike,
  width: number,
  height: number,
  scale: number | null = null,
): Question {
  const points = (prompt.points ?? []).map((point) => pointOf(point, width, height));
  const contradicted = contradiction(points);
  if (contradicted) {
    const { x, y } = contradicted;
    throw new PromptError(`the pixel of the point (${x}, ${y}) is clicked as on the object and as off it`);
  }
  const box = prompt.box ? boxOf(prompt.box, width, height) : null;
  const given = prompt.mask ?? null;
  const mask = given instanceof Segmentation ? given.mask : given;
  if (points.length === 0 && !box && !mask) {
    throw new PromptError("a prompt needs a point, a box or a mask");
  }
  if (mask && mask.data.length !== mask.width * mask.height) {
    throw new PromptError(`a mask of ${mask.width} x ${mask.height} needs as many bytes, not ${mask.data.length}`);
  }
  if (!box && !points.some((point) => point.positive) && !(mask && bounds(mask))) {
    throw new PromptError(
      mask
        ? "the mask is empty: add a point on the object, or its box"
        : "a prompt of points needs one that is on the object",
    );
  }
  if (scale !== null && !(Number.isInteger(scale) && scale >= 0)) {
    throw new PromptError("a scale is 0 for the smallest window, 1 for the next, and so on");
  }
  return { prompt: { points, box } satisfies Prompt, mask, scale };
}

function pointOf(point: PointLike, width: number, height: number): Point {
  const list = point as readonly [number, number, (number | boolean)?];
  const { x, y, positive } = Array.isArray(point)
    ? { x: list[0], y: list[1], positive: list[2] === undefined || Boolean(list[2]) }
    : { positive: true, ...(point as { x: number; y: number; positive?: boolean }) };
  if (!Number.isFinite(x) || !Number.isFinite(y)) throw new PromptError("a point is two numbers, x and y");
  if (x < 0 || y < 0 || x >= width || y >= height) {
    throw new PromptError(`the point (${x}, ${y}) lies outside the image of ${width} x ${height} pixels`);
  }
  return { x, y, positive: positive !== false };
}

/** A point off the object on whose pixel there is one that is on it; null if there is none. */
function contradiction(points: readonly Point[]): Point | null {
  const pixelOf = ({ x, y }: Point): string => `${Math.floor(x)},${Math.floor(y)}`;
  const on = new Set(points.filter(({ positive }) => positive).map(pixelOf));
  return points.find((point) => !point.positive && on.has(pixelOf(point))) ?? null;
}

/** A box, cut to the image. */
function boxOf(box: BoxLike, width: number, height: number): Box {
  const [x0, y0, x1, y1] = Array.isArray(box)
    ? (box as readonly [number, number, number, number])
    : [(box as Box).x0, (box as Box).y0, (box as Box).x1, (box as Box).y1];
  if (![x0, y0, x1, y1].every(Number.isFinite)) throw new PromptError("a box is four numbers, x0, y0, x1, y1");
  if (!(x1 > x0 && y1 > y0)) throw new PromptError("a box needs x1 above x0 and y1 above y0");
  if (x1 <= 0 || y1 <= 0 || x0 >= width || y0 >= height) {
    throw new PromptError(`the box (${x0}, ${y0}, ${x1}, ${y1}) lies outside the image of ${width} x ${height} pixels`);
  }
  return { x0: Math.max(x0, 0), y0: Math.max(y0, 0), x1: Math.min(x1, width), y1: Math.min(y1, height) };
}
