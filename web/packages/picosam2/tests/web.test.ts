/** The graphics processor's self-test, and pixels from what a browser can draw. */

import { afterEach, describe, expect, it, vi } from "vitest";
import { drawnPixels, ImageError, pixelsOf } from "../src/image.ts";
import type { OrtRuntime } from "../src/runtime.ts";
import { mayUseGpu, measure, SwitchingRuntime } from "../src/web.ts";
import { WebEngine } from "../src/webengine.ts";
import { arithmetic, facts } from "./arithmetic.ts";

vi.mock("onnxruntime-web/wasm", () => ({
  env: { wasm: {} },
  Tensor: vi.fn(),
  InferenceSession: { create: () => Promise.resolve({ inputNames: ["image"], release: () => Promise.resolve() }) },
}));

afterEach(() => vi.unstubAllGlobals());

/** A runtime that takes so many milliseconds and is off by so much. */
function made(ms: number, off = 0, fails = false): OrtRuntime & { released: boolean } {
  const runtime = {
    facts,
    released: false,
    run: async (crops: Uint8Array, batch: number) => {
      if (fails) throw new Error("device lost");
      if (ms) await new Promise((done) => setTimeout(done, ms));
      return (await arithmetic.run(crops, batch)).map((value) => value + off);
    },
    release: () => {
      runtime.released = true;
      return Promise.resolve();
    },
  };
  return runtime as unknown as OrtRuntime & { released: boolean };
}

describe("a graphics processor", () => {
  const crops = new Uint8Array(facts.inputSize ** 2 * 3);

  it("is taken if it is right and faster, and left when it fails", async () => {
    const switching = new SwitchingRuntime(facts, made(60));
    let fail = false;
    const gpu = made(0);
    const run = gpu.run.bind(gpu);
    gpu.run = (...args) => (fail ? Promise.reject(new Error("lost")) : run(...args).then((v) => v.map((x) => x + 0.01)));
    expect(await switching.adopt(gpu)).toBe(true);
    const [fromGpu] = await switching.run(crops, 1);
    fail = true;
    const [fromCpu] = await switching.run(crops, 1);
    expect(fromGpu! - fromCpu!).toBeCloseTo(0.01, 4);
    await switching.release();
  });

  it.each([
    ["it is wrong", made(0, 1)], ["it is slower", made(90)], ["it fails", made(0, 0, true)],
  ])("is not taken if %s", async (_, gpu) => {
    expect(await new SwitchingRuntime(facts, made(20)).adopt(gpu)).toBe(false);
    expect(gpu.released).toBe(true);
  });

  it("is measured by different crops", async () => {
    const [ms, logits] = await measure(made(5));
    expect(ms).toBeGreaterThan(3);
    expect(new Set(logits.slice(0, 5000)).size).toBeGreaterThan(100);
  });

  it.each([
    ["there is none", {}, false],
    ["it gives no adapter", { gpu: { requestAdapter: () => Promise.resolve(null) } }, false],
    ["it is emulated", { gpu: { requestAdapter: () => Promise.resolve({ info: { isFallbackAdapter: true } }) } }, false],
    ["data is saved", { gpu: { requestAdapter: () => Promise.resolve({}) }, connection: { saveData: true } }, false],
    ["it is real", { gpu: { requestAdapter: () => Promise.resolve({}) } }, true],
  ])("may be used or not: %s", async (_, navigator, may) => {
    vi.stubGlobal("navigator", navigator);
    expect(await mayUseGpu()).toBe(may);
  });

  it("comes in its turn, and its failure is nobody's trouble", async () => {
    vi.stubGlobal("navigator", { gpu: { requestAdapter: () => Promise.resolve({}) } });
    for (const opens of [true, false]) {
      const notices: string[] = [];
      const work: (() => Promise<void>)[] = [];
      const engine = new WebEngine({
        openGpu: () => (opens ? Promise.resolve(made(0)) : Promise.reject(new Error("none"))),
        onNotice: ({ notice }) => notices.push(notice),
        inTurn: (job) => work.push(job),
      });
      const runtime = new SwitchingRuntime(facts, made(60));
      engine.use(runtime);
      const trial = engine as unknown as { tryGpu(...args: unknown[]): Promise<void> };
      await trial.tryGpu(new Uint8Array(), facts, runtime);
      for (const job of work) await job();
      expect(notices).toEqual(opens ? ["gpu"] : []);
    }
  });
});

