/** Engine, worker protocol, segmenter: with arithmetic in the network's place. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { openSegmenter } from "../src/browser.ts";
import { Client } from "../src/client.ts";
import { Engine } from "../src/engine.ts";
import { createSegmenter } from "../src/node.ts";
import { iou, rleDecode, type Mask } from "../src/masks.ts";
import { ModelError } from "../src/metadata.ts";
import type { Notice, Request, Response } from "../src/protocol.ts";
import { normalize, type OrtModule, OrtRuntime } from "../src/runtime.ts";
import { PromptError, questionOf, Segmentation } from "../src/segmenter.ts";
import { serve, type WorkerScope } from "../src/serve.ts";
import { arithmetic, discs, facts, golden, HEIGHT, promptOf, WIDTH } from "./arithmetic.ts";
import { onnxWith } from "./helpers.ts";

const MODEL = Uint8Array.from(onnxWith("picosam2", JSON.stringify(golden.facts)));

/** An ONNX Runtime whose network is the arithmetic; it undoes the normalization first. */
const ort: OrtModule & { released: number; inputs: string[] } = {
  released: 0,
  inputs: ["image"],
  Tensor: class {
    constructor(readonly type: string, readonly data: Float32Array, readonly dims: readonly number[]) {}
    getData(): Promise<unknown> {
      return Promise.resolve(this.data);
    }
    dispose(): void {
      // Nothing to free.
    }
  } as unknown as OrtModule["Tensor"],
  InferenceSession: {
    create: (model) => {
      if (model.length < 100) return Promise.reject(new Error("no model"));
      return Promise.resolve({
        inputNames: ort.inputs,
        run: async (feeds) => {
          const { data, dims } = feeds["image"] as unknown as { data: Float32Array; dims: number[] };
          const [batch, , side] = dims as [number, number, number];
          const crops = new Uint8Array(batch * side * side * 3);
          for (let b = 0; b < batch; b++) {
            for (let c = 0; c < 3; c++) {
              for (let i = 0; i < side * side; i++) {
                const value = data[(b * 3 + c) * side * side + i]!;
                crops[(b * side * side + i) * 3 + c] = Math.round(255 * (value * facts.std[c]! + facts.mean[c]!));
              }
            }
          }
          const logits = await arithmetic.run(crops, batch);
          return { logits: new ort.Tensor("float32", logits, []) };
        },
        release: () => {
          ort.released++;
          return Promise.resolve();
        },
      });
    },
  },
};

vi.mock("onnxruntime-web/wasm", () => ({
  env: { wasm: {}, logLevel: "" },
  get Tensor() { return ort.Tensor; },
  get InferenceSession() { return ort.InferenceSession; },
}));

const click = golden.cases.find(({ name }) => name === "a click")!;
const point = promptOf(click.prompt).points[0]!;

function expectedMask(mask: Mask): void {
  expect(iou(mask, rleDecode(click.rle))).toBeGreaterThan(0.999);
}

