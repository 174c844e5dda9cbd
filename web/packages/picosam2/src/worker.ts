/** The worker: holds the model and the image, answers the page's requests one after another. */

import { heightOf, type Point, widthOf } from "./geometry";
import { maskOf, polygons, softAlpha } from "./masks";
import { ModelError, type ModelFacts, readFacts } from "./metadata";
import { boundsOf, type Candidate, Predictor } from "./predictor";
import type { Call, Calls, Preview, Request, Response, Scale, Segmentation } from "./protocol";
import { WebRuntime } from "./runtime";
import { mapAt, type Maps } from "./scorer";
import { Tracker } from "./tracker";

/** How far a shown contour may be from the mask, in pixels. */
const SMOOTHING = 0.75;

/** A preview slower than this is felt as lag: then only one window is tried while moving. */
const LIVE_MS = 45;

class Engine {
  private runtime: WebRuntime | null = null;
  private full: Predictor | null = null;
  private reduced: Predictor | null = null;
  private factor = 1;
  private tracker: Tracker | null = null;
  /** Milliseconds of one window, a moving mean. */
  private windowMs = 0;
  private scale = -1;

  async load({ modelUrl }: Calls["load"]["request"]): Promise<Calls["load"]["answer"]> {
    const name = decodeURIComponent(new URL(modelUrl).pathname.split("/").pop() ?? "model");
    const bytes = await download(modelUrl, name);
    const facts = readFacts(bytes, name);
    this.runtime = await WebRuntime.open(bytes, facts);
    const side = facts.inputSize;
    await this.runtime.run(new Uint8Array(side * side * 3), 1); // the first run allocates
    const before = performance.now();
    await this.runtime.run(new Uint8Array(side * side * 3), 1);
    this.windowMs = performance.now() - before;
    this.scale = facts.native ? 0 : facts.clickHalves.length >> 1;
    void this.tryGpu(bytes, facts, this.runtime);
    return { name: facts.name, bytes: facts.bytes, threads: this.runtime.threads };
  }

  /** Loads what the graphics processor needs beside the work at hand, and tests it in its turn. */
  private async tryGpu(bytes: Uint8Array, facts: ModelFacts, runtime: WebRuntime): Promise<void> {
    if (!(await WebRuntime.mayUseGpu())) return;
    const gpu = await WebRuntime.openGpu(bytes, facts);
    if (!gpu) return;
    queue = queue.then(async () => {
      if (!(await runtime.adopt(gpu))) return;
      const side = facts.inputSize;
      const before = performance.now();
      await runtime.run(new Uint8Array(side * side * 3), 1);
      this.windowMs = performance.now() - before;
      post({ gpu: true });
    });
  }

  image({ image, reduced }: Calls["image"]["request"]): null {
    this.full = new Predictor(this.need(), image);
    this.reduced = reduced ? new Predictor(this.need(), reduced) : this.full;
    this.factor = reduced ? image.width / reduced.width : 1;
    return null;
  }

  /** The mask under the pointer. `whole` asks for what a click would give, else for speed. */
  async hover({ x, y, whole }: Calls["hover"]["request"]): Promise<Preview | null> {
    const predictor = this.reduced;
    if (!predictor) return null;
    const before = performance.now();
    const point: Point = { x: x / this.factor, y: y / this.factor, positive: true };
    const windows = predictor.clickWindows(point).length;
    let candidate: Candidate;
    if (whole || this.windowMs * (windows + 1) < LIVE_MS) {
      const ladder = await predictor.ladder(point);
      this.scale = ladder.order[0]!;
      candidate = await predictor.secondPass(ladder.candidates[this.scale]!);
    } else {
      const started = performance.now();
      const glimpse = await predictor.glimpse(point, this.scale);
      this.windowMs += 0.2 * (performance.now() - started - this.windowMs);
      candidate = glimpse.candidate;
      this.scale = betterScale(this.scale, windows, glimpse.found);
    }
    const bounds = boundsOf(candidate.region);
    if (!bounds) return null;
    const contours = polygons(maskOf(candidate.region, bounds), SMOOTHING).map(({ points }) =>
      points.map((value) => value * this.factor),
    );
    return { contours, score: candidate.score, ms: performance.now() - before };
  }

