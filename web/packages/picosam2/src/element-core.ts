/**
 * `<pico-segment src="photo.jpg"></pico-segment>`: an image in which a click gives a mask.
 *
 * Attributes: `src` (the image), `model` (the model file), `label` (what a screen reader calls it).
 * A click, Enter on the keyboard, or a drag (a box) gives an object; Shift click adds to it, a right
 * click takes away from it, Escape clears it. Event `change`: `detail` is the `Segmentation`, or null.
 */

import type { CreateOptions } from "./defaults.ts";
import type { Box, Point } from "./geometry.ts";
import { PromptError, type Segmentation, type Segmenter } from "./segmenter.ts";

const STYLE = `
:host { display: inline-block; position: relative; max-width: 100%; line-height: 0; }
canvas { display: block; max-width: 100%; height: auto; cursor: crosshair; touch-action: manipulation; }
canvas:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
p { position: absolute; inset: auto 8px 8px; margin: 0; padding: 4px 10px; width: fit-content;
  border-radius: 6px; background: rgb(255 255 255 / 92%); color: #1d1d1a; font: 14px/1.4 system-ui, sans-serif; }
p:empty { display: none; }
`;

const DRAG = 6; // screen pixels a pointer may tremble before a click becomes a box

/** The class of `<pico-segment>`, beside what a custom element has anyway. */
export interface PicoSegmentElement extends HTMLElement {
  /** The object's mask, or null. */
  readonly value: Segmentation | null;
  /** Asks for the mask of a prompt, as a click does. */
  prompt(points: readonly Point[], box?: Box | null): Promise<Segmentation | null>;
  /** Forgets the object. */
  clear(): void;
}

export interface PicoSegmentClass {
  new (): PicoSegmentElement;
  /** How segmenters are made; set it before the first element for a worker or model of your own. */
  options: CreateOptions;
}

