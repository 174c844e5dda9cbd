/**
 * The photo under everything that is drawn on it, on a checkerboard where it is transparent. Scaling it is
 * most of the work of a frame, so a copy is made of what stays where it is: what lies over it changes with
 * every move of the pointer.
 */

/** Where the photo is on its canvas: pixels of the canvas in one of the photo's, and its corner. */
export interface Place {
  readonly scale: number;
  readonly left: number;
  readonly top: number;
}

export class Ground {
  private readonly copy = document.createElement("canvas");
  private checks: CanvasPattern | null = null;
  /** What the last frame showed. */
  private last: { readonly source: CanvasImageSource; readonly key: string } | null = null;
  private copied = false;

  /** Draws a photo (or a frame of a video) of this size, and leaves `context` in the photo's pixels. */
  draw(context: CanvasRenderingContext2D, source: CanvasImageSource, width: number, height: number, place: Place): void {
    const { scale, left, top } = place;
    const canvas = context.canvas;
    const key = [canvas.width, canvas.height, scale, left, top].join();
    // A video shows something else every time.
    const still = source instanceof ImageBitmap && source === this.last?.source && key === this.last.key;
    if (!still) this.copied = false;
    this.last = { source, key };
    if (still && !this.copied) this.copied = this.fill(canvas, source, width, height, place);
    if (this.copied) context.drawImage(this.copy, 0, 0);
    else this.scaled(context, source, width, height, place);
    context.setTransform(scale, 0, 0, scale, left, top);
  }

  private fill(canvas: HTMLCanvasElement, source: CanvasImageSource, width: number, height: number, place: Place): boolean {
    const { copy } = this;
    copy.width = canvas.width; // which also clears it
    copy.height = canvas.height;
    const context = copy.getContext("2d");
    if (context) this.scaled(context, source, width, height, place);
    return context !== null;
  }

  private scaled(
    context: CanvasRenderingContext2D, source: CanvasImageSource, width: number, height: number, { scale, left, top }: Place,
  ): void {
    context.setTransform(scale, 0, 0, scale, left, top);
    context.imageSmoothingEnabled = scale < 4;
    context.imageSmoothingQuality = "high";
    this.checkerboard(context, width, height, scale);
    context.drawImage(source, 0, 0, width, height);
  }

  /** Its squares have one size on every screen. */
  private checkerboard(context: CanvasRenderingContext2D, width: number, height: number, scale: number): void {
    this.checks ??= checkered(context);
    if (!this.checks) return;
    this.checks.setTransform(new DOMMatrix().scale(1 / scale));
    context.fillStyle = this.checks;
    // Half a screen pixel less than the photo, so that an opaque photo has no edge of it.
    const inset = 0.5 / scale;
    context.fillRect(inset, inset, width - 2 * inset, height - 2 * inset);
  }
}

function checkered(context: CanvasRenderingContext2D): CanvasPattern | null {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 16;
  const paint = tile.getContext("2d");
  if (!paint) return null;
  paint.fillStyle = "#fff";
  paint.fillRect(0, 0, 16, 16);
  paint.fillStyle = "#d4d4d4";
  paint.fillRect(0, 0, 8, 8);
  paint.fillRect(8, 8, 8, 8);
  return context.createPattern(tile, "repeat");
}
