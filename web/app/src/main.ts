/** The page: wires photo, stage, document and worker together. */

import {
  cocoJson, cutoutPixels, derivedName, drawnPixels, encodePng, maskPixels, type Named, type Prompt,
  type Segmentation, type Segmenter, svg, trim,
} from "picosam2/custom";
import { Camera, CameraError } from "./camera";
import {
  addItem, addPoint, answerKey, boxPrompt, changeItem, type Doc, EMPTY, type Item, pointPrompt,
  removeItem, removePoint, select, selectedItem,
} from "./document";
import { History } from "./history";
import { openPhoto, type Photo, PhotoError, photoFrom } from "./photo";
import { Panel } from "./panel";
import { startSegmenter } from "./segmenter";
import { type Scene, Stage, type Tool } from "./stage";

const RESTS = 140; // ms without movement after which the preview is what a click would give
const NEAR = 12; // screen pixels within which a click hits a point

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

interface Answer {
  readonly segmentation: Segmentation;
  readonly path: Path2D;
}

class App {
  private readonly history = new History<Doc>(EMPTY);
  private readonly answers = new Map<string, Answer>();
  private readonly asked = new Set<string>();
  private photo: Photo | null = null;
  /** Counts photos, so that answers about an earlier one are dropped. */
  private epoch = 0;
  private ready: Promise<void>;

  private pointer: { x: number; y: number } | null = null;
  private hovering = false;
  private hoverPath: Path2D | null = null;
  private restTimer = 0;
  private hovers: number[] = [];

  private segmenter: Segmenter | null = null;
  private imageSet: Promise<void> = Promise.resolve();
  private readonly stage: Stage;
  private readonly panel: Panel;
  private readonly camera: Camera;
  private livePath: Path2D | null = null;
  private liveFrame = 0;
  private toastTimer = 0;

  constructor() {
    this.stage = new Stage(element<HTMLCanvasElement>("view"), {
      hover: (at) => this.hover(at),
      click: (at, how) => this.click(at, how),
      box: (box) => this.keep(boxPrompt(box)),
    });
    this.panel = new Panel({
      select: (id) => this.replace(select(this.doc, id)),
      rename: (id, name) => this.change(changeItem(this.doc, id, { name })),
      remove: (id) => this.change(removeItem(this.doc, id)),
      scale: (id, scale) => this.change(changeItem(this.doc, id, { scale })),
    });
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    this.camera = new Camera(
      () => this.segmenter,
      video,
      (tracked, scale) => {
        const path = new Path2D();
        for (const contour of tracked.contours) trace(path, contour, scale);
        this.livePath = tracked.found ? path : null;
        this.showSpeed(tracked.ms);
      },
      (error) => this.fail(error),
    );
    this.listen();
    this.ready = this.load();
    this.ready.catch((error: unknown) => this.fail(error));
  }

  private get doc(): Doc {
    return this.history.current;
  }

  // --- model and photo ----------------------------------------------------------------------

  private async load(): Promise<void> {
    this.segmenter = await startSegmenter(
      (share) => this.progress(share),
      () => {
        const model = element("model");
        model.textContent = model.textContent!.replace(/[^·]*$/, " WebGPU");
      },
    );
    const loaded = this.segmenter.model;
    element("progress").hidden = true;
    const threads = loaded.threads === 1 ? "1 thread" : `${loaded.threads} threads`;
    element("model").textContent =
      `${loaded.name} · ${megabytes(loaded.bytes)} · WebAssembly, ${threads}`;
    document.body.dataset["model"] = "ready";
  }

  private progress(share: number): void {
    const bar = element<HTMLProgressElement>("progress");
    bar.hidden = share >= 1;
    bar.value = share;
  }

  private async open(file: Blob, name: string): Promise<void> {
    try {
      await this.use(await openPhoto(file, name));
    } catch (error) {
      this.fail(error);
    }
  }

