/** Starts the library with the page's own files. */

import glueUrl from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import wasmUrl from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import { openSegmenter, type Segmenter } from "picosam2/custom";

/** Bytes of model and runtime, [as a good host sends them, decompressed]; filled in by the build. */
declare const __SIZES__: { model: readonly [number, number]; wasm: readonly [number, number] };

/** Loads model and runtime; `onProgress` hears the share of all bytes that has come. */
export function startSegmenter(onProgress: (share: number) => void, onGpu: () => void): Promise<Segmenter> {
  const asked = new URLSearchParams(location.search).get("model") ?? "";
  const own = /^[\w.-]+\.onnx$/.test(asked);
  return openSegmenter({
    model: new URL(`model/${own ? asked : "default.onnx"}`, document.baseURI),
    finder: new URL("model/finder.onnx", document.baseURI),
    wasm: { mjs: new URL(glueUrl, document.baseURI), wasm: new URL(wasmUrl, document.baseURI) },
    worker: () => new Worker(new URL("./worker.ts", import.meta.url), { type: "module" }),
    threads: "measured",
    sizes: own ? { wasm: __SIZES__.wasm } : __SIZES__,
    onProgress: (loaded, total) => onProgress(loaded / total),
    onGpu,
  });
}