describe("a segmenter in Node", () => {
  it("answers with the golden masks, in every form", async () => {
    const segmenter = await createSegmenter({ model: MODEL, ort, threads: 1 });
    expect(segmenter.model).toMatchObject({ name: "the model", threads: 1, guidance: false });
    await segmenter.setImage(discs());
    const found = (await segmenter.predict({ points: [[point.x, point.y]] }))!;
    expectedMask(found.mask);
    expect(Math.abs(found.score - click.scores[0]!)).toBeLessThan(2e-3);
    expectedMask(rleDecode(found.rle()));
    expect(found.area).toBe(found.pixels().reduce((n, v) => n + (v ? 1 : 0), 0));
    const { x0, y0, x1, y1 } = found.bounds;
    expect([x0, y0, x1 - x0, y1 - y0]).toEqual([found.mask.x, found.mask.y, found.mask.width, found.mask.height]);
    expect(found.covers(point.x, point.y)).toBe(true);
    expect(found.covers(1, 148)).toBe(false);
    expect(found.polygons().length).toBeGreaterThan(0);
    expect((await found.png()).type).toBe("image/png");
    expect(found.scales.length).toBe(facts.clickHalves.length);
    expect(found.reused).toBe(false);

    const again = (await segmenter.predict({ points: [point] }))!;
    expect(again.reused).toBe(true);
    const other = (found.scale + 1) % found.scales.length;
    expect((await segmenter.predict({ points: [point] }, { scale: other }))!.scale).toBe(other);
    const boxed = (await segmenter.predict({ box: [100, 20, 180, 130.5] }))!;
    expect([boxed.scales.length, boxed.scale]).toEqual([0, -1]);

    const preview = (await segmenter.preview({ points: [point] }))!;
    expect(preview.contours.length).toBeGreaterThan(0);
    expect(preview.score).toBe(found.score);
    const tracked = await segmenter.track(discs(), { x: 70, y: 60, restart: true, fixed: true });
    expect(tracked.found).toBe(true);
    const { released } = ort;
    await segmenter.dispose();
    expect(ort.released).toBe(released + 1);
  });

  it("refines a mask: a point off it is taken away, one on another object comes along", async () => {
    const segmenter = await createSegmenter({ model: MODEL, ort });
    await segmenter.setImage(discs());
    const first = (await segmenter.predict({ points: [point] }))!;
    const more = (await segmenter.predict({ mask: first, points: [[150.5, 80.5]] }))!;
    expect(more.covers(150, 80)).toBe(true);
    expect(more.covers(point.x, point.y)).toBe(true);
    expect(more.area).toBeGreaterThan(first.area);
    const anew = (await segmenter.predict({ mask: first.mask }))!;
    const boxed = (await segmenter.predict({ box: first.bounds }))!;
    expect(iou(anew.mask, boxed.mask)).toBe(1);
    const less = (await segmenter.predict({ mask: more, points: [point, [150.5, 80.5, 0]] }))!;
    expect(less.covers(150, 80)).toBe(false);
    expect(less.covers(point.x, point.y)).toBe(true);
  });

  it("gives null where nothing is", async () => {
    const segmenter = await createSegmenter({ model: MODEL, ort });
    const black = Uint8Array.from({ length: 40 * 30 * 4 }, (_, i) => (i % 4 === 3 ? 255 : 0));
    await segmenter.setImage({ data: black, width: 40, height: 30 });
    expect(await segmenter.predict({ points: [[20, 15]] })).toBeNull();
    expect(await segmenter.preview({ points: [[20, 15]] })).toBeNull();
  });

  it("says what is wrong with what it is given", async () => {
    await expect(createSegmenter({ model: new Uint8Array(50), ort })).rejects.toThrow(ModelError);
    const segmenter = await createSegmenter({ model: MODEL, ort });
    await expect(segmenter.predict({ points: [[1, 1]] })).rejects.toThrow("setImage first");
    await expect(segmenter.setImage({ data: new Uint8Array(3), width: 1, height: 1 })).rejects.toThrow("RGBA");
    await expect(createSegmenter({ model: "/none/such.onnx", ort })).rejects.toThrow("such.onnx");
    await expect(createSegmenter({ model: MODEL })).rejects.toThrow("npm install onnxruntime-node");
  });

  it("reads the package's own weights, and files by path and by address", async () => {
    const path = fileURLToPath(new URL("../weights/default.onnx", import.meta.url));
    for (const model of [undefined, path, new URL(`file://${path}`), `file://${path}`]) {
      const segmenter = await createSegmenter({ ort, ...(model && { model }) });
      expect(segmenter.model.name).toBe("default");
      expect(segmenter.model.bytes).toBe(readFileSync(path).length);
    }
  });
});