  private async use(photo: Photo): Promise<void> {
    this.stopCamera();
    this.photo?.bitmap.close();
    this.photo = photo;
    const epoch = ++this.epoch;
    this.history.reset(EMPTY);
    this.answers.clear();
    this.asked.clear();
    this.pointer = this.hoverPath = null;
    document.body.dataset["state"] = "photo";
    this.stage.show(photo.bitmap, photo.width, photo.height);
    this.panel.photo(photo);
    this.refresh();
    this.say(`${photo.name}, ${photo.width} by ${photo.height} pixels`);
    if (photo.original) {
      const { width, height } = photo.original;
      this.toast(`The photo has ${width} × ${height} pixels; it is worked on at ${photo.width} × ${photo.height}.`);
    }
    this.imageSet = this.ready.then(() => this.segmenter!.setImage(photo.image, { transfer: true }));
    await this.imageSet;
    if (epoch === this.epoch) document.body.dataset["photo"] = String(epoch);
  }

  private async sample(): Promise<void> {
    try {
      const response = await fetch(new URL("sample.jpg", document.baseURI));
      if (!response.ok) throw new PhotoError("The sample could not be fetched.");
      await this.open(await response.blob(), "sample.jpg");
    } catch (error) {
      this.fail(error);
    }
  }

  // --- pointing -----------------------------------------------------------------------------

  private hover(at: { x: number; y: number } | null): void {
    if (document.body.dataset["state"] !== "photo") return;
    this.pointer = at;
    clearTimeout(this.restTimer);
    if (!at || this.stage.tool === "move" || this.stage.tool === "box") {
      this.setHover(null);
      return;
    }
    this.restTimer = window.setTimeout(() => void this.preview(true), RESTS);
    void this.preview(false);
  }

