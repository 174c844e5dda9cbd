/** The page: wires photos, stage, document and model together. */

import {
  area, covers, drawnPixels, type FoundObject, maskFromPixels, MaskFileError, ModelError, type Mask, type Named, paint,
  type Point, type Prompt, PromptError, type PromptLike, readCoco, type Segmentation, type Segmenter, shrunk, grown,
} from "picosam2/custom";
import { type Answer, answerOf, drawnAnswer, pathOf, questionOf } from "./answers";
import { Camera, CameraError } from "./camera";
import { answered, Changes } from "./changes";
import {
  addItem, addPoint, answerKey, boxPrompt, changeItem, type Doc, EMPTY, isDrawn, type Item, pointAt, pointPrompt,
  removeItem, removePoint, select, selectedItem, setMask,
} from "./document";
import { Finding } from "./finding";
import { History } from "./history";
import { Panel } from "./panel";
import { offerInstall } from "./install";
import { frameOf, fullPixels, isReduced, measurePhoto, openPhoto, type Photo, PhotoError } from "./photo";
import { type Background, cutout, fileOf, type Saving } from "./saving";
import { startSegmenter } from "./segmenter";
import { Sheet } from "./sheet";
import { type How, type Scene, Stage, type Tool } from "./stage";
import { Store } from "./store";
import { STRINGS } from "./strings";
import { Strip } from "./strip";
import { Toolbar } from "./toolbar";
import { watchForUpdates } from "./updates";
import { Welcome } from "./welcome";
import {
  addSheet, changeDoc, currentSheet, NOTHING, removeSheet, showSheet, unsavedAfter, unsavedWithout, type Workspace,
} from "./workspace";

const RESTS = 140; // ms without movement after which the preview is what a click would give
const NEAR = 12; // screen pixels within which a click hits a point
const SETTLED = 3000; // ms after the model is there, from which on the page is kept for use without a network
const KEEP_AFTER = 400; // ms of rest after which work is written to the browser's storage

function element<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
}

class App {
  private readonly history = new History<Workspace>(NOTHING);
  private readonly photos = new Map<number, Blob>();
  /** Answers of the photo in sight; null where nothing is found any more. */
  private readonly answers = new Map<string, Answer | null>();
  private readonly asked = new Set<string>();
  private photo: Photo | null = null;
  /** The sheet that `photo` belongs to. */
  private shown: number | null = null;
  /** Counts what is shown, so that what was asked for an earlier photo is dropped. */
  private epoch = 0;
  /** The epoch that an undo or a redo began: what it did is said, not which photo is shown. */
  private undoEpoch = -1;
  private nextPhoto = 1;
  /** Photos with objects that no file has. */
  private unsaved: ReadonlySet<number> = new Set();

  private segmenter: Segmenter | null = null;
  private ready: Promise<void> = Promise.resolve();
  private imageSet: Promise<void> = Promise.resolve();
  private readonly changes = new Changes((error) => this.fail(error));
  private pending: Point | null = null;

  private store: Store | null = null;
  /** Done when the work of last time is here again: photos that are opened come after it. */
  private readonly restored: Promise<void>;
  private keepTimer = 0;

  private pointer: { x: number; y: number } | null = null;
  private hovering = false;
  private hoverPath: Path2D | null = null;
  /** What `hoverPath` was shown for: it says nothing of another document. */
  private hoverDoc: Doc = EMPTY;
  private restTimer = 0;
  private hovers: number[] = [];
  /** Answers of the model, for whoever tests. */
  private answered = 0;

  private readonly stage: Stage;
  private readonly panel: Panel;
  private readonly strip: Strip;
  private readonly finding: Finding;
  /** What was found in photos, so that it is shown at once the next time. */
  private readonly searched = new WeakMap<Photo, readonly FoundObject[]>();
  private readonly sheet: Sheet;
  private readonly toolbar = new Toolbar(element("tools"));
  private readonly camera: Camera;
  private livePath: Path2D | null = null;
  private liveFrame = 0;
  private toastTimer = 0;
  private toastAction: (() => void) | null = null;

  constructor() {
    this.stage = new Stage(element<HTMLCanvasElement>("view"), {
      hover: (at) => this.hover(at),
      click: (at, how) => this.click(at, how),
      box: (box) => this.keep(boxPrompt(box)),
      stroke: (places) => this.stroke(places),
      corner: () => this.say(STRINGS.boxStarted),
    });
    this.panel = new Panel({
      select: (id) => this.choose(id),
      rename: (id, name) =>
        this.change(changeItem(this.doc, id, { name }), STRINGS.did.rename(name)),
      remove: (id) => this.delete(id),
      scale: (id, scale) => this.rescale(id, scale),
    });
    this.strip = new Strip({
      show: (id) => {
        this.stopCamera();
        this.history.replace(showSheet(this.history.current, id));
        this.refresh();
      },
      close: (id) => {
        this.stopCamera();
        this.closePhoto(id);
      },
    });
    this.finding = new Finding({
      take: (object) => this.keep(boxPrompt(object.box)),
      point: (object) => this.setHover(object && this.finding.path(object)),
    });
    this.sheet = new Sheet(element("panel"));
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.addEventListener("resize", () => {
      if (!this.live) return; // a phone was turned: what was followed is elsewhere in the picture now
      this.stage.show(video, video.videoWidth, video.videoHeight);
      this.livePath = null;
      this.camera.follow(null);
    });
    this.camera = new Camera(
      () => this.segmenter,
      video,
      (tracked, scale) => {
        this.livePath = tracked.found ? pathOf(tracked.contours, scale) : null;
        this.showSpeed(tracked.ms);
      },
      (error) => this.fail(error),
    );
    new Welcome(element("welcome"), (point) => void this.sample(point));
    this.listen();
    this.load();
    this.restored = this.restore();
    offerInstall(element<HTMLButtonElement>("install"));
    void this.ready.catch(() => undefined).then(() => setTimeout(() => this.watch(), SETTLED));
  }

