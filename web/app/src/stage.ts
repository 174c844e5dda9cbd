/**
 * The canvas: shows the photo with its masks, turns what the pointer does into places on the photo,
 * zooms and pans. It knows nothing of models.
 */

import type { Box, Point } from "picosam2/custom";
import { type Click, isSecond } from "./clicks";
import { Ground } from "./ground";
import { STRINGS } from "./strings";

export type Tool = "pick" | "box" | "add" | "remove" | "brush" | "erase" | "move";

export interface Drawn {
  readonly path: Path2D;
  readonly color: string;
  readonly selected: boolean;
}

export interface Scene {
  readonly objects: readonly Drawn[];
  /** Outlines of objects that can be clicked to keep them. */
  readonly found?: readonly Path2D[];
  readonly hover: Path2D | null;
  /** Whether `hover` is a change of the selected object rather than a new one. */
  readonly change?: boolean;
  /** Where an answer is awaited. */
  readonly pending?: Point | null;
  readonly points: readonly Point[];
  readonly box: Box | null;
}

/** What the user did, in pixels of the photo. */
export interface Intent {
  hover(at: { x: number; y: number } | null): void;
  /** `alternative` is the right button or a long press, `add` the Shift key. */
  click(at: { x: number; y: number }, how: How): void;
  box(box: Box): void;
  /** A stroke of the brush or the eraser: x, y in turn. */
  stroke(places: readonly number[]): void;
  /** The first corner of a box was set by keyboard. */
  corner(): void;
}

export interface How {
  readonly alternative: boolean;
  readonly add: boolean;
  /** A new object even where there is one. */
  readonly anew: boolean;
}

const DRAG = 6; // pixels a pointer may tremble before a click becomes a drag
const LONG_PRESS = 550;
const MOST_ZOOM = 40;

interface Finger {
  x: number;
  y: number;
  readonly startX: number;
  readonly startY: number;
}

type Gesture = "none" | "press" | "box" | "pan" | "pinch" | "paint";

export class Stage {
  tool: Tool = "pick";
  /** Whether boxes can be drawn and the photo moved; not while the camera runs. */
  editable = true;
  /** Radius of the brush, in pixels of the photo. */
  brush = 10;

  private readonly context: CanvasRenderingContext2D;
  private source: CanvasImageSource | null = null;
  private width = 0;
  private height = 0;
  private scale = 1;
  private left = 0;
  private top = 0;
  private fitted = true;
  private scene: Scene = { objects: [], hover: null, points: [], box: null };
  private draft: Box | null = null;
  private painted: number[] | null = null;
  /** Where the pointer is, for zooming by keys and for the brush's ring. */
  private pointer: { x: number; y: number } | null = null;
  private lastClick: Click | null = null;
  private readonly ground = new Ground();
  private cursor: { x: number; y: number } | null = null;
  private corner: { x: number; y: number } | null = null;
  private frame = 0;