  async segment({ prompt, scale }: Calls["segment"]["request"]): Promise<Segmentation | null> {
    const predictor = this.full;
    if (!predictor) return null;
    const before = performance.now();
    const [best] = await predictor.candidates(prompt, scale);
    if (!best) return null;
    const ms = performance.now() - before;
    const { region, window } = best;
    const bounds = boundsOf(region) ?? { x0: region.x, y0: region.y, x1: region.x, y1: region.y };
    const mask = maskOf(region, bounds);
    const single = prompt.points.length === 1 && !prompt.box;
    const ladder = single ? await predictor.ladder(prompt.points[0]!) : null;
    return {
      mask,
      alpha: softAlpha(region, bounds, window, this.need().facts.outputSize),
      contours: polygons(mask, SMOOTHING).map(({ points }) => points),
      score: best.score,
      scales: ladder ? ladder.candidates.map((c, i) => thumbnail(c, ladder.maps, i)) : [],
      scale: ladder ? (scale ?? ladder.order[0]!) : -1,
      ms,
    };
  }

  async track(request: Calls["track"]["request"]): Promise<Calls["track"]["answer"]> {
    const before = performance.now();
    this.tracker ??= new Tracker(this.need());
    if (request.restart) this.tracker.restart(request.x, request.y, request.fixed);
    const { region, bounds, score, point } = await this.tracker.next(request.image);
    const contours =
      region && bounds ? polygons(maskOf(region, bounds), SMOOTHING).map(({ points }) => points) : [];
    const ms = performance.now() - before;
    return { contours, score, ms, found: bounds !== null, x: point.x, y: point.y };
  }

  private need(): WebRuntime {
    if (!this.runtime) throw new Error("the model is not loaded yet");
    return this.runtime;
  }
}

/** What a click's candidate looks like, from its logits alone: cheap at any size of the photo. */
function thumbnail({ window, score }: Candidate, maps: Maps, index: number): Scale {
  const { side } = maps;
  const logits = mapAt(maps, index);
  const mask = { x: 0, y: 0, width: side, height: side, data: new Uint8Array(side * side) };
  logits.forEach((value, i) => {
    if (value > 0) mask.data[i] = 1;
  });
  const step = { x: widthOf(window) / side, y: heightOf(window) / side };
  const contours = polygons(mask, SMOOTHING).map(({ points }) =>
    points.map((value, i) => (i % 2 === 0 ? window.x0 + value * step.x : window.y0 + value * step.y)),
  );
  return { window, score, contours };
}

/** A neighbouring scale where this one's mask runs out of its window or is a speck in it. */
function betterScale(scale: number, count: number, found: Float32Array): number {
  const area = found[0]!;
  const contact = Math.max(found[7]!, found[8]!, found[9]!, found[10]!);
  if (contact > 0.25) return Math.min(scale + 1, count - 1);
  if (area > 0 && area < 0.06) return Math.max(scale - 1, 0);
  return scale;
}

async function download(url: string, name: string): Promise<Uint8Array> {
  const response = await fetch(url);
  if (!response.ok || !response.body) {
    throw new ModelError(`the model ${name} could not be fetched (${response.status})`);
  }
  const total = Number(response.headers.get("content-length"));
  const parts: Uint8Array[] = [];
  let size = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    size += part.value.length;
    if (total > 0) post({ progress: Math.min(size / total, 1) });
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function post(message: Response): void {
  self.postMessage(message);
}

const engine = new Engine();
let queue: Promise<void> = Promise.resolve();

self.addEventListener("message", ({ data }: MessageEvent<Request>) => {
  queue = queue.then(async () => {
    try {
      post({ id: data.id, answer: await answer(data) });
    } catch (error) {
      post({ id: data.id, error: error instanceof Error ? error.message : String(error) });
    }
  });
});

function answer(request: Request): Promise<Calls[Call]["answer"]> | Calls[Call]["answer"] {
  switch (request.call) {
    case "load": return engine.load(request.value);
    case "image": return engine.image(request.value);
    case "hover": return engine.hover(request.value);
    case "segment": return engine.segment(request.value);
    case "track": return engine.track(request.value);
  }
}