  /** Asks for the mask under the pointer, unless an answer is still awaited; then asks again. */
  private async preview(whole: boolean): Promise<void> {
    if (!this.pointer || document.body.dataset["photo"] !== String(this.epoch)) return;
    if (this.hovering) {
      if (whole) this.restTimer = window.setTimeout(() => void this.preview(true), 15);
      return;
    }
    this.hovering = true;
    const asked = this.pointer;
    const epoch = this.epoch;
    try {
      const answer = await this.segmenter!.preview({ points: [asked] }, { whole });
      if (epoch === this.epoch && this.pointer) {
        this.setHover(answer ? pathOf(answer.contours) : null);
        this.showSpeed(answer?.ms ?? null);
        this.count();
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.hovering = false;
    }
    if (this.pointer && this.pointer !== asked) void this.preview(false);
  }

  /** How many previews the last second had, for whoever measures. */
  private count(): void {
    const now = performance.now();
    this.hovers = [...this.hovers.filter((time) => now - time < 1000), now];
    document.body.dataset["hovers"] = String(this.hovers.length);
  }

  private setHover(path: Path2D | null): void {
    this.hoverPath = path;
    this.draw();
  }

  private click(at: { x: number; y: number }, how: { alternative: boolean; add: boolean }): void {
    if (document.body.dataset["state"] === "live") {
      this.camera.follow(at);
      this.pressed("centre", false);
      return;
    }
    const current = selectedItem(this.doc);
    const { tool } = this.stage;
    if (tool === "move") return;
    const negative = how.alternative || tool === "remove";
    const positive = how.add || tool === "add";
    if (current && (negative || positive)) {
      const hit = this.pointAt(current, at);
      const edits = tool === "add" || tool === "remove";
      if (hit >= 0 && edits) this.change(removePoint(this.doc, current.id, hit));
      else this.change(addPoint(this.doc, current.id, { ...at, positive: !negative }));
    } else if (negative) {
      this.toast("Select an object first: then this takes away from it.");
    } else {
      this.keep(pointPrompt(at.x, at.y));
    }
  }

  private pointAt(item: Item, at: { x: number; y: number }): number {
    const near = NEAR * this.stage.pixel;
    return item.prompt.points.findIndex((p) => Math.hypot(p.x - at.x, p.y - at.y) <= near);
  }

  private keep(prompt: Prompt): void {
    this.setHover(null);
    this.change(addItem(this.doc, prompt));
  }

  // --- the document -------------------------------------------------------------------------

  private change(doc: Doc): void {
    this.history.push(doc);
    this.refresh();
  }

  private replace(doc: Doc): void {
    this.history.replace(doc);
    this.refresh();
  }

  private undo(): void {
    if (this.history.undo()) this.refresh();
  }

  private redo(): void {
    if (this.history.redo()) this.refresh();
  }

  /** Shows the document as it is now, and asks for the masks it lacks. */
  private refresh(): void {
    for (const item of this.doc.items) void this.ask(item);
    this.panel.show(this.doc, (item) => this.answers.get(answerKey(item))?.segmentation ?? null);
    element<HTMLButtonElement>("tools")
      .querySelectorAll<HTMLButtonElement>("[data-action]")
      .forEach((button) => {
        const undo = button.dataset["action"] === "undo";
        button.disabled = undo ? !this.history.canUndo : !this.history.canRedo;
      });
    this.draw();
  }

  private async ask(item: Item): Promise<void> {
    const key = answerKey(item);
    if (this.answers.has(key) || this.asked.has(key)) return;
    this.asked.add(key);
    const epoch = this.epoch;
    try {
      const { prompt, scale } = item;
      await this.imageSet;
      const segmentation = await this.segmenter!.predict(prompt, { scale });
      if (epoch !== this.epoch || !segmentation) return;
      this.answers.set(key, { segmentation, path: pathOf(segmentation.contours) });
      this.showSpeed(segmentation.ms);
      document.body.dataset["ms"] = String(segmentation.ms); // for whoever measures
      if (segmentation.contours.length === 0) this.toast("Nothing was found there. Try another place or a box.");
      else this.say(`${item.name}: predicted quality ${percent(segmentation.score)}`);
      this.refresh();
    } catch (error) {
      this.fail(error);
    } finally {
      this.asked.delete(key);
    }
  }

  private draw(): void {
    if (document.body.dataset["state"] === "live") return;
    const current = selectedItem(this.doc);
    const scene: Scene = {
      objects: this.doc.items.flatMap((item) => {
        const answer = this.answers.get(answerKey(item));
        const selected = item === current;
        return answer ? [{ path: answer.path, color: item.color, selected }] : [];
      }),
      hover: this.hoverPath,
      points: current?.prompt.points ?? [],
      box: current?.prompt.box ?? null,
    };
    this.stage.draw(scene);
  }

  // --- taking away --------------------------------------------------------------------------

  private objects(all: boolean): Named[] {
    const current = selectedItem(this.doc);
    const items = all || !current ? this.doc.items : [current];
    return items.flatMap((item) => {
      const answer = this.answers.get(answerKey(item));
      if (!answer) return [];
      const { mask, alpha, score } = answer.segmentation;
      return [{ name: item.name, color: item.color, prompt: item.prompt, score, mask, alpha }];
    });
  }

  private async save(what: string): Promise<void> {
    const { photo } = this;
    if (!photo) return;
    const all = document.querySelector<HTMLInputElement>('input[name="which"]:checked')?.value === "all";
    const objects = this.objects(all);
    if (objects.length === 0) {
      this.toast("There is nothing to save yet: keep an object first.");
      return;
    }
    const { width, height } = photo;
    const sheet = { fileName: photo.name, width, height };
    try {
      if (what === "mask") {
        download(await encodePng(maskPixels(sheet, objects), width, height), derivedName(photo.name, "-mask.png"));
      } else if (what === "cutout") {
        download(await this.cutout(photo, objects, false), derivedName(photo.name, "-cutout.png"));
      } else if (what === "copy") {
        await this.copy(photo, objects);
      } else if (what === "svg") {
        download(new Blob([svg(sheet, objects)], { type: "image/svg+xml" }), derivedName(photo.name, ".svg"));
      } else {
        download(new Blob([cocoJson(sheet, objects)], { type: "application/json" }), derivedName(photo.name, ".json"));
      }
    } catch (error) {
      this.fail(error);
    }
  }

  private cutout(photo: Photo, objects: readonly Named[], cropped: boolean): Promise<Blob> {
    const { width, height } = photo;
    const { data } = drawnPixels(photo.bitmap, width, height);
    const pixels = cutoutPixels({ fileName: photo.name, width, height }, data, objects);
    const result = cropped ? trim(pixels, width, height) : { pixels, width, height };
    return encodePng(result.pixels, result.width, result.height);
  }

  private async copy(photo: Photo, objects: readonly Named[]): Promise<void> {
    if (typeof ClipboardItem === "undefined" || !navigator.clipboard?.write) {
      this.toast("This browser cannot copy pictures. Save the cut-out instead.");
      return;
    }
    try {
      // The promise is given as it is: Safari forgets the click while one waits.
      const item = new ClipboardItem({ "image/png": this.cutout(photo, objects, true) });
      await navigator.clipboard.write([item]);
      this.toast("Copied. Paste it anywhere.");
    } catch {
      this.toast("The browser did not allow copying. Save the cut-out instead.");
    }
  }

  // --- camera -------------------------------------------------------------------------------

  private async startCamera(): Promise<void> {
    try {
      await this.ready;
      await this.camera.start();
    } catch (error) {
      this.fail(error);
      return;
    }
    const { video } = this.camera;
    document.body.dataset["state"] = "live";
    element("live").hidden = false;
    this.pressed("centre", true);
    this.stage.editable = false;
    this.hoverPath = this.livePath = null;
    this.stage.show(video, video.videoWidth, video.videoHeight);
    const paint = (): void => {
      this.stage.draw({ objects: [], hover: this.livePath, points: [], box: null });
      this.liveFrame = requestAnimationFrame(paint);
    };
    paint();
  }

  private stopCamera(): void {
    if (document.body.dataset["state"] !== "live") return;
    cancelAnimationFrame(this.liveFrame);
    this.camera.stop();
    this.stage.editable = true;
    element("live").hidden = true;
    document.body.dataset["state"] = this.photo ? "photo" : "empty";
    this.stage.show(this.photo?.bitmap ?? null, this.photo?.width ?? 0, this.photo?.height ?? 0);
    this.draw();
    this.showSpeed(null);
  }

  private async shoot(): Promise<void> {
    try {
      await this.use(await photoFrom(this.camera.video, "camera.jpg"));
    } catch (error) {
      this.fail(error);
    }
  }

  // --- what is said -------------------------------------------------------------------------

  private showSpeed(ms: number | null): void {
    const chip = element("speed");
    chip.hidden = ms === null;
    if (ms !== null) chip.textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  }

  private say(text: string): void {
    element("said").textContent = text;
  }

  private toast(text: string, error = false): void {
    const toast = element("toast");
    toast.querySelector("p")!.textContent = text;
    toast.classList.toggle("error", error);
    toast.hidden = false;
    clearTimeout(this.toastTimer);
    this.toastTimer = window.setTimeout(() => (toast.hidden = true), error ? 12000 : 5000);
  }

  private fail(error: unknown): void {
    const known = error instanceof PhotoError || error instanceof CameraError;
    const text = error instanceof Error ? error.message : String(error);
    this.toast(known ? text : `Something went wrong: ${text}`, true);
  }

  // --- events -------------------------------------------------------------------------------

  private setTool(tool: Tool): void {
    this.stage.setTool(tool);
    document.querySelectorAll<HTMLButtonElement>("[data-tool]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset["tool"] === tool));
    });
    if (tool === "move" || tool === "box") this.setHover(null);
  }