interface Drawing {
  readonly width: number;
  readonly height: number;
}

/** Just enough of a canvas: it keeps what is drawn as one shade a source. */
function canvases({ blank = false } = {}): { made: Drawing[] } {
  const made: Drawing[] = [];
  class Canvas {
    filled = false;
    offset = [0, 0];
    constructor(readonly width: number, readonly height: number) {
      made.push(this);
    }
    getContext(): object {
      return {
        setTransform: () => undefined,
        clearRect: () => undefined,
        fillRect: () => (this.filled = true),
        drawImage: (_: unknown, x: number, y: number) => (this.offset = [-x, -y]),
        getImageData: (_x: number, _y: number, w: number, h: number) => {
          const data = new Uint8ClampedArray(w * h * 4);
          if (!blank) {
            for (let i = 0, at = 0; i < w * h; i++, at += 4) {
              data[at] = (this.offset[0]! + (i % w)) % 251;
              data[at + 1] = (this.offset[1]! + Math.floor(i / w)) % 251;
              data[at + 2] = this.filled ? 255 : 0;
              data[at + 3] = 255;
            }
          }
          return { data };
        },
      };
    }
  }
  vi.stubGlobal("OffscreenCanvas", Canvas);
  return { made };
}

describe("pixels", () => {
  it("of a large image are read in tiles that every device has room for", () => {
    const { made } = canvases();
    const { data, width, height } = drawnPixels({} as CanvasImageSource, 5000, 2500);
    expect([width, height]).toEqual([5000, 2500]);
    expect(Math.max(...made.map((canvas) => canvas.width * canvas.height))).toBeLessThanOrEqual(2048 * 2048);
    for (const [x, y] of [[0, 0], [2047, 2047], [2048, 2048], [4999, 2499], [4100, 10]] as const) {
      expect([...data.subarray((y * 5000 + x) * 4, (y * 5000 + x) * 4 + 4)]).toEqual([x % 251, y % 251, 255, 255]);
    }
  });

  it("of a part come from there, and without a ground", () => {
    canvases();
    const { data } = drawnPixels({} as CanvasImageSource, 100, 100, { ground: "none", part: { x: 30, y: 40, width: 5, height: 2 } });
    expect(data.length).toBe(40);
    expect([...data.subarray(0, 4)]).toEqual([30, 40, 0, 255]);
  });

  it("that stay blank are an error, not an empty image", () => {
    canvases({ blank: true });
    expect(() => drawnPixels({} as CanvasImageSource, 10, 10)).toThrow(ImageError);
  });

  it("come from pixels, files, images, videos and canvases", async () => {
    canvases();
    const raw = { data: new Uint8Array(16), width: 2, height: 2 };
    expect(await pixelsOf(raw)).toEqual(raw);
    await expect(pixelsOf({ ...raw, width: 3 })).rejects.toThrow("24 bytes");
    let closed = 0;
    vi.stubGlobal("createImageBitmap", (blob: Blob) =>
      blob.size > 3 ? Promise.resolve({ width: 4, height: 3, close: () => closed++ }) : Promise.reject(new Error("no")));
    expect(await pixelsOf(new Blob(["image"]))).toMatchObject({ width: 4, height: 3 });
    expect(closed).toBe(1);
    await expect(pixelsOf(new Blob(["no"]))).rejects.toThrow(ImageError);
    for (const source of [{ naturalWidth: 6, naturalHeight: 2 }, { videoWidth: 6, videoHeight: 2 }, { displayWidth: 6, displayHeight: 2 }, { width: 6, height: 2 }]) {
      expect(await pixelsOf(source as never)).toMatchObject({ width: 6, height: 2 });
    }
    await expect(pixelsOf({ naturalWidth: 0, naturalHeight: 0 } as never)).rejects.toThrow("wait until it is loaded");
  });
});
