/**
 * A segmenter in a browser: the model in a worker, the image from whatever can be drawn. Nothing is
 * assumed about where files lie: `defaults.ts` does that.
 */

import { Client } from "./client.ts";
import { pixelsOf } from "./image.ts";
import { ModelError } from "./metadata.ts";
import type { RgbaImage } from "./geometry.ts";
import type { Call, Calls, FoundObject, Loaded, LoadRequest, Notice } from "./protocol.ts";
import {
  type EverythingOptions, type ImageSource, type PredictOptions, type PromptLike, questionOf, searched, Segmentation,
  type Segmenter, type SetImageOptions, type TrackRequest,
} from "./segmenter.ts";
import { defaultThreads, rememberedThreads, rememberThreads } from "./threads.ts";

export interface BrowserOptions {
  /** The model file: its address or its bytes. */
  readonly model: string | URL | Uint8Array;
  /** The finder's file, for `everything`: its address or its bytes. It is fetched when it is first wanted. */
  readonly finder?: string | URL | Uint8Array;
  /**
   * ONNX Runtime's glue and WebAssembly; by default where onnxruntime-web has them. They are fetched for
   * a model whose network is not of this project's operators; others need no runtime.
   */
  readonly wasm?: { readonly mjs?: string | URL; readonly wasm?: string | URL };
  /**
   * Starts the worker in which the model runs; its script calls `serve` of picosam2/serve. With
   * `false` the model runs in the page itself.
   */
  readonly worker: false | (() => Worker);
  /** Threads of ONNX Runtime, where it is needed; "measured" tries one against several, once a device. */
  readonly threads?: number | "measured";
  /** Hears how many bytes have come, of how many. */
  readonly onProgress?: (loaded: number, total: number) => void;
  /** Hears that a graphics processor has taken over. */
  readonly onGpu?: () => void;
  /** Bytes of the files, [compressed, decompressed], so that the progress is right from the start. */
  readonly sizes?: { readonly model?: readonly [number, number]; readonly wasm?: readonly [number, number] };
}

/** The engine in a worker or in this page: a request gives a promise either way. */
export interface Link {
  call<K extends Call>(call: K, value: Calls[K]["request"], transfer?: Transferable[]): Promise<Calls[K]["answer"]>;
  close(): void;
}

/** Loads the model. Rejects with `ModelError` if that fails; it can be called again then. */
export async function openSegmenter(options: BrowserOptions): Promise<Segmenter> {
  const fixed = typeof options.threads === "number" ? options.threads : null;
  const remembered = options.threads === "measured" ? rememberedThreads() : null;
  const threads = Math.max(1, fixed ?? remembered ?? defaultThreads());
  const link = await open(options, (notice) => {
    if (notice.notice === "progress") options.onProgress?.(notice.loaded, notice.total);
    else options.onGpu?.();
  });
  try {
    const loaded = await link.call("load", request(options, threads));
    const { finder } = options;
    const segmenter = new BrowserSegmenter(
      link, loaded, finder === undefined || finder instanceof Uint8Array ? (finder ?? null) : absolute(finder),
    );
    if (options.threads === "measured" && remembered === null && loaded.threads > 1) {
      idle(() => void segmenter.tryOneThread(options));
    }
    return segmenter;
  } catch (error) {
    link.close();
    throw error;
  }
}

/** An address as the worker understands it, too. */
function absolute(url: string | URL): string {
  return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;
}

function request({ model, wasm, sizes }: BrowserOptions, threads: number): LoadRequest {
  const name =
    model instanceof Uint8Array
      ? "the model"
      : decodeURIComponent(new URL(absolute(model)).pathname.split("/").pop() ?? "");
  return {
    model: model instanceof Uint8Array ? model : absolute(model),
    name,
    wasm: {
      ...(wasm?.mjs && { mjs: absolute(wasm.mjs) }),
      ...(wasm?.wasm && { wasm: absolute(wasm.wasm) }),
    },
    threads,
    modelBytes: sizes?.model ?? null,
    wasmBytes: sizes?.wasm ?? null,
  };
}