  private pressed(action: string, value: boolean): void {
    document.querySelector(`[data-action="${action}"]`)?.setAttribute("aria-pressed", String(value));
  }

  private act(action: string): void {
    switch (action) {
      case "open": element<HTMLInputElement>("file").click(); break;
      case "sample": void this.sample(); break;
      case "camera": void this.startCamera(); break;
      case "stop-camera": this.stopCamera(); break;
      case "shoot": void this.shoot(); break;
      case "centre":
        this.camera.follow(null);
        this.pressed("centre", true);
        break;
      case "help": element<HTMLDialogElement>("help").showModal(); break;
      case "undo": this.undo(); break;
      case "redo": this.redo(); break;
      case "zoom-in": this.stage.zoom(1.4); break;
      case "zoom-out": this.stage.zoom(1 / 1.4); break;
      case "fit": this.stage.fit(); break;
      case "dismiss": element("toast").hidden = true; break;
    }
  }

  private listen(): void {
    document.addEventListener("click", (event) => {
      const button = (event.target as Element).closest<HTMLElement>("[data-action],[data-tool],[data-save]");
      if (!button) return;
      const { action, tool, save } = button.dataset;
      if (action) this.act(action);
      if (tool) this.setTool(tool as Tool);
      if (save) void this.save(save);
    });
    document.addEventListener("keydown", (event) => this.key(event));

    const input = element<HTMLInputElement>("file");
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      input.value = "";
      if (file) void this.open(file, file.name);
    });
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])][0];
      if (!file) return;
      event.preventDefault();
      void this.open(file, file.name || "pasted.png");
    });
    let depth = 0;
    const drop = element("drop");
    document.addEventListener("dragenter", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      depth++;
      drop.hidden = false;
    });
    document.addEventListener("dragleave", () => {
      depth = Math.max(0, depth - 1);
      if (depth === 0) drop.hidden = true;
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      depth = 0;
      drop.hidden = true;
      const file = event.dataTransfer?.files[0];
      if (file) void this.open(file, file.name);
    });
  }

  private key(event: KeyboardEvent): void {
    if (event.target instanceof HTMLInputElement && event.target.type === "text") return;
    if (element<HTMLDialogElement>("help").open) return;
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    if (command) {
      if (key === "z" && event.shiftKey) this.redo();
      else if (key === "z") this.undo();
      else if (key === "y") this.redo();
      else if (key === "o") this.act("open");
      else if (key === "c" && this.doc.items.length > 0 && !getSelection()?.toString()) void this.save("copy");
      else return;
      event.preventDefault();
      return;
    }
    if (event.altKey) return;
    const tools: Record<string, Tool> = { v: "pick", b: "box", a: "add", r: "remove", h: "move" };
    const current = selectedItem(this.doc);
    const tool = tools[key];
    if (tool) this.setTool(tool);
    else if (key === "?") this.act("help");
    else if (key === "+" || key === "=") this.act("zoom-in");
    else if (key === "-") this.act("zoom-out");
    else if (key === "0") this.act("fit");
    else if (key === "[" || key === "]") this.step(key === "]" ? 1 : -1);
    else if (/^[1-9]$/.test(key)) {
      const item = this.doc.items[Number(key) - 1];
      if (item) this.replace(select(this.doc, item.id));
    } else if (key === "escape") {
      if (document.body.dataset["state"] === "live") this.stopCamera();
      else if (current) this.replace(select(this.doc, null));
    } else if ((key === "delete" || key === "backspace") && current) {
      this.change(removeItem(this.doc, current.id));
    } else return;
    event.preventDefault();
  }

  /** The next smaller or larger window for the selected click. */
  private step(direction: number): void {
    const current = selectedItem(this.doc);
    const answer = current && this.answers.get(answerKey(current));
    if (!current || !answer || answer.segmentation.scales.length === 0) return;
    const { scale, scales } = answer.segmentation;
    const next = Math.min(Math.max(scale + direction, 0), scales.length - 1);
    if (next !== scale) this.change(changeItem(this.doc, current.id, { scale: next }));
  }
}