  /** Not at once: what is kept would share the line with what the first mask needs. */
  private watch(): void {
    watchForUpdates((takeOver) => this.toast(STRINGS.newVersion, { action: STRINGS.reload, run: takeOver }));
  }

  private get workspace(): Workspace {
    return this.history.current;
  }

  private get doc(): Doc {
    return currentSheet(this.workspace)?.doc ?? EMPTY;
  }

  private get live(): boolean {
    return document.body.dataset["state"] === "live";
  }

  // --- the model ----------------------------------------------------------------------------

  /** Loads the model; after a failure it can be called again. */
  private load(): void {
    element("retry").hidden = true;
    this.ready = this.start();
    this.ready.catch((error: unknown) => {
      element("progress").hidden = true;
      element("retry").hidden = false;
      element("model").textContent = STRINGS.modelFailed;
      this.fail(error);
    });
  }

  private async start(): Promise<void> {
    let onGpu = false;
    const describe = (): void => {
      if (!this.segmenter) return;
      const { name, bytes, threads } = this.segmenter.model;
      const megabytes = (bytes / 1e6).toFixed(1);
      element("model").textContent = onGpu
        ? STRINGS.modelOnGpu(name, megabytes)
        : STRINGS.modelReady(name, megabytes, threads);
    };
    this.segmenter = await startSegmenter(
      (share) => {
        const bar = element<HTMLProgressElement>("progress");
        bar.hidden = share >= 1;
        bar.value = share;
      },
      () => {
        onGpu = true;
        describe();
      },
    );
    element("progress").hidden = true;
    describe();
    document.body.dataset["model"] = "ready";
  }

  private async retry(): Promise<void> {
    this.load();
    await this.ready;
    if (this.photo) this.giveImage(Promise.resolve(), this.epoch);
    this.refresh();
  }

  // --- photos -------------------------------------------------------------------------------

  /** Opens files in the order they were chosen; the last is shown, whichever is read first. Gives the ids of those that are images. */
  private async open(files: readonly { blob: Blob; name: string }[]): Promise<readonly number[]> {
    this.stopCamera();
    await this.restored;
    const opened: number[] = [];
    const work = files.map(async ({ blob, name }) => {
      const id = this.nextPhoto++;
      try {
        const { width, height } = await measurePhoto(blob, name);
        this.photos.set(id, blob);
        const added = addSheet(this.workspace, { id, name, width, height });
        this.commit(added, STRINGS.did.open(name));
        opened.push(id);
      } catch (error) {
        this.fail(error);
      }
    });
    await Promise.all(work);
    const { activeElement } = document;
    // What was pressed is gone with the welcome: the photo is where one goes on.
    if (this.workspace.current !== null && (!activeElement || activeElement === document.body || !isSeen(activeElement))) {
      element("view").focus();
    }
    return opened;
  }

  private closePhoto(id: number): void {
    const name = this.workspace.sheets.find((sheet) => sheet.id === id)?.name ?? "";
    this.commit(removeSheet(this.workspace, id), STRINGS.did.closePhoto(name));
  }

  /** Shows the photo that the workspace says is current, if another one is shown. */
  private showCurrent(): void {
    const sheet = currentSheet(this.workspace);
    if ((sheet?.id ?? null) === this.shown) return;
    this.shown = sheet?.id ?? null;
    const epoch = ++this.epoch;
    this.leaveFinding();
    this.answers.clear();
    this.asked.clear();
    this.pointer = this.hoverPath = this.pending = null;
    delete document.body.dataset["photo"];
    this.photo?.bitmap.close();
    this.photo = null;
    this.panel.photo(null);
    this.stage.show(null, 0, 0);
    if (!this.live) document.body.dataset["state"] = sheet ? "photo" : "empty";
    const blob = sheet && this.photos.get(sheet.id);
    if (!blob) {
      this.showSpeed(null);
      return;
    }
    const opened = openPhoto(blob, sheet.name).then((photo) => {
      if (epoch !== this.epoch) {
        photo.bitmap.close();
        return;
      }
      this.photo = photo;
      if (!this.live) this.stage.show(photo.bitmap, photo.width, photo.height);
      this.panel.photo({ bitmap: photo.bitmap, step: photo.width / photo.bitmap.width });
      if (epoch !== this.undoEpoch) this.say(STRINGS.openedPhoto(photo.name, photo.width, photo.height));
      if (isReduced(photo)) this.toast(STRINGS.reduced(photo.name, photo.width, photo.height));
      this.refresh();
    });
    opened.catch((error: unknown) => this.fail(error));
    this.giveImage(opened, epoch);
  }

  /** The segmenter gets the photo's pixels, as soon as both are there. */
  private giveImage(opened: Promise<void>, epoch: number): void {
    this.imageSet = opened.then(async () => {
      await this.ready;
      if (epoch !== this.epoch || !this.photo) return;
      const { image, width, height } = this.photo;
      await this.segmenter!.setImage(image, { width, height });
      if (epoch === this.epoch) document.body.dataset["photo"] = String(epoch);
    });
    this.imageSet.catch(() => undefined); // told by whoever loads the photo or the model
  }

  private async sample(point: { x: number; y: number } | null): Promise<void> {
    try {
      const response = await fetch(new URL("sample.jpg", document.baseURI));
      if (!response.ok) throw new PhotoError(STRINGS.noSample);
      const [id] = await this.open([{ blob: await response.blob(), name: "sample.jpg" }]);
      if (point && id !== undefined && id === this.shown) this.keep(pointPrompt(point.x, point.y));
    } catch (error) {
      this.fail(error);
    }
  }

  // --- keeping work -------------------------------------------------------------------------