/** Defines the element, with the function that makes its segmenters. Elements of a page share one a model. */
export function definePicoSegment(create: (options: CreateOptions) => Promise<Segmenter>): PicoSegmentClass {
  const shared = new Map<string, Promise<Segmenter>>();
  /** Which image each segmenter has. */
  const holders = new WeakMap<Segmenter, ImageBitmap>();
  /** What each segmenter does: an element's image and its prompt must not be parted by another's. */
  const turns = new WeakMap<Segmenter, Promise<unknown>>();

  function inTurn<T>(segmenter: Segmenter, work: () => Promise<T>): Promise<T> {
    const result = (turns.get(segmenter) ?? Promise.resolve()).then(work);
    turns.set(segmenter, result.catch(() => undefined));
    return result;
  }

  class PicoSegment extends HTMLElement implements PicoSegmentElement {
    static readonly observedAttributes = ["src", "model", "label"];
    static options: CreateOptions = {};

    private readonly canvas = document.createElement("canvas");
    private readonly note = document.createElement("p");
    private bitmap: ImageBitmap | null = null;
    private points: Point[] = [];
    private box: Box | null = null;
    /** The prompt that was answered last. */
    private answered: { readonly points: Point[]; readonly box: Box | null } = { points: [], box: null };
    private answer: Segmentation | null = null;
    private cursor: { x: number; y: number } | null = null;
    private start: { x: number; y: number; clientX: number; clientY: number } | null = null;
    /** Counts images, so that answers about an earlier one are dropped. */
    private epoch = 0;
    private settled: Promise<void> = Promise.resolve();

    constructor() {
      super();
      const root = this.attachShadow({ mode: "open" });
      const sheet = new CSSStyleSheet(); // not an inline style: a page's policy may forbid these
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "application");
      this.note.setAttribute("role", "status");
      root.append(this.canvas, this.note);
      this.canvas.addEventListener("pointerdown", (event) => this.down(event));
      this.canvas.addEventListener("pointermove", (event) => this.move(event));
      this.canvas.addEventListener("pointerup", (event) => this.up(event));
      this.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
      this.canvas.addEventListener("keydown", (event) => this.key(event));
    }

    /** The object's mask, or null. */
    get value(): Segmentation | null {
      return this.answer;
    }

    attributeChangedCallback(name: string): void {
      if (name === "label") this.name();
      else if (this.isConnected) this.settled = this.open();
    }

    connectedCallback(): void {
      this.name();
      this.settled = this.open();
    }

    disconnectedCallback(): void {
      this.epoch++;
      this.bitmap?.close();
      this.bitmap = null;
    }

    /** Asks for the mask of a prompt, as a click does. */
    async prompt(points: readonly Point[], box: Box | null = null): Promise<Segmentation | null> {
      const own = [...points];
      this.points = own;
      this.box = box;
      await this.settled;
      if (this.points === own) await this.ask();
      return this.points === own ? this.answer : null; // another prompt has come since
    }

    /** Forgets the object. */
    clear(): void {
      this.points = [];
      this.box = null;
      this.answered = { points: [], box: null };
      this.show(null);
    }

    private name(): void {
      const label = this.getAttribute("label") ?? "Image";
      this.canvas.setAttribute("aria-label", `${label}: arrow keys move, Enter picks an object, Escape clears`);
    }

    private async open(): Promise<void> {
      const epoch = ++this.epoch;
      const src = this.getAttribute("src");
      this.points = [];
      this.box = this.answer = this.cursor = null;
      this.answered = { points: [], box: null };
      this.bitmap?.close();
      this.bitmap = null;
      this.canvas.getContext("2d")?.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.note.textContent = "";
      if (!src) return;
      try {
        this.note.textContent = "Loading…";
        const response = await fetch(new URL(src, document.baseURI));
        if (!response.ok) throw new Error(`the image could not be fetched (${response.status})`);
        const bitmap = await createImageBitmap(await response.blob());
        if (epoch !== this.epoch) {
          bitmap.close();
          return;
        }
        this.bitmap = bitmap;
        this.canvas.width = bitmap.width;
        this.canvas.height = bitmap.height;
        this.draw();
        await this.segmenter();
        if (epoch === this.epoch) this.note.textContent = "";
      } catch (error) {
        if (epoch === this.epoch) this.note.textContent = error instanceof Error ? error.message : String(error);
      }
    }

    private segmenter(): Promise<Segmenter> {
      const model = this.getAttribute("model") ?? "";
      let segmenter = shared.get(model);
      if (!segmenter) {
        segmenter = create({ ...PicoSegment.options, ...(model && { model }) });
        shared.set(model, segmenter);
        segmenter.catch(() => shared.delete(model));
      }
      return segmenter;
    }

    private async ask(): Promise<void> {
      const { bitmap, epoch, points, box } = this;
      /** Whether another image or another prompt has come since. */
      const old = (): boolean => epoch !== this.epoch || points !== this.points;
      if (!bitmap) return;
      try {
        const segmenter = await this.segmenter();
        const answer = await inTurn(segmenter, async () => {
          if (old()) return null;
          if (holders.get(segmenter) !== bitmap) {
            holders.delete(segmenter);
            await segmenter.setImage(bitmap);
            holders.set(segmenter, bitmap);
          }
          return segmenter.predict({ points, box });
        });
        if (old()) return;
        this.answered = { points, box };
        this.note.textContent = answer ? "" : "Nothing was found there.";
        this.show(answer);
      } catch (error) {
        if (old()) return;
        this.note.textContent = error instanceof Error ? error.message : String(error);
        if (!(error instanceof PromptError)) return;
        ({ points: this.points, box: this.box } = this.answered); // go on without the last click
        this.draw();
      }
    }

    private show(answer: Segmentation | null): void {
      this.answer = answer;
      this.draw();
      this.dispatchEvent(new CustomEvent("change", { detail: answer, bubbles: true }));
    }

    private draw(draft: Box | null = null): void {
      const context = this.canvas.getContext("2d");
      if (!context || !this.bitmap) return;
      context.drawImage(this.bitmap, 0, 0);
      const pixel = this.canvas.width / Math.max(this.canvas.clientWidth, 1);
      if (this.answer) {
        const path = new Path2D();
        for (const contour of this.answer.contours) {
          path.moveTo(contour[0]!, contour[1]!);
          for (let i = 2; i < contour.length; i += 2) path.lineTo(contour[i]!, contour[i + 1]!);
          path.closePath();
        }
        context.fillStyle = "rgb(86 180 233 / 45%)";
        context.fill(path, "evenodd");
        context.strokeStyle = "#fff";
        context.lineWidth = 2 * pixel;
        context.stroke(path);
      }
      for (const { x, y, positive } of this.points) {
        context.beginPath();
        context.arc(x, y, 5 * pixel, 0, 2 * Math.PI);
        context.fillStyle = positive ? "#56b4e9" : "#1d1d1a";
        context.fill();
        context.stroke();
      }
      if (draft) {
        context.strokeStyle = "#fff";
        context.strokeRect(draft.x0, draft.y0, draft.x1 - draft.x0, draft.y1 - draft.y0);
      }
      if (this.cursor) {
        context.strokeStyle = "#fff";
        context.beginPath();
        context.arc(this.cursor.x, this.cursor.y, 9 * pixel, 0, 2 * Math.PI);
        context.stroke();
      }
    }

    private place(event: MouseEvent): { x: number; y: number } {
      const area = this.canvas.getBoundingClientRect();
      const clamp = (value: number, most: number): number => Math.min(Math.max(value, 0), most - 0.01);
      return {
        x: clamp(((event.clientX - area.left) / area.width) * this.canvas.width, this.canvas.width),
        y: clamp(((event.clientY - area.top) / area.height) * this.canvas.height, this.canvas.height),
      };
    }

    private down(event: PointerEvent): void {
      if (!this.bitmap) return; // there is nothing to click at
      this.cursor = null;
      this.start = { ...this.place(event), clientX: event.clientX, clientY: event.clientY };
      this.canvas.setPointerCapture(event.pointerId);
    }

    private move(event: PointerEvent): void {
      const box = this.dragged(event);
      if (box) this.draw(box);
    }

    private dragged(event: PointerEvent): Box | null {
      const { start } = this;
      if (!start || event.pointerType === "touch") return null;
      if (Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < DRAG) return null;
      const end = this.place(event);
      return {
        x0: Math.min(start.x, end.x),
        y0: Math.min(start.y, end.y),
        x1: Math.max(start.x, end.x),
        y1: Math.max(start.y, end.y),
      };
    }

    private up(event: PointerEvent): void {
      const box = this.dragged(event);
      const { start } = this;
      this.start = null;
      if (!start) return;
      if (box && box.x1 - box.x0 >= 1 && box.y1 - box.y0 >= 1) void this.prompt([], box);
      else this.pick(start, event.button === 2, event.shiftKey);
    }

    private pick({ x, y }: { x: number; y: number }, negative: boolean, add: boolean): void {
      const point = { x, y, positive: !negative };
      // The object of the clicks so far, also while its mask is awaited.
      const corrects = this.answer !== null || this.points.length > 0 || this.box !== null;
      if ((negative || add) && corrects) void this.prompt([...this.points, point], this.box);
      else if (!negative) void this.prompt([point]);
    }

    private key(event: KeyboardEvent): void {
      const steps: Record<string, readonly [number, number]> = {
        ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      };
      const { width, height } = this.canvas;
      const step = steps[event.key];
      const from = this.cursor ?? { x: width / 2, y: height / 2 };
      if (step) {
        const length = event.shiftKey ? 1 : Math.max(width, height) / 40;
        this.cursor = {
          x: Math.min(Math.max(from.x + step[0] * length, 0), width - 0.01),
          y: Math.min(Math.max(from.y + step[1] * length, 0), height - 0.01),
        };
        this.draw();
      } else if (event.key === "Enter") {
        this.cursor = from;
        this.pick(from, false, event.shiftKey);
      } else if (event.key === "Escape") this.clear();
      else return;
      event.preventDefault();
    }
  }

  const known = customElements.get("pico-segment");
  if (known) return known as unknown as PicoSegmentClass;
  customElements.define("pico-segment", PicoSegment);
  return PicoSegment;
}
