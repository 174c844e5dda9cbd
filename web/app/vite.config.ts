import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import { defineConfig, type Plugin } from "vite";
import { KEYS, PAGE } from "./src/strings";

const PACKAGE = resolve(import.meta.dirname, "../../src/picosam2");
const OUT = resolve(PACKAGE, "assets/web");
const LIBRARY = resolve(import.meta.dirname, "../packages/picosam2");
const WASM = createRequire(import.meta.url).resolve("onnxruntime-web/ort-wasm-simd-threaded.wasm");

/**
 * The policy of the page, in the file itself so that it holds on any host. WebAssembly needs
 * 'wasm-unsafe-eval'; object URLs of the user's own photo need blob:.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "worker-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "connect-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** A model that the page ships with, as the library packed it (PICOSAM2_WEIGHTS and PICOSAM2_FINDER choose others). */
function weights(name: string): string {
  const path = resolve(LIBRARY, `weights/${name}.onnx`);
  if (!existsSync(path)) throw new Error(`there are no weights at ${path}: run npm run build -w picosam2`);
  return path;
}

/** A file's bytes as a good host sends them (brotli), and as they are. */
function sizes(path: string): [number, number] {
  const bytes = readFileSync(path);
  const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } };
  return [brotliCompressSync(bytes, quality).length, bytes.length];
}

/** Files that come from the Python package instead of being kept twice. */
function shared(): Plugin {
  const files: Record<string, () => string> = {
    "sample.jpg": () => resolve(PACKAGE, "assets/sample.jpg"),
    "sample.json": () => resolve(PACKAGE, "assets/sample.json"),
    "model/default.onnx": () => weights("default"),
    "model/finder.onnx": () => weights("finder"),
  };
  return {
    name: "picosam2-shared",
    configureServer(server) {
      server.middlewares.use((request, response, next) => {
        const find = files[(request.url ?? "").split("?")[0]!.slice(1)];
        if (find) response.end(readFileSync(find()));
        else next();
      });
    },
    generateBundle() {
      for (const [fileName, find] of Object.entries(files)) {
        this.emitFile({ type: "asset", fileName, source: readFileSync(find()) });
      }
    },
  };
}

/** The words go into the page. */
function words(): Plugin {
  const escaped = (text: string): string =>
    text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;");
  const marked = (text: string): string => escaped(text).replace(/`([^`]*)`/g, "<kbd>$1</kbd>");
  const keys = KEYS.map(([key, what]) => `          <div><dt>${marked(key)}</dt><dd>${marked(what)}</dd></div>`);
  const texts: Record<string, string> = PAGE;
  return {
    name: "picosam2-words",
    transformIndexHtml: {
      order: "pre",
      handler: (html) =>
        html.replace("{{keys}}", keys.join("\n")).replace(/\{\{(\w+)\}\}/g, (_, name: string) => {
          const text = texts[name];
          if (text === undefined) throw new Error(`strings.ts has no text ${name}`);
          return escaped(text);
        }),
    },
  };
}

/** The policy goes into the built page (the development server needs inline styles). */
function policy(): Plugin {
  return {
    name: "picosam2-policy",
    apply: "build",
    transformIndexHtml: () => [
      {
        tag: "meta",
        attrs: { "http-equiv": "Content-Security-Policy", content: POLICY },
        injectTo: "head-prepend",
      },
    ],
  };
}

/** Tells the service worker which files there are. */
function precache(): Plugin {
  return {
    name: "picosam2-precache",
    apply: "build",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const hash = createHash("sha256");
        const files = ["./"];
        const add = (name: string, body: string | Uint8Array): void => {
          files.push(`./${name}`);
          hash.update(name).update(body);
        };
        const open = resolve(import.meta.dirname, "public");
        for (const name of readdirSync(open).filter((name) => !name.startsWith("_")).sort()) {
          add(name, readFileSync(resolve(open, name)));
        }
        const worker = Object.values(bundle).find((item) => item.fileName === "sw.js");
        if (worker?.type !== "chunk") throw new Error("there is no service worker to fill in");
        for (const item of Object.values(bundle).sort((a, b) => (a.fileName < b.fileName ? -1 : 1))) {
          // ONNX Runtime is fetched where it is of use: for graphics processors and for other networks; the
          // finder when all objects are wanted, and kept from then on.
          if (item === worker || /jspi|webgpu|inside|^assets\/ort[-.]/.test(item.fileName)) continue;
          const body = item.type === "chunk" ? item.code : item.source;
          if (/finder\.onnx$/.test(item.fileName)) {
            hash.update(body); // what was kept of another finder goes
            continue;
          }
          if (item.fileName === "index.html") hash.update(body);
          else add(item.fileName, body);
        }
        worker.code = worker.code
          .replaceAll("__FILES__", JSON.stringify(files))
          .replaceAll("__VERSION__", JSON.stringify(hash.digest("hex").slice(0, 16)));
      },
    },
  };
}

/** WebGPU adds 17 MB (4 MB compressed) that only browsers with a graphics processor fetch. */
const WEBGPU = process.env["PICOSAM2_WEBGPU"] !== "0";

export default defineConfig({
  base: "./",
  define: {
    __WEBGPU__: JSON.stringify(WEBGPU),
    __SIZES__: JSON.stringify({ model: sizes(weights("default")), wasm: sizes(WASM) }),
  },
  plugins: [words(), shared(), policy(), precache()],
  resolve: {
    // ONNX Runtime without its inlined glue: the page serves glue and WebAssembly as own files.
    conditions: ["onnxruntime-web-use-extern-wasm", "module", "browser", "development|production"],
  },
  optimizeDeps: { exclude: ["onnxruntime-web", "picosam2"] },
  worker: { format: "es", plugins: () => [] },
  server: { headers: ISOLATION },
  preview: { headers: ISOLATION },
  build: {
    target: "es2022",
    outDir: OUT,
    emptyOutDir: true,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 2000,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: {
        index: resolve(import.meta.dirname, "index.html"),
        sw: resolve(import.meta.dirname, "src/sw.ts"),
      },
      output: {
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