function pathOf(contours: readonly Float64Array[]): Path2D {
  const path = new Path2D();
  for (const contour of contours) trace(path, contour, 1);
  return path;
}

/**
 * Adds a contour, its corners rounded: a mask's contour is made of pixels' edges, the object's is
 * not. Long sides stay where they are, because a corner is cut by `ROUNDING` pixels at most.
 */
function trace(path: Path2D, contour: Float64Array, scale: number): void {
  const n = contour.length;
  const at = (i: number): [number, number] => [contour[i % n]! * scale, contour[(i + 1) % n]! * scale];
  for (let i = 0; i < n; i += 2) {
    const [x, y] = at(i);
    const [fromX, fromY] = towards(x, y, ...at(i + n - 2), scale);
    const [toX, toY] = towards(x, y, ...at(i + 2), scale);
    if (i === 0) path.moveTo(fromX, fromY);
    else path.lineTo(fromX, fromY);
    path.quadraticCurveTo(x, y, toX, toY);
  }
  path.closePath();
}

const ROUNDING = 3;

function towards(x: number, y: number, x1: number, y1: number, scale: number): [number, number] {
  const length = Math.hypot(x1 - x, y1 - y);
  const share = Math.min(0.5, (ROUNDING * scale) / Math.max(length, 1e-9));
  return [x + (x1 - x) * share, y + (y1 - y) * share];
}

function download(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

export const app = new App();

if (import.meta.env.PROD && "serviceWorker" in navigator) {
  void navigator.serviceWorker.register(new URL("sw.js", document.baseURI));
}