  private async restore(): Promise<void> {
    const store = await Store.open();
    const kept = await store?.load().catch(() => null);
    this.store = store;
    if (!kept) return;
    for (const [id, blob] of kept.photos) this.photos.set(id, blob);
    this.nextPhoto = Math.max(this.nextPhoto, kept.workspace.nextId);
    this.history.reset(kept.workspace);
    this.refresh();
    this.toast(STRINGS.restored);
  }

  private keepWork(): void {
    clearTimeout(this.keepTimer);
    this.keepTimer = window.setTimeout(() => void this.writeWork(), KEEP_AFTER);
  }

  private async writeWork(): Promise<void> {
    clearTimeout(this.keepTimer);
    this.keepTimer = 0;
    await this.store?.save(this.workspace, this.photos);
    document.body.dataset["kept"] = String(this.workspace.sheets.length); // for whoever tests
  }

  // --- pointing -----------------------------------------------------------------------------

  private hover(at: { x: number; y: number } | null): void {
    if (document.body.dataset["state"] !== "photo") return;
    this.pointer = at;
    clearTimeout(this.restTimer);
    const { tool } = this.stage;
    const current = selectedItem(this.doc);
    const corrects = (tool === "add" || tool === "remove") && current;
    const found = at && this.foundAt(at);
    if (found) {
      this.setHover(this.finding.path(found));
      this.stage.canvas.style.cursor = "pointer";
      return;
    }
    const under = at && tool === "pick" ? this.itemAt(at) : null;
    if (!at || under || !(tool === "pick" || corrects)) {
      this.setHover(under && under !== current ? (this.answer(under)?.path ?? null) : null);
      this.stage.canvas.style.cursor = under ? "pointer" : tool === "move" ? "grab" : "crosshair";
      return;
    }
    this.stage.canvas.style.cursor = "crosshair";
    this.restTimer = window.setTimeout(() => void this.preview(true), RESTS);
    void this.preview(false);
  }