describe("a prompt", () => {
  it("has one form inside", () => {
    expect(questionOf({ points: [[1, 2], [3, 4, 0], [5, 6, true], { x: 7, y: 8, positive: false }], box: [0, 0, 9, 9] }, 10, 10)).toEqual({
      prompt: {
        points: [
          { x: 1, y: 2, positive: true }, { x: 3, y: 4, positive: false }, { x: 5, y: 6, positive: true },
          { x: 7, y: 8, positive: false },
        ],
        box: { x0: 0, y0: 0, x1: 9, y1: 9 },
      },
      mask: null,
      scale: null,
    });
  });

  it.each([
    ["nothing", {}, "needs a point"],
    ["only what it is not", { points: [[1, 1, 0]] }, "on the object"],
    ["a place outside", { points: [[10, 1]] }, "outside the image of 10 x 10"],
    ["no number", { points: [[NaN, 1]] }, "two numbers"],
    ["a pixel clicked on and off", { points: [[1.2, 1.9], [1.7, 1.1, 0]] }, "on the object and as off it"],
    ["a box outside", { box: [10, 1, 12, 5] }, "lies outside the image of 10 x 10"],
    ["an empty mask", { mask: { x: 0, y: 0, width: 2, height: 1, data: new Uint8Array(2) } }, "the mask is empty"],
    ["an empty mask and what it is not", {
      points: [[1, 1, 0]], mask: { x: 0, y: 0, width: 2, height: 1, data: new Uint8Array(2) },
    }, "the mask is empty"],
    ["a flat box", { box: [1, 1, 1, 5] }, "x1 above x0"],
    ["an endless box", { box: [1, 1, Infinity, 5] }, "four numbers"],
    ["half a mask", { mask: { x: 0, y: 0, width: 2, height: 2, data: new Uint8Array(3) } }, "as many bytes"],
  ] as const)("of %s is refused", (_, prompt, why) => {
    expect(() => questionOf(prompt as never, 10, 10)).toThrow(PromptError);
    expect(() => questionOf(prompt as never, 10, 10)).toThrow(why);
  });

  it("has its box cut to the image", () => {
    expect(questionOf({ box: [-5, 2, 4, 12.5] }, 10, 10).prompt.box).toEqual({ x0: 0, y0: 2, x1: 4, y1: 10 });
  });

  it("has a scale from 0 on", () => {
    expect(() => questionOf({ points: [[1, 1]] }, 10, 10, -1)).toThrow(PromptError);
    expect(() => questionOf({ points: [[1, 1]] }, 10, 10, 0.5)).toThrow("smallest window");
  });
});

describe("an engine", () => {
  it("tries one window while a pointer moves where there is no time for all", async () => {
    const engine = new Engine();
    let crops = 0;
    let busy = 0;
    engine.use({
      facts,
      run: async (bytes, batch) => {
        crops += batch;
        if (busy) await new Promise((done) => setTimeout(done, busy));
        return arithmetic.run(bytes, batch);
      },
    });
    engine.setImage({ image: discs(), width: WIDTH, height: HEIGHT });
    const ask = (x: number, whole: boolean) =>
      engine.preview({ prompt: { points: [{ x, y: 60.5, positive: true }], box: null }, mask: null, scale: null, whole });
    expect((await ask(70.5, false))!.contours.length).toBeGreaterThan(0);
    expect(crops).toBe(facts.clickHalves.length + 1); // nothing is known of its speed: it is tried in full
    busy = 60;
    await (engine as unknown as { timeWindow(): Promise<void> }).timeWindow();
    crops = 0;
    await ask(71.5, false);
    expect(crops).toBe(1);
    crops = 0;
    await ask(71.5, true);
    expect(crops).toBe(facts.clickHalves.length + 1);
    for (const x of [12.5, 30.5, 150.5, 190.5]) await ask(x, false); // scales follow what is found
  });

  it("needs a model and an image", async () => {
    const engine = new Engine();
    expect(() => engine.setImage({ image: discs(), width: 1, height: 1 })).toThrow(ModelError);
    const question = { prompt: { points: [point], box: null }, mask: null, scale: null };
    expect(await engine.preview({ ...question, whole: true })).toBeNull();
    await expect(engine.predict(question)).rejects.toThrow("setImage");
  });

  it("answers in the pixels of a large image on a coarser grid, and finely in the end", async () => {
    const engine = new Engine();
    engine.use(arithmetic);
    const step = 12; // 2,520 x 1,800 pixels, of which there is a copy of 210 x 150
    engine.setImage({ image: discs(), width: WIDTH * step, height: HEIGHT * step });
    const question = {
      prompt: { points: [{ x: 70.5 * step, y: 60.5 * step, positive: true }], box: null }, mask: null, scale: null,
    };
    const answer = (await engine.predict(question))!;
    expect(answer.mask.width).toBeGreaterThan(30 * step);
    const small = rleDecode(click.rle);
    let same = 0;
    for (let y = 0; y < HEIGHT; y++) {
      for (let x = 0; x < WIDTH; x++) {
        const [cx, cy] = [x * step + step / 2 - answer.mask.x, y * step + step / 2 - answer.mask.y];
        const on = cx >= 0 && cy >= 0 && cx < answer.mask.width && cy < answer.mask.height
          ? answer.mask.data[cy * answer.mask.width + cx]! : 0;
        if (on === small.data[y * WIDTH + x]) same++;
      }
    }
    expect(same / (WIDTH * HEIGHT)).toBeGreaterThan(0.99);
    const preview = (await engine.preview({ ...question, whole: true }))!;
    const xs = preview.contours.flatMap((contour) => [...contour].filter((_, i) => i % 2 === 0));
    expect(Math.abs(Math.min(...xs) - answer.mask.x)).toBeLessThanOrEqual(4);
    // Points that the best mask does not agree with are mended at full size too.
    const off = { x: 96.5 * step, y: 75.5 * step, positive: false };
    const mended = (await engine.predict({ ...question, prompt: { points: [question.prompt.points[0]!, off], box: null } }))!;
    expect(mended.mask.width).toBeGreaterThan(20 * step);
  });
});

