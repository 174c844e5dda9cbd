import { copyFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, resolve } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const OUT = resolve(ROOT, "standalone");

/** What the bundle fetches lies beside it. */
function files(): Plugin {
  const require = createRequire(import.meta.url);
  return {
    name: "picosam2-files",
    closeBundle() {
      mkdirSync(OUT, { recursive: true });
      for (const path of [
        require.resolve("onnxruntime-web/ort-wasm-simd-threaded.mjs"),
        require.resolve("onnxruntime-web/ort-wasm-simd-threaded.wasm"),
        resolve(ROOT, "weights/default.onnx"),
        resolve(ROOT, "weights/finder.onnx"),
        resolve(ROOT, "../../app/public/licences.txt"),
      ]) {
        copyFileSync(path, resolve(OUT, basename(path)));
      }
    },
  };
}

export default defineConfig({
  root: ROOT,
  publicDir: false,
  plugins: [files()],
  resolve: {
    conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "development|production"],
  },
  build: {
    target: "es2022",
    outDir: OUT,
    emptyOutDir: true,
    rollupOptions: {
      input: { picosam2: resolve(ROOT, "src/standalone.ts"), worker: resolve(ROOT, "src/worker.ts") },
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "[name].js", chunkFileNames: "chunk-[hash].js" },
    },
  },
});
