/**
 * For pages without a bundler: everything in one folder, from any file host.
 * `<script type="module" src=".../picosam2/standalone/picosam2.js"></script>` defines
 * `<pico-segment>` and exports `createSegmenter`.
 */

import { openSegmenter } from "./browser.ts";
import type { CreateOptions } from "./defaults.ts";
import { definePicoSegment } from "./element-core.ts";
import type { Segmenter } from "./segmenter.ts";

export * from "./core.ts";
export { drawnPixels, ImageError, pixelsOf } from "./image.ts";

// In a variable: bundlers are not to look for these files.
const here = import.meta.url;
const file = (name: string): URL => new URL(name, here);

/** As `createSegmenter` of the package, with the files that lie beside this one. */
export function createSegmenter(options: CreateOptions = {}): Promise<Segmenter> {
  return openSegmenter({
    ...options,
    model: options.model ?? file("default.onnx"),
    finder: options.finder ?? file("finder.onnx"),
    wasm: options.wasm ?? {
      mjs: file("ort-wasm-simd-threaded.mjs"),
      wasm: file("ort-wasm-simd-threaded.wasm"),
    },
    worker: options.worker ?? startWorker,
  });
}

/** A worker must come from the page's own host; one that imports may come from elsewhere. */
function startWorker(): Worker {
  const url = file("worker.js");
  if (url.origin === location.origin) return new Worker(url, { type: "module" });
  const blob = new Blob([`import ${JSON.stringify(url.href)};`], { type: "text/javascript" });
  return new Worker(URL.createObjectURL(blob), { type: "module" });
}

export const PicoSegment = definePicoSegment(createSegmenter);