describe("a runtime", () => {
  it("normalizes as Python does", () => {
    const out = normalize(Uint8Array.of(...Array<number>(facts.inputSize ** 2 * 3).fill(100)), 1, facts);
    facts.mean.forEach((mean, c) => {
      expect(out[c * facts.inputSize ** 2]!).toBeCloseTo((100 / 255 - mean) / facts.std[c]!, 5);
    });
  });

  it("feeds zeros to a network that takes guidance, when there is none", async () => {
    ort.inputs = ["image", "guidance"];
    try {
      const runtime = await OrtRuntime.open(ort, MODEL, facts);
      const logits = await runtime.run(new Uint8Array(facts.inputSize ** 2 * 3), 1);
      expect(logits.length).toBe(facts.channels * facts.outputSize ** 2);
    } finally {
      ort.inputs = ["image"];
    }
  });
});

/** A worker in this thread: what `serve` posts reaches its `Client`, and the other way. */
class FakeWorker {
  static all: FakeWorker[] = [];
  ended = false;
  private readonly listeners: Record<string, ((event: never) => void)[]> = {};
  private toServer: ((event: { data: Request }) => void) | null = null;

  constructor() {
    FakeWorker.all.push(this);
    const scope: WorkerScope = {
      postMessage: (data: Response) => this.emit("message", { data: structuredClone(data) }),
      addEventListener: (_, listener) => (this.toServer = listener),
    };
    serve(null, scope);
  }

  postMessage(data: Request): void {
    if (!this.ended) this.toServer?.({ data });
  }

  addEventListener(type: string, listener: (event: never) => void): void {
    (this.listeners[type] ??= []).push(listener);
  }

  emit(type: string, event: unknown): void {
    for (const listener of this.listeners[type] ?? []) listener(event as never);
  }

  terminate(): void {
    this.ended = true;
  }
}

const fake = (): Worker => new FakeWorker() as unknown as Worker;

