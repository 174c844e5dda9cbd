/** The model and the image: answers prompts, previews and camera frames, with any runtime. */

import type { Search } from "./everything.ts";
import type { Finder } from "./finder.ts";
import { heightOf, type Point, type Window, widthOf } from "./geometry.ts";
import { maskOf, polygons, softAlpha } from "./masks.ts";
import { ModelError } from "./metadata.ts";
import { type Candidate, type ClickAnswers, Predictor, type Runtime } from "./predictor.ts";
import type { Answer, Calls, Preview, Scale, Searched, Tracked } from "./protocol.ts";
import { onWhite, Pyramid } from "./pyramid.ts";
import { Tracker } from "./tracker.ts";

/** How far a shown contour may be from the mask, in pixels. */
const SMOOTHING = 0.75;

/** A preview slower than this is felt as lag: then only one window is tried while moving. */
const LIVE_MS = 40;

/** Windows that a click takes, about, with its second pass, if the scorer chooses which are looked through. */
const FEW = 4;

export class Engine {
  private runtime: Runtime | null = null;
  private predictor: Predictor | null = null;
  private tracker: Tracker | null = null;
  private finder: { readonly source: string | Uint8Array; readonly opened: Promise<Finder> } | null = null;
  private search: Search | null = null;
  /** Milliseconds of one window, a moving mean. */
  private windowMs = 0;
  private scale = -1;

  /** Takes a runtime, with which everything that follows is answered. */
  use(runtime: Runtime): void {
    this.runtime = runtime;
    const { facts } = runtime;
    this.scale = facts.native ? 0 : facts.clickHalves.length >> 1;
  }

  setImage({ image, width, height }: Calls["setImage"]["request"]): null {
    this.predictor = new Predictor(this.need(), new Pyramid(onWhite(image), width, height));
    this.search = null;
    return null;
  }

  /** The mask a prompt would give. `whole` asks for just that, else speed comes first. */
  async preview(question: Calls["preview"]["request"]): Promise<Preview | null> {
    const { predictor } = this;
    if (!predictor) return null;
    const before = performance.now();
    const { prompt, mask, whole } = question;
    const [point] = prompt.points;
    const single = prompt.points.length === 1 && !prompt.box && !mask && point!.positive;
    let candidate: Candidate | undefined;
    const windows = single ? predictor.clickWindows(point!).length : 0;
    if (!single || whole || this.windowMs * this.runs(windows) < LIVE_MS) {
      [candidate] = await predictor.candidates(prompt, question.scale, mask);
      if (single && candidate) this.scale = (await predictor.clicks(point!, false)).order[0]!;
    } else {
      candidate = await this.glimpse(predictor, point!, windows);
    }
    if (!candidate?.bounds) return null;
    const { preview, step, score } = candidate;
    const contours = polygons(maskOf(preview, shrunk(candidate.bounds, step)), SMOOTHING).map(
      ({ points }) => (step === 1 ? points : points.map((value) => value * step)),
    );
    return { contours, score, ms: performance.now() - before };
  }

  async predict({ prompt, mask, scale, scales = false }: Calls["predict"]["request"]): Promise<Answer | null> {
    const { predictor } = this;
    if (!predictor) throw new Error("there is no image yet: call setImage first");
    const before = performance.now();
    const single = prompt.points.length === 1 && !prompt.box && !mask;
    const reused = !mask && predictor.knows(prompt, scale);
    const [best] = await predictor.candidates(prompt, scale, mask);
    if (!best?.bounds) return null;
    const { region, bounds, window } = best;
    const answerMask = maskOf(region, bounds);
    const ms = performance.now() - before;
    const clicked = single ? await predictor.clicks(prompt.points[0]!, scales) : null;
    const complete = clicked?.ladder.missing().length === 0;
    return {
      mask: answerMask,
      alpha: softAlpha(region, bounds, window, best.side),
      contours: polygons(answerMask, SMOOTHING).map(({ points }) => points),
      score: best.score,
      scales: complete ? clicked.ladder.windows.map((_, i) => outline(clicked, i)) : [],
      scale: clicked ? (scale ?? clicked.order[0]!) : -1,
      ms,
      reused,
    };
  }

  /** Gets the finder, which may take as long as a connection does: nothing else has to wait for it. */
  async loadFinder({ finder }: Calls["loadFinder"]["request"]): Promise<null> {
    await this.openFinder(finder);
    return null;
  }

