/** `createSegmenter` in browsers: the weights and the worker of this package, if no others are given. */

import { type BrowserOptions, openSegmenter } from "./browser.ts";
import type { Segmenter } from "./segmenter.ts";

/** All optional: model, finder and worker are this package's, ONNX Runtime's files where its package has them. */
export type CreateOptions = Partial<BrowserOptions>;

/** Loads the model. Rejects with `ModelError` if that fails; it can be called again then. */
export function createSegmenter(options: CreateOptions = {}): Promise<Segmenter> {
  return openSegmenter({
    ...options,
    model: options.model ?? new URL("../weights/default.onnx", import.meta.url),
    finder: options.finder ?? new URL("../weights/finder.onnx", import.meta.url),
    worker:
      options.worker ?? (() => new Worker(new URL("./worker.js", import.meta.url), { type: "module" })),
  });
}