async function open(options: BrowserOptions, onNotice: (notice: Notice) => void): Promise<Link> {
  if (options.worker === false) {
    // Not in the bundle of pages that use a worker.
    const { Inside } = await import("./inside.ts");
    return new Inside(onNotice);
  }
  return new Client(options.worker(), onNotice);
}

class BrowserSegmenter implements Segmenter {
  /** Of the image that the engine has, or has been sent: what is asked from then on is about it. */
  private size: { readonly width: number; readonly height: number } | null = null;
  /** Done when all images so far are set: a quick one must not overtake a slow one that was given before. */
  private images: Promise<unknown> = Promise.resolve();
  private used = false;

  constructor(
    private link: Link,
    private loaded: Loaded,
    private readonly finder: string | Uint8Array | null,
  ) {}

  get model(): Segmenter["model"] {
    return this.loaded;
  }

  setImage(source: ImageSource, options: SetImageOptions = {}): Promise<void> {
    const pixels = pixelsOf(source); // at once: a video goes on
    const work = this.images.then(async () => {
      const image = await pixels;
      const { width = image.width, height = image.height } = options;
      const own = source !== (image as unknown) && !("data" in source);
      const give = own || options.transfer === true;
      const buffer = image.data.buffer as ArrayBuffer;
      this.size = { width, height };
      this.used = true;
      await this.link.call("setImage", { image, width, height }, give ? [buffer] : []);
    });
    pixels.catch(() => undefined); // `work` fails with it, in its turn
    this.images = work.catch(() => undefined);
    return work;
  }

  async predict(prompt: PromptLike, options: PredictOptions = {}): Promise<Segmentation | null> {
    const { width, height } = this.need();
    const question = questionOf(prompt, width, height, options.scale ?? null);
    const answer = await this.link.call("predict", { ...question, scales: options.scales ?? false });
    return answer && new Segmentation(answer, width, height);
  }

  async preview(
    prompt: PromptLike,
    options: PredictOptions & { whole?: boolean } = {},
  ): Promise<Calls["preview"]["answer"]> {
    const { width, height } = this.need();
    const question = questionOf(prompt, width, height, options.scale ?? null);
    return this.link.call("preview", { ...question, whole: options.whole ?? false });
  }

  async everything(options: EverythingOptions = {}): Promise<FoundObject[]> {
    this.need();
    const { finder } = this;
    if (!finder) throw new ModelError("there is no finder: open the segmenter with the option `finder`");
    return searched({
      load: () => this.link.call("loadFinder", { finder }),
      next: (begin) => this.link.call("everything", { finder, begin }),
      image: () => this.size,
    }, options);
  }

  track(image: RgbaImage, at: TrackRequest): Promise<Calls["track"]["answer"]> {
    this.used = true;
    return this.link.call("track", { image, ...at }, [image.data.buffer as ArrayBuffer]);
  }

  dispose(): Promise<void> {
    this.link.close();
    return Promise.resolve();
  }

  /** Measures one thread beside the several of now; the better number is taken and remembered. */
  async tryOneThread(options: BrowserOptions): Promise<void> {
    const rival = await open(options, () => undefined);
    try {
      const loaded = await rival.call("load", request(options, 1));
      const several = await this.link.call("measure", null);
      const single = await rival.call("measure", null);
      const better = single < several ? 1 : this.loaded.threads;
      rememberThreads(better);
      // With an image or a video in work the change waits for the next visit.
      if (better === 1 && !this.used) {
        this.link.close();
        this.link = rival;
        this.loaded = loaded;
        return;
      }
    } catch {
      // Then the number stays what it is.
    }
    rival.close();
  }

  private need(): { width: number; height: number } {
    if (!this.size) throw new Error("there is no image yet: call setImage first");
    return this.size;
  }
}

function idle(work: () => void): void {
  if (typeof requestIdleCallback === "function") requestIdleCallback(work, { timeout: 4000 });
  else setTimeout(work, 1000);
}
