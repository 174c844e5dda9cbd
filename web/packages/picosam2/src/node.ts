/**
 * `createSegmenter` for Node: the model by onnxruntime-node where it is installed, else on this package's
 * own WebAssembly; images as pixels.
 */

import { readFile } from "node:fs/promises";
import { Engine } from "./engine.ts";
import type { RgbaImage } from "./geometry.ts";
import { type ModelFacts, readFacts } from "./metadata.ts";
import { UnknownNetwork } from "./network.ts";
import type { Calls, FoundObject } from "./protocol.ts";
import { type OrtModule, OrtRuntime } from "./runtime.ts";
import {
  type EverythingOptions, type ImageSource, type PredictOptions, type PromptLike, questionOf, searched, Segmentation,
  type Segmenter, type SetImageOptions, type TrackRequest,
} from "./segmenter.ts";
import { SimdRuntime } from "./simd.ts";

export * from "./core.ts";

export interface NodeOptions {
  /** The model file: its path, address or bytes. By default the weights of this package. */
  readonly model?: string | URL | Uint8Array;
  /** The finder's file, for `everything`; by default that of this package. It is read when it is first wanted. */
  readonly finder?: string | URL | Uint8Array;
  /** ONNX Runtime; by default onnxruntime-node if it is installed: it is faster than WebAssembly. */
  readonly ort?: OrtModule;
  readonly threads?: number;
}

/** Loads the model. Rejects with `ModelError` if the file is no model of this project. */
export async function createSegmenter(options: NodeOptions = {}): Promise<Segmenter> {
  const source = options.model ?? new URL("../weights/default.onnx", import.meta.url);
  const [bytes, name] = await load(source);
  const facts = readFacts(bytes, name);
  const ort = options.ort ?? (await onnxruntime());
  const threads = ort ? (options.threads ?? 0) : 1;
  const runtime = ort
    ? await OrtRuntime.open(ort, bytes, facts, threads > 0 ? { intraOpNumThreads: threads } : {})
    : await own(bytes, facts);
  const engine = new Engine();
  engine.use(runtime);
  const finder = options.finder ?? new URL("../weights/finder.onnx", import.meta.url);
  return new NodeSegmenter(engine, runtime, threads, finder);
}

async function load(source: string | URL | Uint8Array): Promise<[Uint8Array, string]> {
  if (source instanceof Uint8Array) return [source, "the model"];
  const name = decodeURIComponent(String(source).split(/[/\\]/).pop() ?? "");
  if (/^https?:/.test(String(source))) {
    const response = await fetch(source);
    if (!response.ok) throw new Error(`the model ${name} could not be fetched (${response.status})`);
    return [new Uint8Array(await response.arrayBuffer()), name];
  }
  const path = typeof source === "string" && source.startsWith("file:") ? new URL(source) : source;
  return [await readFile(path), name];
}

async function onnxruntime(): Promise<OrtModule | null> {
  try {
    const name = "onnxruntime-node"; // not bundled: it is the user's to install
    const module = (await import(name)) as { default?: OrtModule } & OrtModule;
    return module.default ?? module;
  } catch {
    return null;
  }
}

async function own(bytes: Uint8Array, facts: ModelFacts): Promise<SimdRuntime> {
  try {
    return await SimdRuntime.open(bytes, facts);
  } catch (error) {
    if (!(error instanceof UnknownNetwork)) throw error;
    throw new Error(`${facts.name} has ${error.message}: run \`npm install onnxruntime-node\`, or give \`ort\``);
  }
}

class NodeSegmenter implements Segmenter {
  readonly model: Segmenter["model"];
  private size: { width: number; height: number } | null = null;
  private queue: Promise<unknown> = Promise.resolve();
  private finder: Promise<Uint8Array> | null = null;

  constructor(
    private readonly engine: Engine,
    private readonly runtime: OrtRuntime | SimdRuntime,
    threads: number,
    private readonly finderSource: string | URL | Uint8Array,
  ) {
    const { name, bytes, guidance } = runtime.facts;
    this.model = { name, bytes, threads, guidance };
  }

  /** `source` is RGBA pixels: what sharp, pngjs, jpeg-js and canvas give. */
  setImage(source: ImageSource, options: SetImageOptions = {}): Promise<void> {
    return this.inTurn(() => {
      const image = source as RgbaImage;
      if (!ArrayBuffer.isView(image.data) || image.data.length !== image.width * image.height * 4) {
        throw new Error("an image is { data, width, height } with four bytes (RGBA) a pixel");
      }
      const { width = image.width, height = image.height } = options;
      this.engine.setImage({ image, width, height });
      this.size = { width, height };
    });
  }

  predict(prompt: PromptLike, options: PredictOptions = {}): Promise<Segmentation | null> {
    return this.inTurn(async () => {
      const { width, height } = this.need();
      const question = questionOf(prompt, width, height, options.scale ?? null);
      const answer = await this.engine.predict({ ...question, scales: options.scales ?? false });
      return answer && new Segmentation(answer, width, height);
    });
  }

  preview(
    prompt: PromptLike,
    options: PredictOptions & { whole?: boolean } = {},
  ): Promise<Calls["preview"]["answer"]> {
    return this.inTurn(() => {
      const { width, height } = this.need();
      const question = questionOf(prompt, width, height, options.scale ?? null);
      return this.engine.preview({ ...question, whole: options.whole ?? true });
    });
  }

  everything(options: EverythingOptions = {}): Promise<FoundObject[]> {
    let finder: Uint8Array;
    return searched({
      load: async () => {
        this.need();
        finder = await this.readFinder();
        await this.engine.loadFinder({ finder });
      },
      next: (begin) => this.inTurn(() => this.engine.everything({ finder, begin })),
      image: () => this.size,
    }, options);
  }

  private readFinder(): Promise<Uint8Array> {
    this.finder ??= load(this.finderSource).then(
      ([bytes]) => bytes,
      (error: unknown) => {
        this.finder = null; // it can be asked for again
        throw error;
      },
    );
    return this.finder;
  }

  track(image: RgbaImage, at: TrackRequest): Promise<Calls["track"]["answer"]> {
    return this.inTurn(() => this.engine.track({ image, ...at }));
  }

  dispose(): Promise<void> {
    return this.inTurn(() => this.runtime.release());
  }

  private need(): { width: number; height: number } {
    if (!this.size) throw new Error("there is no image yet: call setImage first");
    return this.size;
  }

  private inTurn<T>(work: () => T | Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined);
    return result;
  }
}