describe("a segmenter in a browser", () => {
  const responses = new Map<string, () => globalThis.Response | Promise<never>>();

  beforeEach(() => {
    FakeWorker.all = [];
    responses.clear();
    responses.set("http://host/model.onnx", () => new globalThis.Response(MODEL, { headers: { "content-length": String(MODEL.length) } }));
    responses.set("http://host/ort.wasm", () => new globalThis.Response(new Uint8Array(5000)));
    vi.stubGlobal("document", { baseURI: "http://host/page/" });
    vi.stubGlobal("fetch", (url: string) => {
      const make = responses.get(url);
      return make ? Promise.resolve(make()) : Promise.resolve(new globalThis.Response("", { status: 404 }));
    });
  });

  afterEach(() => vi.unstubAllGlobals());

  it("loads the model, and the runtime that its network needs, with one account of their bytes", async () => {
    const seen: [number, number][] = [];
    const segmenter = await openSegmenter({
      model: "../model.onnx",
      wasm: { wasm: "/ort.wasm", mjs: "/ort.mjs" },
      worker: fake,
      sizes: { model: [MODEL.length, MODEL.length], wasm: [1000, 5000] },
      onProgress: (loaded, total) => seen.push([loaded, total]),
    });
    expect(segmenter.model.name).toBe("model");
    // ONNX Runtime is fetched only when the model turns out to need it.
    expect(new Set(seen.map(([, total]) => total))).toEqual(new Set([MODEL.length, MODEL.length + 1000]));
    expect(seen.at(-1)![0]).toBe(MODEL.length + 1000);
    for (let i = 1; i < seen.length; i++) expect(seen[i]![0]).toBeGreaterThanOrEqual(seen[i - 1]![0]);
    await segmenter.setImage(discs());
    const found = (await segmenter.predict({ points: [point] }))!;
    expect(found).toBeInstanceOf(Segmentation);
    expectedMask(found.mask);
    expect((await segmenter.preview({ points: [point] }, { whole: true }))!.contours.length).toBeGreaterThan(0);
    expect((await segmenter.track(discs(), { x: 70, y: 60, restart: true, fixed: false })).found).toBe(true);
    await segmenter.dispose();
    expect(FakeWorker.all[0]!.ended).toBe(true);
  });

  it("runs in the page itself as well, and takes a model's bytes", async () => {
    const segmenter = await openSegmenter({ model: MODEL, worker: false });
    await expect(segmenter.predict({ points: [point] })).rejects.toThrow("setImage first");
    await segmenter.setImage(discs());
    expectedMask((await segmenter.predict({ points: [point] }))!.mask);
    await segmenter.dispose();
  });

  it("tries a lost connection again, and not what is not there", async () => {
    let tries = 0;
    responses.set("http://host/model.onnx", () => {
      tries++;
      if (tries === 1) return Promise.reject(new TypeError("network"));
      if (tries === 2) return new globalThis.Response("", { status: 503 });
      return new globalThis.Response(MODEL);
    });
    vi.useFakeTimers({ toFake: ["setTimeout"] });
    try {
      const opening = openSegmenter({ model: "/model.onnx", worker: fake });
      await vi.waitFor(async () => {
        await vi.advanceTimersByTimeAsync(700);
        expect(tries).toBe(3);
      });
      await opening;
    } finally {
      vi.useRealTimers();
    }
    await expect(openSegmenter({ model: "/other.onnx", worker: fake })).rejects.toThrow("(404)");
    expect(FakeWorker.all.at(-1)!.ended).toBe(true);
    responses.set("http://host/page", () => new globalThis.Response("<!doctype html>"));
    await expect(openSegmenter({ model: "/page", worker: fake })).rejects.toBeInstanceOf(ModelError);
  });

  it("measures one thread against several, and remembers the better number", async () => {
    const kept = new Map<string, string>();
    vi.stubGlobal("localStorage", { getItem: (key: string) => kept.get(key) ?? null, setItem: (key: string, value: string) => kept.set(key, value) });
    vi.stubGlobal("crossOriginIsolated", true);
    vi.stubGlobal("navigator", { hardwareConcurrency: 8 });
    const segmenter = await openSegmenter({ model: MODEL, worker: fake, threads: "measured" });
    expect(segmenter.model.threads).toBe(4);
    await vi.waitFor(() => expect(kept.size).toBe(1), { timeout: 20_000, interval: 100 });
    const [cores, threads] = JSON.parse(kept.get("picosam2-threads")!) as [number, number];
    expect(cores).toBe(8);
    expect([1, 4]).toContain(threads);
    await vi.waitFor(() => expect(FakeWorker.all.filter(({ ended }) => !ended).length).toBe(1));
    kept.set("picosam2-threads", "[8,2]");
    expect((await openSegmenter({ model: MODEL, worker: fake, threads: "measured" })).model.threads).toBe(2);
    kept.set("picosam2-threads", "[2,2]"); // of another processor
    expect((await openSegmenter({ model: MODEL, worker: fake, threads: "measured" })).model.threads).toBe(4);
    kept.set("picosam2-threads", "{");
    expect((await openSegmenter({ model: MODEL, worker: fake, threads: 3 })).model.threads).toBe(3);
  }, 30_000);

  it("rejects what is asked of a worker that fails or is closed", async () => {
    const worker = new FakeWorker();
    const notices: Notice[] = [];
    const client = new Client(worker as unknown as Worker, (notice) => notices.push(notice));
    const asked = client.call("measure", null);
    await expect(asked).rejects.toThrow("not loaded");
    worker.postMessage = () => undefined;
    const lost = client.call("measure", null);
    worker.emit("error", { message: "" });
    await expect(lost).rejects.toThrow("could not start");
    const closed = client.call("measure", null);
    client.close();
    await expect(closed).rejects.toThrow("disposed");
    await expect(client.call("measure", null)).rejects.toThrow("disposed"); // nobody would answer
    worker.emit("message", { data: { notice: "gpu" } });
    expect(notices).toEqual([{ notice: "gpu" }]);
  });

  it("answers clicks while the finder is on its way", async () => {
    const segmenter = await openSegmenter({ model: "/model.onnx", finder: "/finder.onnx", worker: fake });
    await segmenter.setImage(discs());
    let fail: (error: unknown) => void = () => undefined;
    responses.set("http://host/finder.onnx", () => new Promise<never>((_, reject) => (fail = reject)));
    const search = segmenter.everything().catch((error: unknown) => error);
    expectedMask((await segmenter.predict({ points: [point] }))!.mask);
    // It comes, and is none; the next search asks for it again.
    responses.delete("http://host/finder.onnx");
    fail(new TypeError("network"));
    expect(((await search) as Error).message).toContain("(404)");
    responses.set("http://host/finder.onnx", () => new globalThis.Response(MODEL));
    await expect(segmenter.everything()).rejects.toThrow(/finder/);
  });

  it("goes on when an answer cannot be sent", async () => {
    const worker = new FakeWorker();
    const sent: Response[] = [];
    const emit = worker.emit.bind(worker);
    let broken = 1;
    worker.emit = (type, event) => {
      if (broken-- > 0) throw new Error("it cannot be copied");
      sent.push((event as { data: Response }).data);
      emit(type, event);
    };
    worker.postMessage({ id: 1, call: "measure", value: null });
    worker.postMessage({ id: 2, call: "measure", value: null });
    await vi.waitFor(() => expect(sent).toMatchObject([{ id: 2 }]));
  });

  it("answers about the image that was set last, as soon as it is sent", async () => {
    const segmenter = await openSegmenter({ model: MODEL, worker: fake });
    await segmenter.setImage(discs());
    const worker = FakeWorker.all[0]!;
    const post = worker.postMessage.bind(worker);
    const early: Promise<Segmentation | null>[] = [];
    worker.postMessage = (data) => {
      post(data);
      if (data.call === "setImage") early.push(segmenter.predict({ points: [[2 * point.x, 2 * point.y]] }));
    };
    const size = { width: 2 * WIDTH, height: 2 * HEIGHT };
    await segmenter.setImage(discs(), size);
    expect((await early[0]!)!.rle().size).toEqual([size.height, size.width]);
  });

  it("takes images in the order in which they were given, whichever is decoded first", async () => {
    let decoded: (image: unknown) => void = () => undefined;
    vi.stubGlobal("createImageBitmap", () => new Promise((done) => (decoded = done)));
    const segmenter = await openSegmenter({ model: MODEL, worker: fake });
    const slow = segmenter.setImage(new Blob(["slow"])).catch((error: unknown) => error);
    const quick = segmenter.setImage(discs());
    await new Promise((done) => setTimeout(done, 5));
    await expect(segmenter.predict({ points: [point] })).rejects.toThrow("setImage first");
    decoded({ width: 0, height: 0, close: () => undefined });
    expect(await slow).toBeInstanceOf(Error); // it has no pixels
    await quick; // and that is not this one's trouble
    expectedMask((await segmenter.predict({ points: [point] }))!.mask);
  });

  it("does not answer for ONNX Runtime's own threads", () => {
    let listening = false;
    serve(null, { name: "em-pthread-1", postMessage: () => undefined, addEventListener: () => (listening = true) });
    expect(listening).toBe(false);
  });
});