  /** Asks for the mask a click would give, unless an answer is still awaited; then asks again. */
  private async preview(whole: boolean): Promise<void> {
    if (!this.pointer || document.body.dataset["photo"] !== String(this.epoch)) return;
    if (this.hovering) {
      if (whole) this.restTimer = window.setTimeout(() => void this.preview(true), 15);
      return;
    }
    const asked = this.pointer;
    const asks = this.hypothesis(asked);
    if (!asks) return;
    this.hovering = true;
    const { epoch, doc, stage: { tool } } = this;
    try {
      const answer = await this.segmenter!.preview(asks.question, { whole, scale: asks.scale });
      const old = epoch !== this.epoch || doc !== this.doc || tool !== this.stage.tool;
      if (!old && this.pointer && !this.itemAtPick(this.pointer) && !this.foundAt(this.pointer)) {
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

  /** What a click here would ask: a new object, or the selected one with a point more, at its scale. */
  private hypothesis(at: { x: number; y: number }): { question: PromptLike; scale: number | null } | null {
    const { tool, pixel } = this.stage;
    const point = { ...at, positive: tool !== "remove" };
    if (tool === "pick") return { question: { points: [point] }, scale: null };
    const current = selectedItem(this.doc);
    if (!current || !(tool === "add" || tool === "remove")) return null;
    if (pointAt(current, at, NEAR * pixel)) return null; // a click here takes that point away
    const { prompt, scale } = current;
    const question = questionOf({ ...current, prompt: { ...prompt, points: [...prompt.points, point] } });
    return question && { question, scale };
  }

  /** How many previews the last second had, for whoever measures. */
  private count(): void {
    const now = performance.now();
    this.hovers = [...this.hovers.filter((time) => now - time < 1000), now];
    document.body.dataset["hovers"] = String(this.hovers.length);
  }

  private setHover(path: Path2D | null): void {
    this.hoverPath = path;
    this.hoverDoc = this.doc;
    this.draw();
  }

  /** The smallest object at a place. */
  private itemAt(at: { x: number; y: number }): Item | null {
    let found: Item | null = null;
    let least = Infinity;
    for (const item of this.doc.items) {
      const mask = this.answer(item)?.mask;
      if (!mask || mask.width * mask.height >= least || !covers(mask, at.x, at.y)) continue;
      found = item;
      least = mask.width * mask.height;
    }
    return found;
  }

  private itemAtPick(at: { x: number; y: number }): Item | null {
    return this.stage.tool === "pick" ? this.itemAt(at) : null;
  }

  private click(at: { x: number; y: number }, how: How): void {
    if (this.live) {
      this.camera.follow(at);
      this.pressed("center", false);
      return;
    }
    const { tool } = this.stage;
    if (tool === "move") return;
    const negative = how.alternative || tool === "remove";
    if (negative || how.add || tool === "add") {
      this.correct(at, !negative);
      return;
    }
    const found = how.anew ? null : this.foundAt(at);
    const under = how.anew ? null : this.itemAt(at);
    if (found) this.keep(boxPrompt(found.box));
    else if (under) this.choose(under.id);
    else this.keep(pointPrompt(at.x, at.y), how.anew);
  }

  // --- everything ---------------------------------------------------------------------------

  /** Shows all objects of the photo as outlines to click, or leaves that. */
  private everything(): void {
    if (this.finding.isOff) void this.find();
    else this.stopFinding();
  }

  private async find(): Promise<void> {
    const { epoch } = this;
    const signal = this.finding.begin();
    this.pressed("everything", true);
    this.setTool("pick");
    this.showSpeed(null);
    try {
      await this.imageSet;
      const { photo } = this;
      if (signal.aborted || epoch !== this.epoch || !photo) return;
      let found = this.searched.get(photo);
      if (!found) {
        this.say(STRINGS.searchBegun);
        this.showSearch(0);
        const onProgress = (share: number): void => {
          if (!signal.aborted) this.showSearch(share);
        };
        found = await this.segmenter!.everything({ signal, onProgress });
        if (signal.aborted || epoch !== this.epoch) return;
        this.searched.set(photo, found);
      }
      this.finding.show(found, photo.width, photo.height);
      this.showSpeed(null);
      if (found.length === 0) this.leaveFinding();
      this.refresh();
      this.toast(found.length === 0 ? STRINGS.foundNone : STRINGS.foundObjects(found.length));
    } catch (error) {
      if (signal.aborted) return;
      this.leaveFinding();
      this.fail(error);
    }
  }

  /** The smallest found object at a place, unless a smaller kept one is there, too. */
  private foundAt(at: { x: number; y: number }): FoundObject | null {
    if (this.stage.tool !== "pick") return null;
    const found = this.finding.at(at);
    const kept = found && this.itemAt(at);
    const mask = kept && this.answer(kept)?.mask;
    return mask && area(mask) <= found.area ? null : found;
  }

  /** Escape, or the button again. */
  private stopFinding(): void {
    this.say(this.finding.searching ? STRINGS.searchEnded : STRINGS.foundLeft);
    const { activeElement } = document;
    this.leaveFinding();
    // The list goes, and what had the focus with it.
    if (activeElement && activeElement !== document.body && !isSeen(activeElement)) element("view").focus();
    this.draw();
  }

  private leaveFinding(): void {
    if (this.finding.isOff) return;
    this.finding.leave();
    this.pressed("everything", false);
    this.hoverPath = null;
    this.showSpeed(null);
  }

  // --- changes that the model answers -------------------------------------------------------

  /** Does work after all earlier changes, unless another photo is shown by then; meanwhile a mark is shown at `at`. */
  private edit(work: () => Promise<void> | void, at: Point | null = null, makes = false): void {
    const { epoch } = this;
    if (at) this.pending = at;
    const inTurn = async (): Promise<void> => {
      if (epoch === this.epoch) await work();
    };
    const done = makes ? this.changes.make(inTurn) : this.changes.add(inTurn);
    void done.then(() => {
      if (this.pending === at) this.pending = null;
      this.draw();
    });
  }

  /** A new object, if there is one; `anew` also where one is kept already. */
  private keep(prompt: Prompt, anew = false): void {
    const [point = null] = prompt.points;
    const work = async (): Promise<void> => {
      // Clicked once more while its mask was awaited.
      const same = this.kept(prompt) ?? (point && !anew ? this.itemAt(point) : null);
      if (same) {
        this.select(same.id);
        return;
      }
      const found = await this.predict(prompt, null);
      if (!found) return;
      const doc = addItem(this.doc, prompt);
      const item = selectedItem(doc)!;
      this.answers.set(answerKey(item), answerOf(found));
      this.fillScales(answerKey(item), item, found);
      this.change(doc, STRINGS.did.keep(item.name));
      this.say(STRINGS.kept(item.name, found.score));
    };
    this.edit(work, point && { ...point }, true);
    this.setHover(null);
  }

  /** The object that a box gave. */
  private kept({ box }: Prompt): Item | null {
    if (!box) return null;
    const same = JSON.stringify(boxPrompt(box));
    return this.doc.items.find((item) => !item.mask && JSON.stringify(item.prompt) === same) ?? null;
  }

  /** A click on the object or off it, or one less: which object and which click is seen when its turn comes. */
  private correct(at: { x: number; y: number }, positive: boolean): void {
    if (!this.changes.hasTarget(this.doc)) {
      if (positive) this.keep(pointPrompt(at.x, at.y), true);
      else this.toast(STRINGS.selectFirst);
      return;
    }
    const target = this.changes.target(this.doc);
    const { pixel, tool } = this.stage;
    const edits = tool === "add" || tool === "remove";
    const work = async (): Promise<void> => {
      const item = target(this.doc);
      if (!item) {
        this.toast(STRINGS.selectFirst);
        return;
      }
      const { id } = item;
      const hit = edits ? pointAt(item, at, NEAR * pixel) : null;
      await this.revise(id, STRINGS.did.point(item.name), STRINGS.nothingChanged, (doc) =>
        hit ? removePoint(doc, id, hit) : addPoint(doc, id, { ...at, positive }));
    };
    this.edit(work, { ...at, positive: true });
    this.setHover(null);
  }

  /** Changes an object to what the model gives for it then; `without` is said where that is nothing. */
  private async revise(id: number, what: string, without: string, next: (doc: Doc) => Doc): Promise<void> {
    const { epoch } = this;
    const { doc, found } = await answered(() => this.doc, id, next, (item) => this.fill(item));
    if (epoch !== this.epoch) return;
    if (!found) this.toast(without);
    if (!doc) return;
    this.change(doc, what);
    const item = doc.items.find((candidate) => candidate.id === id);
    const score = item && this.answer(item)?.score;
    if (item && typeof score === "number") this.say(STRINGS.kept(item.name, score));
  }

  private rescale(id: number, scale: number): void {
    this.edit(() => this.rescaled(id, scale));
  }

  private async rescaled(id: number, scale: number): Promise<void> {
    const name = this.doc.items.find((item) => item.id === id)?.name ?? "";
    await this.revise(id, STRINGS.did.size(name), STRINGS.nothing, (doc) => changeItem(doc, id, { scale }));
  }

  /** The next smaller or larger window for the selected click. */
  private step(direction: number): void {
    const target = this.changes.target(this.doc);
    this.edit(async () => {
      const current = target(this.doc);
      const answer = current && this.answer(current);
      if (!answer || answer.scales.length === 0) return;
      const next = Math.min(Math.max(answer.scale + direction, 0), answer.scales.length - 1);
      if (next !== answer.scale) await this.rescaled(current.id, next);
    });
  }

  /** Makes sure that an object's answer is there; false if nothing is found for it. */
  private async fill(item: Item): Promise<boolean> {
    const key = answerKey(item);
    const known = this.answers.get(key);
    if (known !== undefined) return known !== null;
    const question = questionOf(item);
    if (!question) return true;
    const { epoch } = this;
    await this.imageSet;
    if (epoch !== this.epoch) return false;
    const found = await this.segmenter!.predict(question, { scale: item.scale });
    if (epoch !== this.epoch) return false;
    this.answers.set(key, found && answerOf(found));
    if (found) this.measured(found);
    if (found) this.fillScales(key, item, found);
    return found !== null;
  }

  /** Asks for what the other windows of a click give, where the answer did not need them all. */
  private fillScales(key: string, item: Item, { scales }: Segmentation): void {
    const question = questionOf(item);
    const { prompt, mask } = item;
    if (scales.length > 0 || !question || prompt.points.length !== 1 || prompt.box || mask) return;
    const { epoch } = this;
    this.segmenter!.predict(question, { scale: item.scale, scales: true }).then(
      (found) => {
        if (epoch !== this.epoch || !found) return;
        this.answers.set(key, answerOf(found));
        this.refresh();
      },
      (error: unknown) => this.fail(error),
    );
  }

  private async predict(prompt: Prompt, scale: number | null): Promise<Segmentation | null> {
    const { epoch } = this;
    await this.imageSet;
    if (epoch !== this.epoch) return null;
    const found = await this.segmenter!.predict(prompt, { scale });
    if (epoch !== this.epoch) return null;
    if (found) this.measured(found);
    else this.toast(STRINGS.nothing);
    return found;
  }

  private measured(found: Segmentation): void {
    // What a preview had already computed says nothing of the time it takes.
    if (!found.reused) this.showSpeed(found.ms);
    document.body.dataset["ms"] = String(found.ms); // for whoever measures
    document.body.dataset["reused"] = String(found.reused);
    document.body.dataset["answers"] = String(++this.answered);
  }

  // --- changes by hand ----------------------------------------------------------------------

  private stroke(places: readonly number[]): void {
    const { tool, brush } = this.stage;
    const add = tool === "brush";
    const target = this.changes.target(this.doc);
    this.edit(async () => {
      const { photo } = this;
      const current = target(this.doc);
      if (!photo || (!current && !add)) {
        this.toast(STRINGS.selectFirst);
        return;
      }
      const { epoch } = this;
      if (current) await this.fill(current);
      if (epoch !== this.epoch) return; // another photo is shown by now
      const old = current ? (this.answer(current)?.mask ?? null) : null;
      const mask = paint(old, places, brush, add, photo.width, photo.height);
      if (!mask) {
        this.toast(STRINGS.nothingChanged);
        return;
      }
      const doc = current
        ? setMask(this.doc, current.id, mask)
        : addItem(this.doc, { points: [], box: null }, mask);
      const painted = current ?? selectedItem(doc)!;
      this.change(doc, STRINGS.did.paint(painted.name));
    });
  }

  private edge(change: (mask: Mask, width: number, height: number) => Mask | null): void {
    const target = this.changes.target(this.doc);
    this.edit(async () => {
      const { photo } = this;
      const current = target(this.doc);
      if (!photo || !current || !(await this.fill(current))) return;
      const mask = this.answer(current)?.mask;
      const next = mask && change(mask, photo.width, photo.height);
      if (!next) this.toast(STRINGS.nothingChanged);
      else this.change(setMask(this.doc, current.id, next), STRINGS.did.edge(current.name));
    });
  }

  private async loadMasks(file: Blob, name: string): Promise<void> {
    const { photo, epoch } = this;
    if (!photo) return;
    try {
      const masks = await masksOf(file, name, photo);
      if (epoch !== this.epoch) return; // another photo is shown by now
      let { doc } = this;
      for (const { mask, name: label } of masks) {
        doc = addItem(doc, { points: [], box: null }, mask, label);
      }
      this.change(doc, STRINGS.did.load);
      this.toast(STRINGS.loadedMasks(masks.length));
    } catch (error) {
      this.fail(error instanceof MaskFileError ? new PhotoError(STRINGS.maskUnreadable(name, error.message)) : error);
    }
  }

  // --- the document -------------------------------------------------------------------------

  private change(doc: Doc, what: string): void {
    if (doc === this.doc) return; // the object it was for is gone
    this.commit(changeDoc(this.workspace, doc), what);
  }

  private commit(workspace: Workspace, what: string): void {
    this.unsaved = unsavedAfter(this.unsaved, this.workspace, workspace);
    this.history.push(workspace, what);
    this.refresh();
  }

  private choose(id: number): void {
    this.changes.chosen();
    this.select(id);
  }

  private select(id: number): void {
    if (this.doc.selected === id) return;
    this.history.replace(changeDoc(this.workspace, select(this.doc, id)));
    this.refresh();
    this.say(STRINGS.selectedNow(selectedItem(this.doc)?.name ?? ""));
  }

  private delete(id: number): void {
    const name = this.doc.items.find((item) => item.id === id)?.name ?? "";
    this.change(removeItem(this.doc, id), STRINGS.did.remove(name));
    this.say(STRINGS.deleted(name));
  }

  /** Does work once what was done before it is there: a click whose mask is awaited is undone like others. */
  private afterwards(work: () => void): void {
    if (this.live) return;
    if (this.changes.busy) this.edit(work);
    else work();
  }

  private undo(): void {
    const before = this.workspace;
    const what = this.history.undo();
    this.showStep(before, what);
    this.say(what === null ? STRINGS.nothingToUndo : STRINGS.undone(what));
  }

  private redo(): void {
    const before = this.workspace;
    const what = this.history.redo();
    this.showStep(before, what);
    this.say(what === null ? STRINGS.nothingToRedo : STRINGS.redone(what));
  }

  /** Shows the workspace after an undo or a redo; `what` it did, null if there was nothing to do. */
  private showStep(before: Workspace, what: string | null): void {
    this.unsaved = unsavedAfter(this.unsaved, before, this.workspace);
    if (what === null) return;
    const { epoch } = this;
    this.refresh();
    if (this.epoch !== epoch) this.undoEpoch = this.epoch;
  }

  private answer(item: Item): Answer | null {
    const key = answerKey(item);
    const known = this.answers.get(key);
    if (known !== undefined) return known;
    if (!isDrawn(item) || !this.photo) return null;
    const answer = drawnAnswer(item.mask!, this.photo.width, this.photo.height);
    this.answers.set(key, answer);
    return answer;
  }

  /** Shows the workspace as it is now, and asks for the masks it lacks. */
  private refresh(): void {
    this.showCurrent();
    this.strip.show(this.workspace, (id) => this.photos.get(id));
    if (this.photo) for (const item of this.doc.items) void this.ask(item);
    this.panel.show(this.doc, (item) => this.answer(item));
    this.finding.update(this.doc.items.flatMap((item) => this.answer(item)?.mask ?? []));
    for (const [action, enabled] of [["undo", this.history.canUndo], ["redo", this.history.canRedo]] as const) {
      for (const button of document.querySelectorAll<HTMLButtonElement>(`[data-action="${action}"]`)) {
        // Not `disabled`, which would drop the focus of whoever has just pressed it.
        button.setAttribute("aria-disabled", String(!enabled));
      }
    }
    this.draw();
    this.keepWork();
    const { activeElement } = document;
    // The tools go with the last photo, and what had the focus with them.
    if (this.shown === null && !this.live && activeElement && activeElement !== document.body && !isSeen(activeElement)) {
      document.querySelector<HTMLElement>(".welcome [data-action=open]")?.focus();
    }
  }

  private async ask(item: Item): Promise<void> {
    const key = answerKey(item);
    if (this.answer(item) || this.answers.has(key) || this.asked.has(key)) return;
    this.asked.add(key);
    const { epoch } = this;
    try {
      await this.fill(item);
      if (epoch === this.epoch) this.refresh();
    } catch (error) {
      if (epoch === this.epoch && !(error instanceof ModelError)) this.fail(error);
    } finally {
      this.asked.delete(key);
    }
  }

  private draw(): void {
    if (this.live) return;
    const current = selectedItem(this.doc);
    const scene: Scene = {
      objects: this.doc.items.flatMap((item) => {
        const answer = this.answer(item);
        const selected = item === current;
        return answer ? [{ path: answer.path, color: item.color, selected }] : [];
      }),
      found: this.stage.tool === "pick" ? this.finding.outlines : [],
      hover: this.hoverDoc === this.doc ? this.hoverPath : null,
      change: this.stage.tool !== "pick",
      points: current?.prompt.points ?? [],
      box: current?.prompt.box ?? null,
      pending: this.pending,
    };
    this.stage.draw(scene);
  }

  // --- taking away --------------------------------------------------------------------------

  private objects(all: boolean): Named[] {
    const current = selectedItem(this.doc);
    const items = all || !current ? this.doc.items : [current];
    return items.flatMap((item) => {
      const answer = this.answer(item);
      if (!answer) return [];
      const { name, color, prompt } = item;
      return [{ name, color, prompt, score: answer.score, mask: answer.mask, alpha: answer.alpha(item.feather) }];
    });
  }

  private saving(all: boolean): Saving | null {
    const sheet = currentSheet(this.workspace);
    const { photo } = this;
    const objects = this.objects(all);
    const blob = sheet && this.photos.get(sheet.id);
    if (!photo || !blob || objects.length === 0) {
      this.toast(STRINGS.nothingToSave);
      return null;
    }
    return {
      fileName: photo.name,
      width: photo.width,
      height: photo.height,
      objects,
      pixels: () => fullPixels(photo, blob),
      crop: element<HTMLInputElement>("crop").checked,
      background: this.background(),
    };
  }

  private background(): Background {
    const kind = element<HTMLSelectElement>("background").value;
    const [file] = element<HTMLInputElement>("background-file").files ?? [];
    if (kind === "color") return { kind, color: element<HTMLInputElement>("background-color").value };
    if (kind === "blur") return { kind };
    if (kind === "image" && file) return { kind, file };
    return { kind: "clear" };
  }

  /** Waits for masks that are still on their way: a file is to hold them all. */
  private async filled(): Promise<void> {
    const { epoch } = this;
    for (const item of this.doc.items) if (epoch === this.epoch && !this.answer(item)) await this.fill(item);
  }

  private async save(what: string): Promise<void> {
    try {
      // Not where nothing is awaited: Safari copies only what is given at once.
      const { epoch } = this;
      if (this.doc.items.some((item) => !this.answer(item))) await this.filled();
      if (epoch === this.epoch) await this.write(what);
      else this.toast(STRINGS.notSaved);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) this.fail(error);
    }
  }

  private async write(what: string): Promise<void> {
    const all = document.querySelector<HTMLInputElement>('input[name="which"]:checked')?.value === "all";
    const saving = this.saving(all || what === "zip" || what === "index");
    if (!saving) return;
    const { shown, doc: { items } } = this;
    const whole = saving.objects.length === items.length;
    if (what === "copy") {
      if (!(await this.copy(saving))) return;
    } else {
      const { name, data } = await fileOf(what === "share" ? "cutout" : what, saving);
      if (what === "share") await navigator.share({ files: [new File([data], name, { type: data.type })] });
      else download(data, name);
    }
    if (whole && shown !== null) this.unsaved = unsavedWithout(this.unsaved, shown, items, this.workspace);
  }

  private async copy(saving: Saving): Promise<boolean> {
    if (typeof ClipboardItem === "undefined" || !navigator.clipboard?.write) {
      this.toast(STRINGS.noCopy);
      return false;
    }
    try {
      // The promise is given as it is: Safari forgets the click while one waits.
      const item = new ClipboardItem({ "image/png": cutout({ ...saving, crop: true }) });
      await navigator.clipboard.write([item]);
      this.toast(STRINGS.copied);
      return true;
    } catch {
      this.toast(STRINGS.copyRefused);
      return false;
    }
  }

  // --- camera -------------------------------------------------------------------------------

  private async startCamera(): Promise<void> {
    if (this.live) return;
    this.leaveFinding();
    try {
      if (!(await this.camera.start(this.ready))) return;
    } catch (error) {
      this.fail(error);
      return;
    }
    const { video } = this.camera;
    document.body.dataset["state"] = "live";
    element("live").hidden = false;
    this.pressed("center", true);
    this.stage.editable = false;
    this.hoverPath = this.livePath = null;
    this.stage.show(video, video.videoWidth, video.videoHeight);
    const paintFrame = (): void => {
      this.stage.draw({ objects: [], hover: this.livePath, points: [], box: null });
      this.liveFrame = requestAnimationFrame(paintFrame);
    };
    cancelAnimationFrame(this.liveFrame);
    paintFrame();
    document.querySelector<HTMLElement>('[data-action="shoot"]')?.focus();
  }

  private stopCamera(): void {
    this.camera.stop(); // also one that is still starting
    if (!this.live) return;
    cancelAnimationFrame(this.liveFrame);
    this.stage.editable = true;
    element("live").hidden = true;
    document.body.dataset["state"] = this.shown === null ? "empty" : "photo";
    this.stage.show(this.photo?.bitmap ?? null, this.photo?.width ?? 0, this.photo?.height ?? 0);
    this.draw();
    this.showSpeed(null);
    const focused = document.activeElement;
    if (focused instanceof HTMLElement && element("live").contains(focused)) {
      const next = this.shown === null ? element("welcome").querySelector("button") : element("view");
      next?.focus();
    }
  }

  private async shoot(): Promise<void> {
    try {
      await this.open([{ blob: await frameOf(this.camera.video), name: STRINGS.cameraPhoto }]);
    } catch (error) {
      this.fail(error);
    }
  }

  // --- messages -----------------------------------------------------------------------------

  private showSearch(share: number): void {
    const chip = element("speed");
    chip.hidden = false;
    chip.textContent = STRINGS.searching(share);
  }

  private showSpeed(ms: number | null): void {
    const chip = element("speed");
    if (ms !== null && this.finding.searching) return; // the search's progress is shown there
    chip.hidden = ms === null;
    if (ms !== null) chip.textContent = STRINGS.milliseconds(ms);
  }

  private say(text: string): void {
    element("said").textContent = text;
  }

  private toast(text: string, { error = false, action = "", run = null as (() => void) | null } = {}): void {
    const toast = element("toast");
    toast.querySelector("p")!.textContent = text;
    toast.classList.toggle("error", error);
    const button = element<HTMLButtonElement>("toast-action");
    button.hidden = run === null;
    button.textContent = action;
    this.toastAction = run;
    toast.hidden = false;
    clearTimeout(this.toastTimer);
    if (!run) this.toastTimer = window.setTimeout(() => (toast.hidden = true), error ? 12000 : 5000);
  }

  private fail(error: unknown): void {
    const known = error instanceof PhotoError || error instanceof CameraError || error instanceof ModelError
      || error instanceof PromptError;
    const text = error instanceof Error ? error.message : String(error);
    this.toast(known ? capital(text) : STRINGS.wrong(text), { error: true });
  }

  // --- events -------------------------------------------------------------------------------

  private setTool(tool: Tool): void {
    this.stage.setTool(tool);
    this.toolbar.choose(tool);
    this.setHover(null);
    const paints = tool === "brush" || tool === "erase";
    element("brush-bar").hidden = !paints;
    if (paints) element<HTMLInputElement>("brush").value = String(this.stage.brush);
  }

  private resizeBrush(radius: number): void {
    const slider = element<HTMLInputElement>("brush");
    this.stage.brush = Math.min(Math.max(radius, Number(slider.min)), Number(slider.max));
    slider.value = String(this.stage.brush);
    this.draw();
  }

  private pressed(action: string, value: boolean): void {
    document.querySelector(`[data-action="${action}"]`)?.setAttribute("aria-pressed", String(value));
  }

  private act(action: string): void {
    switch (action) {
      case "open": element<HTMLInputElement>("file").click(); break;
      case "load-mask": element<HTMLInputElement>("mask-file").click(); break;
      case "sample": void this.sample(null); break;
      case "camera": void this.startCamera(); break;
      case "stop-camera": this.stopCamera(); break;
      case "shoot": void this.shoot(); break;
      case "center":
        this.camera.follow(null);
        this.pressed("center", true);
        break;
      case "help": element<HTMLDialogElement>("help").showModal(); break;
      case "everything": this.everything(); break;
      case "undo": this.afterwards(() => this.undo()); break;
      case "redo": this.afterwards(() => this.redo()); break;
      case "zoom-in": this.stage.zoom(1.4); break;
      case "zoom-out": this.stage.zoom(1 / 1.4); break;
      case "fit": this.stage.fit(); break;
      case "grow": this.edge(grown); break;
      case "shrink": this.edge(shrunk); break;
      case "retry": void this.retry().catch(() => undefined); break;
      case "go-save": this.sheet.open(element("save")); break;
      case "dismiss": element("toast").hidden = true; break;
      case "toast-action":
        element("toast").hidden = true;
        this.toastAction?.();
        break;
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
    element("brush").addEventListener("input", () => {
      this.resizeBrush(Number(element<HTMLInputElement>("brush").value));
    });
    element("feather").addEventListener("change", () => {
      const current = selectedItem(this.doc);
      const feather = Number(element<HTMLInputElement>("feather").value);
      if (current) this.change(changeItem(this.doc, current.id, { feather }), STRINGS.did.edge(current.name));
    });
    element("background").addEventListener("change", () => {
      const kind = element<HTMLSelectElement>("background").value;
      element("background-color").hidden = kind !== "color";
      if (kind === "image") element<HTMLInputElement>("background-file").click();
    });
    element("background-file").addEventListener("cancel", () => {
      element<HTMLSelectElement>("background").value = "clear";
    });
    const canShare = typeof navigator.share === "function" && typeof navigator.canShare === "function";
    for (const button of document.querySelectorAll<HTMLElement>('[data-save="share"]')) {
      button.hidden = !canShare || !navigator.canShare({ files: [new File([], "a.png", { type: "image/png" })] });
    }

    const files = (list: Iterable<File> | null | undefined, unnamed: string): { blob: Blob; name: string }[] =>
      [...(list ?? [])].map((file) => ({ blob: file, name: file.name || unnamed }));
    const input = element<HTMLInputElement>("file");
    input.addEventListener("change", () => {
      const chosen = files(input.files, STRINGS.unnamedPhoto);
      input.value = "";
      if (chosen.length > 0) void this.open(chosen);
    });
    const maskInput = element<HTMLInputElement>("mask-file");
    maskInput.addEventListener("change", () => {
      const [file] = maskInput.files ?? [];
      if (file) void this.loadMasks(file, file.name);
      maskInput.value = "";
    });
    document.addEventListener("paste", (event) => {
      const pasted = files(event.clipboardData?.files, STRINGS.pastedPhoto);
      if (pasted.length === 0) return;
      event.preventDefault();
      void this.open(pasted);
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
      const dropped = files(event.dataTransfer?.files, STRINGS.unnamedPhoto);
      if (dropped.length > 0) void this.open(dropped);
    });
    addEventListener("beforeunload", (event) => {
      if (this.unsaved.size > 0) event.preventDefault();
    });
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden" && this.keepTimer) void this.writeWork();
    });
  }

  private key(event: KeyboardEvent): void {
    const { target } = event;
    if (target instanceof HTMLInputElement && target.type === "text") return;
    if (target instanceof HTMLSelectElement) return;
    if (target instanceof HTMLInputElement && target.type === "range" && /^(Arrow|Home|End|Page)/.test(event.key)) return;
    if (element<HTMLDialogElement>("help").open) return;
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    // While the camera is live the photo behind it is not to be changed unseen.
    if (this.live) {
      if (key === "escape" && !command) this.stopCamera();
      else if (key === "?") this.act("help");
      else return;
      event.preventDefault();
      return;
    }
    if (command) {
      if (key === "z" && event.shiftKey) this.act("redo");
      else if (key === "z") this.act("undo");
      else if (key === "y") this.act("redo");
      else if (key === "o") this.act("open");
      else if (key === "c" && this.doc.items.length > 0 && !getSelection()?.toString()) void this.save("copy");
      else return;
      event.preventDefault();
      return;
    }
    if (event.altKey) return;
    const tools: Record<string, Tool> = {
      v: "pick", b: "box", a: "add", r: "remove", p: "brush", e: "erase", h: "move",
    };
    const current = selectedItem(this.doc);
    const tool = tools[key];
    if (tool && this.shown !== null) this.setTool(tool);
    else if (key === "f" && this.shown !== null) this.everything();
    else if (key === "?") this.act("help");
    else if (key === "+" || key === "=") this.act("zoom-in");
    else if (key === "-") this.act("zoom-out");
    else if (key === "0") this.act("fit");
    else if (key === "[" || key === "]") this.step(key === "]" ? 1 : -1);
    else if (key === "," || key === ".") this.resizeBrush(Math.round(this.stage.brush * (key === "." ? 1.25 : 0.8)));
    else if (/^[1-9]$/.test(key)) {
      const item = this.doc.items[Number(key) - 1];
      if (item) this.choose(item.id);
    } else if (key === "escape") {
      if (this.stage.cancelDraft()) return;
      if (!this.finding.isOff) this.stopFinding();
      else if (this.sheet.isOpen) this.sheet.close();
      else if (current) {
        this.history.replace(changeDoc(this.workspace, select(this.doc, null)));
        this.refresh();
      }
    } else if ((key === "delete" || key === "backspace") && current) {
      this.delete(current.id);
    } else return;
    event.preventDefault();
  }
}

async function masksOf(file: Blob, name: string, photo: Photo): Promise<{ name: string | null; mask: Mask }[]> {
  const { width, height } = photo;
  if (/\.json$/i.test(name) || file.type === "application/json") {
    return readCoco(await file.text(), photo.name, width, height);
  }
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" }).catch(() => {
    throw new PhotoError(STRINGS.unreadable(name));
  });
  try {
    if (bitmap.width !== width || bitmap.height !== height) {
      throw new PhotoError(STRINGS.maskSize(name, bitmap.width, bitmap.height, width, height));
    }
    const { data } = drawnPixels(bitmap, width, height, { ground: "none" });
    const mask = maskFromPixels(data, width, height);
    if (!mask) throw new PhotoError(STRINGS.maskEmpty(name));
    return [{ name: null, mask }];
  } finally {
    bitmap.close();
  }
}

function isSeen(node: Element): boolean {
  return node.checkVisibility?.() ?? node.getClientRects().length > 0;
}

function capital(text: string): string {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.?!]$/.test(whole) ? whole : `${whole}.`;
}

function download(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

export const app = new App();