  private readonly fingers = new Map<number, Finger>();
  private gesture: Gesture = "none";
  private pressTimer = 0;
  private space = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly intent: Intent,
  ) {
    const context = canvas.getContext("2d");
    if (!context) throw new Error(STRINGS.noCanvas);
    this.context = context;
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.cancel(event));
    canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      if (this.gesture === "none") this.intent.hover(null);
      this.redraw();
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("keyup", (event) => {
      if (event.key === " ") this.space = false;
    });
    canvas.addEventListener("blur", () => {
      this.space = false;
      this.cursor = this.corner = null;
      this.redraw();
    });
  }

  /** Shows a picture (or video) of this size, fitted. */
  show(source: CanvasImageSource | null, width: number, height: number): void {
    this.source = source;
    this.width = width;
    this.height = height;
    this.cursor = this.corner = this.draft = this.painted = this.lastClick = null;
    this.brush = Math.max(2, Math.round(Math.max(width, height) / 60));
    this.fit();
  }

  draw(scene: Scene): void {
    this.scene = scene;
    this.redraw();
  }

  setTool(tool: Tool): void {
    this.tool = tool;
    this.corner = this.draft = null;
    this.painted = null;
    this.canvas.style.cursor = tool === "move" ? "grab" : "crosshair";
    this.redraw();
  }

  fit(): void {
    this.fitted = true;
    const { clientWidth, clientHeight } = this.canvas;
    if (!this.width || !clientWidth) return;
    const margin = Math.min(24, clientWidth * 0.03);
    this.scale = Math.min(
      (clientWidth - 2 * margin) / this.width,
      (clientHeight - 2 * margin) / this.height,
    );
    this.left = (clientWidth - this.width * this.scale) / 2;
    this.top = (clientHeight - this.height * this.scale) / 2;
    this.redraw();
  }

  /** Zooms about the pointer of the keyboard or the mouse, or about the middle of what is seen. */
  zoom(factor: number): void {
    const at = this.cursor ?? this.pointer;
    const { clientWidth, clientHeight } = this.canvas;
    const x = at ? at.x * this.scale + this.left : clientWidth / 2;
    const y = at ? at.y * this.scale + this.top : clientHeight / 2;
    this.zoomAt(factor, Math.min(Math.max(x, 0), clientWidth), Math.min(Math.max(y, 0), clientHeight));
  }

  /** Gives up what is half done: a box, a stroke. False if there was nothing. */
  cancelDraft(): boolean {
    const had = this.draft !== null || this.corner !== null || this.painted !== null;
    this.draft = this.corner = this.painted = null;
    if (this.gesture === "box" || this.gesture === "paint") this.gesture = "none";
    this.redraw();
    return had;
  }

  /** Photo pixels a screen pixel covers. */
  get pixel(): number {
    return 1 / this.scale;
  }

  redraw(): void {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.paint());
  }

  // --- drawing ------------------------------------------------------------------------------

  private resize(): void {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.canvas.clientHeight * ratio);
    if (this.fitted) this.fit();
    // Setting the size clears the canvas: paint before the browser shows it.
    cancelAnimationFrame(this.frame);
    this.paint();
  }

  private paint(): void {
    this.frame = 0;
    const { context, canvas, scale } = this;
    const ratio = canvas.width / Math.max(canvas.clientWidth, 1);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.source) return;
    // Where the photo is, for whoever drives the page from outside: its scale, left and top.
    canvas.dataset["transform"] = `${scale} ${this.left} ${this.top}`;
    const place = { scale: scale * ratio, left: this.left * ratio, top: this.top * ratio };
    this.ground.draw(context, this.source, this.width, this.height, place);

    const px = 1 / scale;
    const { objects, hover, points, change, pending } = this.scene;
    const ordered = [...objects].sort((a, b) => Number(a.selected) - Number(b.selected));
    for (const { path, color, selected } of ordered) {
      context.globalAlpha = selected ? 0.46 : 0.36;
      context.fillStyle = color;
      context.fill(path, "evenodd");
      context.globalAlpha = 1;
      if (selected) {
        this.stroke(path, "rgb(0 0 0 / 45%)", 4.5 * px);
        this.stroke(path, "#fff", 2.25 * px);
      } else {
        this.stroke(path, color, 1.5 * px);
      }
    }
    for (const path of this.scene.found ?? []) {
      this.stroke(path, "rgb(0 0 0 / 55%)", 3 * px);
      this.stroke(path, "#fff", 1.25 * px);
    }
    if (hover) {
      context.fillStyle = "rgb(255 255 255 / 26%)";
      context.fill(hover, "evenodd");
      this.stroke(hover, "rgb(0 0 0 / 40%)", 4 * px);
      if (change) context.setLineDash([7 * px, 4 * px]);
      this.stroke(hover, "#fff", 1.75 * px);
      context.setLineDash([]);
    }
    if (this.painted) this.strokeOf(this.painted);
    const box = this.draft ?? this.scene.box;
    if (box) this.rectangle(box, px);
    const selected = objects.find((object) => object.selected);
    for (const point of points) this.marker(point, selected?.color ?? "#fff", px);
    if (pending) this.marker(pending, "#fff", px);
    if (this.cursor) this.cross(this.cursor, px);
    else if (this.pointer && this.paints) this.ring(this.pointer, px);
  }

  private get paints(): boolean {
    return this.editable && (this.tool === "brush" || this.tool === "erase");
  }

  private strokeOf(places: readonly number[]): void {
    const path = new Path2D();
    path.moveTo(places[0]!, places[1]!);
    for (let i = 0; i < places.length; i += 2) path.lineTo(places[i]! + 0.001, places[i + 1]!);
    const { context } = this;
    context.save();
    context.lineCap = "round";
    this.stroke(path, this.tool === "erase" ? "rgb(20 20 15 / 55%)" : "rgb(255 255 255 / 55%)", 2 * this.brush);
    context.restore();
  }

  private ring({ x, y }: { x: number; y: number }, px: number): void {
    const path = new Path2D();
    path.arc(x, y, this.brush, 0, 2 * Math.PI);
    this.stroke(path, "rgb(0 0 0 / 60%)", 3 * px);
    this.stroke(path, "#fff", 1.5 * px);
  }

  private stroke(path: Path2D, style: string, width: number): void {
    this.context.strokeStyle = style;
    this.context.lineWidth = width;
    this.context.lineJoin = "round";
    this.context.stroke(path);
  }

  private rectangle(box: Box, px: number): void {
    const path = new Path2D();
    path.rect(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0);
    this.stroke(path, "rgb(0 0 0 / 50%)", 3 * px);
    this.context.setLineDash([6 * px, 4 * px]);
    this.stroke(path, "#fff", 1.5 * px);
    this.context.setLineDash([]);
  }

  private marker({ x, y, positive }: Point, color: string, px: number): void {
    const ring = new Path2D();
    ring.arc(x, y, 7 * px, 0, 2 * Math.PI);
    this.context.fillStyle = positive ? color : "#1d1d1a";
    this.context.fill(ring);
    this.stroke(ring, "rgb(0 0 0 / 50%)", 4 * px);
    this.stroke(ring, "#fff", 2 * px);
    const sign = new Path2D();
    sign.moveTo(x - 3.2 * px, y);
    sign.lineTo(x + 3.2 * px, y);
    if (positive) {
      sign.moveTo(x, y - 3.2 * px);
      sign.lineTo(x, y + 3.2 * px);
    }
    this.stroke(sign, positive ? "#10110f" : "#fff", 1.75 * px);
  }

  private cross({ x, y }: { x: number; y: number }, px: number): void {
    const path = new Path2D();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
      path.moveTo(x + dx * 4 * px, y + dy * 4 * px);
      path.lineTo(x + dx * 15 * px, y + dy * 15 * px);
    }
    this.stroke(path, "rgb(0 0 0 / 60%)", 4 * px);
    this.stroke(path, "#fff", 2 * px);
  }

  // --- pointers -----------------------------------------------------------------------------

  private place(event: PointerEvent | WheelEvent): { x: number; y: number } {
    const area = this.canvas.getBoundingClientRect();
    return {
      x: (event.clientX - area.left - this.left) / this.scale,
      y: (event.clientY - area.top - this.top) / this.scale,
    };
  }

  private within({ x, y }: { x: number; y: number }): boolean {
    return x >= 0 && y >= 0 && x < this.width && y < this.height;
  }

  private down(event: PointerEvent): void {
    if (!this.source) return;
    this.cursor = null;
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, {
      x: event.clientX, y: event.clientY, startX: event.clientX, startY: event.clientY,
    });
    clearTimeout(this.pressTimer);
    if (this.fingers.size === 2) {
      this.gesture = "pinch";
      this.draft = this.painted = null;
      return;
    }
    if (this.fingers.size > 2) return;
    if (this.editable && (event.button === 1 || this.space || this.tool === "move")) {
      event.preventDefault();
      this.gesture = "pan";
      return;
    }
    if (this.paints && event.button !== 2) {
      const at = this.place(event);
      this.gesture = "paint";
      this.painted = [at.x, at.y];
      this.redraw();
      return;
    }
    this.gesture = "press";
    if (event.pointerType !== "mouse" && this.editable) {
      this.pressTimer = window.setTimeout(() => {
        const at = this.place(event);
        if (this.gesture !== "press" || !this.within(at)) return;
        this.gesture = "none";
        navigator.vibrate?.(12);
        this.intent.click(at, { alternative: true, add: false, anew: false });
      }, LONG_PRESS);
    }
  }

  private move(event: PointerEvent): void {
    const finger = this.fingers.get(event.pointerId);
    const at = this.place(event);
    this.pointer = event.pointerType === "touch" ? null : at;
    if (!finger) {
      if (this.paints) this.redraw();
      if (event.pointerType === "mouse" || event.pointerType === "pen") {
        this.intent.hover(this.source && this.within(at) ? at : null);
      }
      return;
    }
    const dx = event.clientX - finger.x;
    const dy = event.clientY - finger.y;
    if (this.gesture === "pinch") {
      this.pinch(event, finger);
      return;
    }
    finger.x = event.clientX;
    finger.y = event.clientY;
    if (this.gesture === "press") {
      const far = Math.hypot(event.clientX - finger.startX, event.clientY - finger.startY);
      if (far < DRAG || !this.editable) return;
      clearTimeout(this.pressTimer);
      // A finger moves the photo unless the Box tool is chosen; a mouse draws a box.
      const boxes = this.tool === "box" || (this.tool === "pick" && event.pointerType === "mouse");
      this.gesture = boxes && (event.buttons & 1) === 1 ? "box" : "pan";
      this.intent.hover(null);
    }
    if (this.gesture === "pan") {
      this.pan(dx, dy);
    } else if (this.gesture === "paint" && this.painted) {
      this.painted.push(at.x, at.y);
      this.redraw();
    } else if (this.gesture === "box") {
      const area = this.canvas.getBoundingClientRect();
      this.draft = this.clipped(
        (finger.startX - area.left - this.left) / this.scale,
        (finger.startY - area.top - this.top) / this.scale,
        at.x,
        at.y,
      );
      this.redraw();
    }
  }

  private up(event: PointerEvent): void {
    clearTimeout(this.pressTimer);
    const at = this.place(event);
    const gesture = this.gesture;
    this.fingers.delete(event.pointerId);
    if (this.fingers.size > 0) return;
    this.gesture = "none";
    if (gesture === "press" && this.within(at) && event.button !== 1) {
      const { button, shiftKey, altKey, timeStamp: time, clientX: x, clientY: y } = event;
      const how = { alternative: button === 2, add: shiftKey, anew: altKey };
      const click = { time, x, y, meaning: JSON.stringify([this.tool, how]) };
      if (!isSecond(click, this.lastClick)) this.intent.click(at, how);
      this.lastClick = click;
    } else if (gesture === "paint" && this.painted) {
      const places = this.painted;
      this.painted = null;
      this.intent.stroke(places);
      this.redraw();
    } else if (gesture === "box") {
      this.finishBox();
    }
  }

  private cancel(event: PointerEvent): void {
    clearTimeout(this.pressTimer);
    this.fingers.delete(event.pointerId);
    if (this.fingers.size === 0) this.gesture = "none";
    this.draft = this.painted = null;
    this.redraw();
  }

  private finishBox(): void {
    const box = this.draft;
    this.draft = null;
    if (box && box.x1 - box.x0 >= 1 && box.y1 - box.y0 >= 1) this.intent.box(box);
    this.redraw();
  }

  private clipped(ax: number, ay: number, bx: number, by: number): Box {
    const clampX = (x: number): number => Math.min(Math.max(x, 0), this.width);
    const clampY = (y: number): number => Math.min(Math.max(y, 0), this.height);
    return {
      x0: clampX(Math.min(ax, bx)),
      y0: clampY(Math.min(ay, by)),
      x1: clampX(Math.max(ax, bx)),
      y1: clampY(Math.max(ay, by)),
    };
  }

  private pinch(event: PointerEvent, finger: Finger): void {
    const before = [...this.fingers.values()];
    const [a, b] = before;
    if (!a || !b) return;
    const distance = Math.hypot(a.x - b.x, a.y - b.y);
    const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    finger.x = event.clientX;
    finger.y = event.clientY;
    if (!this.editable) return;
    const area = this.canvas.getBoundingClientRect();
    const x = (a.x + b.x) / 2;
    const y = (a.y + b.y) / 2;
    this.pan(x - middle.x, y - middle.y);
    const now = Math.hypot(a.x - b.x, a.y - b.y);
    if (distance > 0) this.zoomAt(now / distance, x - area.left, y - area.top);
  }

  private wheel(event: WheelEvent): void {
    if (!this.source || !this.editable) return;
    event.preventDefault();
    const area = this.canvas.getBoundingClientRect();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.0016; // a pinch on a trackpad comes as Ctrl and wheel
    const factor = Math.exp(-event.deltaY * lines * speed);
    this.zoomAt(factor, event.clientX - area.left, event.clientY - area.top);
  }

  private zoomAt(factor: number, x: number, y: number): void {
    const { clientWidth, clientHeight } = this.canvas;
    const fit = Math.min(clientWidth / this.width, clientHeight / this.height);
    const next = Math.min(Math.max(this.scale * factor, fit * 0.5), Math.max(MOST_ZOOM, fit));
    const ratio = next / this.scale;
    this.scale = next;
    this.left = x - (x - this.left) * ratio;
    this.top = y - (y - this.top) * ratio;
    this.keepInSight();
  }

  private pan(dx: number, dy: number): void {
    this.left += dx;
    this.top += dy;
    this.keepInSight();
  }

  private keepInSight(): void {
    this.fitted = false;
    const { clientWidth, clientHeight } = this.canvas;
    const least = 60;
    this.left = Math.min(Math.max(this.left, least - this.width * this.scale), clientWidth - least);
    this.top = Math.min(Math.max(this.top, least - this.height * this.scale), clientHeight - least);
    this.redraw();
  }

  // --- keys ---------------------------------------------------------------------------------

  private key(event: KeyboardEvent): void {
    if (!this.source || event.ctrlKey || event.metaKey || (event.altKey && event.key !== "Enter")) return;
    const steps: Record<string, readonly [number, number]> = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    };
    const step = steps[event.key];
    if (step) {
      event.preventDefault();
      if (this.editable && this.tool === "move") {
        this.pan(-step[0] * (event.shiftKey ? 10 : 60), -step[1] * (event.shiftKey ? 10 : 60));
        return;
      }
      const length = event.shiftKey ? Math.max(1, this.pixel) : Math.max(this.width, this.height) / 40;
      const from = this.cursor ?? { x: this.width / 2, y: this.height / 2 };
      this.cursor = {
        x: Math.min(Math.max(from.x + step[0] * length, 0.5), this.width - 0.5),
        y: Math.min(Math.max(from.y + step[1] * length, 0.5), this.height - 0.5),
      };
      if (this.corner) {
        this.draft = this.clipped(this.corner.x, this.corner.y, this.cursor.x, this.cursor.y);
      }
      this.intent.hover(this.cursor);
      this.follow(this.cursor);
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.cursor ??= { x: this.width / 2, y: this.height / 2 };
      if (this.editable && this.tool === "box") {
        if (this.corner) {
          this.corner = null;
          this.finishBox();
        } else {
          this.corner = this.cursor;
          this.intent.corner();
        }
      } else if (this.editable && this.paints) {
        this.intent.stroke([this.cursor.x, this.cursor.y]);
      } else {
        this.intent.click(this.cursor, { alternative: false, add: event.shiftKey, anew: event.altKey });
      }
      this.redraw();
    } else if (event.key === " ") {
      event.preventDefault();
      this.space = true;
    }
  }

  /** Moves the photo so that a place on it is in sight. */
  private follow({ x, y }: { x: number; y: number }): void {
    const { clientWidth, clientHeight } = this.canvas;
    const margin = Math.min(40, clientWidth / 4, clientHeight / 4);
    const [sx, sy] = [x * this.scale + this.left, y * this.scale + this.top];
    const dx = Math.min(Math.max(sx, margin), clientWidth - margin) - sx;
    const dy = Math.min(Math.max(sy, margin), clientHeight - margin) - sy;
    if (!this.fitted && (dx !== 0 || dy !== 0)) this.pan(dx, dy);
    else this.redraw();
  }
}