  /** The next piece of the search for all objects. Finder and search are loaded when they are first wanted. */
  async everything({ finder, begin }: Calls["everything"]["request"]): Promise<Searched> {
    if (!this.predictor) throw new Error("there is no image yet: call setImage first");
    if (begin) {
      const { Search } = await import("./everything.ts");
      this.search = new Search(this.predictor, await this.openFinder(finder));
    }
    if (!this.search) throw new Error("another image was set while its objects were searched for");
    await this.search.step();
    const { share } = this.search;
    return { share, objects: share < 1 ? null : this.search.objects() };
  }

  private openFinder(source: string | Uint8Array): Promise<Finder> {
    if (this.finder?.source === source) return this.finder.opened;
    const finder = { source, opened: this.readFinder(source) };
    this.finder = finder;
    finder.opened.catch(() => {
      if (this.finder === finder) this.finder = null; // it can be asked for again
    });
    return finder.opened;
  }

  private async readFinder(source: string | Uint8Array): Promise<Finder> {
    const name = typeof source === "string" ? decodeURIComponent(source.split("/").pop() ?? "") : "the finder";
    const bytes = typeof source === "string" ? await this.fetchFinder(source, name) : source;
    const { Finder } = await import("./finder.ts");
    return Finder.open(bytes, name);
  }

  /** A finder's file from its address. */
  protected fetchFinder(url: string, name: string): Promise<Uint8Array> {
    throw new ModelError(`${name} cannot be fetched from ${url} here: give its bytes`);
  }

  async track(request: Calls["track"]["request"]): Promise<Tracked> {
    const before = performance.now();
    this.tracker ??= new Tracker(this.need());
    if (request.restart) this.tracker.restart(request.x, request.y, request.fixed);
    const { region, bounds, score, point } = await this.tracker.next(request.image);
    const contours =
      region && bounds ? polygons(maskOf(region, bounds), SMOOTHING).map(({ points }) => points) : [];
    const ms = performance.now() - before;
    return { contours, score, ms, found: bounds !== null, x: point.x, y: point.y };
  }

  /** One window at the place, and the next time a neighbouring one where this one did not suit. */
  private async glimpse(predictor: Predictor, point: Point, windows: number): Promise<Candidate> {
    const started = performance.now();
    const { candidate, measured } = await predictor.glimpse(point, this.scale);
    this.windowMs += 0.2 * (performance.now() - started - this.windowMs);
    this.scale = betterScale(this.scale, windows, measured);
    return candidate;
  }

  /** How many windows a click takes, about, with its second pass. */
  private runs(windows: number): number {
    const { clickScorer } = this.need().facts;
    return (clickScorer?.start ?? null) === null ? windows + 1 : FEW;
  }

  /** Measures one window, to know what there is time for while a pointer moves. */
  protected async timeWindow(): Promise<void> {
    const { inputSize: side } = this.need().facts;
    const before = performance.now();
    await this.need().run(new Uint8Array(side * side * 3), 1);
    this.windowMs = performance.now() - before;
  }

  protected need(): Runtime {
    if (!this.runtime) throw new ModelError("the model is not loaded yet");
    return this.runtime;
  }
}

function shrunk(box: Window, step: number): Window {
  return {
    x0: box.x0 / step, y0: box.y0 / step, x1: Math.ceil(box.x1 / step), y1: Math.ceil(box.y1 / step),
  };
}

/** What a click's candidate looks like, from its logits alone: cheap at any size of the image. */
function outline({ ladder, candidates }: ClickAnswers, place: number): Scale {
  const { side } = ladder;
  const { window, score } = candidates.get(place)!;
  const data = Uint8Array.from(ladder.maps.get(place)!, (value) => (value > 0 ? 1 : 0));
  const step = { x: widthOf(window) / side, y: heightOf(window) / side };
  const mask = { x: 0, y: 0, width: side, height: side, data };
  const contours = polygons(mask, SMOOTHING).map(({ points }) =>
    points.map((value, i) => (i % 2 === 0 ? window.x0 + value * step.x : window.y0 + value * step.y)),
  );
  return { window, score, contours };
}

/** A neighbouring scale where this one's mask runs out of its window or is a speck in it. */
function betterScale(scale: number, count: number, measured: Float32Array): number {
  const area = measured[0]!;
  const contact = Math.max(measured[7]!, measured[8]!, measured[9]!, measured[10]!);
  if (contact > 0.25) return Math.min(scale + 1, count - 1);
  if (area > 0 && area < 0.06) return Math.max(scale - 1, 0);
  return scale;
}
