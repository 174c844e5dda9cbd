/**
 * Numbers of the page, measured in headless Chromium on this machine:
 *
 *     node benchmarks/web.mjs [--json FILE] [--quick]
 *
 * It needs a built page (`npm run build` in web/), Chromium (CHROMIUM) and a Python with the package
 * (PICOSAM2_PYTHON). Browser and Python take turns, so that both see the same load; times are medians.
 */

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { extname, join, resolve, sep } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const ROOT = resolve(import.meta.dirname, "..");
const SITE = join(ROOT, "src/picosam2/assets/web");
const PYTHON = process.env.PICOSAM2_PYTHON ?? "python3";
const { chromium } = createRequire(join(ROOT, "web/package.json"))("playwright-core");

const quick = process.argv.includes("--quick");
const each = quick ? 2 : 4; // clicks in a turn

const sha256 = (path) => createHash("sha256").update(readFileSync(path)).digest("hex").slice(0, 12);

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** ONNX Runtime, for graphics processors and for other networks, and the finder: no first mask waits for them. */
const LATER = /jspi|webgpu|inside|^ort[-.]|^finder[.]onnx$/;

/** Bytes of the page's files, compressed as a host would send them. */
function weight() {
  const out = { page: 0, onnxruntime: 0, model: 0, modelRaw: 0, finder: 0 };
  for (const entry of readdirSync(SITE, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const bytes = readFileSync(join(entry.parentPath, entry.name));
    if (entry.name === "sample.jpg") continue;
    if (entry.name === "finder.onnx") {
      out.finder += bytes.length;
      continue;
    }
    const kind = entry.name.endsWith(".onnx")
      ? "model"
      : LATER.test(entry.name)
        ? "onnxruntime"
        : "page";
    out[kind] += gzipSync(bytes, { level: 9 }).length;
    if (kind === "model") out.modelRaw += bytes.length;
  }
  return out;
}

const TYPES = {
  ".css": "text/css", ".html": "text/html", ".jpg": "image/jpeg", ".js": "text/javascript", ".mjs": "text/javascript",
  ".svg": "image/svg+xml", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json",
};

/** A host that sends brotli, all answers together at most so many bits a second, and counts them. */
async function slowHost(bitsPerSecond) {
  const packed = new Map();
  const file = (path) => {
    const at = join(SITE, path === "/" ? "index.html" : path);
    if (!at.startsWith(SITE + sep) || !existsSync(at)) return null;
    if (!packed.has(at)) {
      const bytes = readFileSync(at);
      const params = { [constants.BROTLI_PARAM_QUALITY]: 11 };
      packed.set(at, extname(at) === ".jpg" ? bytes : brotliCompressSync(bytes, { params }));
    }
    return { at, body: packed.get(at) };
  };
  for (const entry of readdirSync(SITE, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name).slice(SITE.length);
    if (entry.isFile() && !LATER.test(entry.name)) file(path); // compressed before the clock starts
  }
  let free = 0; // when the line has sent all that was given to it
  const host = { sent: 0 };
  const server = createServer(async (request, response) => {
    const found = file(decodeURIComponent(request.url.split("?")[0]));
    if (!found) return response.writeHead(404).end();
    const { at, body } = found;
    response.writeHead(200, {
      "Content-Type": TYPES[extname(at)] ?? "application/octet-stream",
      "Content-Length": body.length,
      ...(extname(at) === ".jpg" ? {} : { "Content-Encoding": "br" }),
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    });
    for (let i = 0; i < body.length; i += 16384) {
      const part = body.subarray(i, i + 16384);
      const now = performance.now();
      free = Math.max(free, now) + (8000 * part.length) / bitsPerSecond;
      await new Promise((done) => setTimeout(done, free - now));
      response.write(part);
      host.sent += part.length;
    }
    return response.end();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  host.url = `http://127.0.0.1:${server.address().port}/`;
  host.stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return host;
}

/** Milliseconds from an address to the first mask of a click on the sample, nothing cached. */
async function firstMask(browser, url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  const before = performance.now();
  await page.goto(url);
  await page.click(".welcome [data-action=sample]");
  await ready(page);
  await opened(page);
  await page.mouse.click(...(await screen(page, points[0])));
  await masked(page, 1);
  const ms = performance.now() - before;
  await context.close();
  return ms;
}

async function demo() {
  const code =
    "from picosam2.apps.demo import DemoServer, find_site\n" +
    "s = DemoServer(find_site(), 0)\nprint(s.url, flush=True)\ns.serve_forever()";
  const child = spawn(PYTHON, ["-c", code], { stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise((done) => child.stdout.once("data", (data) => done(String(data).trim())));
  return { url, stop: () => child.kill() };
}

/** The median milliseconds of clicks on the sample, in Python, with as many threads as the page. */
function python(points, threads) {
  const code = `
import json, statistics, sys, time
from pathlib import Path
from picosam2.images import load_image
from picosam2.predictor import Predictor
points, site, threads = json.loads(sys.argv[1])
predictor = Predictor(Path(site) / "model" / "default.onnx", threads=threads)
image = load_image(Path(site) / "sample.jpg")
times = []
for point in [points[0], *points]:
    before = time.perf_counter()
    predictor(image, points=[point])
    times.append(1000 * (time.perf_counter() - before))
print(json.dumps(statistics.median(times[1:])))
`;
  const run = spawnSync(PYTHON, ["-c", code, JSON.stringify([points, SITE, threads])], { encoding: "utf8" });
  if (run.status !== 0) throw new Error(run.stderr);
  return JSON.parse(run.stdout);
}

const ready = (page) => page.waitForSelector("body[data-model=ready]", { timeout: 120000 });
const opened = (page) => page.waitForSelector("body[data-photo]", { timeout: 60000 });

function screen(page, [x, y]) {
  return page.evaluate(([px, py]) => {
    const view = document.getElementById("view");
    const [scale, left, top] = view.dataset.transform.split(" ").map(Number);
    const box = view.getBoundingClientRect();
    return [box.left + left + px * scale, box.top + top + py * scale];
  }, [x, y]);
}

const masked = (page, count) =>
  page.waitForFunction(
    (n) => {
      const scores = [...document.querySelectorAll(".object .score")];
      return scores.length === n && scores.every((score) => score.textContent.includes("%"));
    },
    count,
    { timeout: 120000 },
  );

const sample = JSON.parse(readFileSync(join(ROOT, "src/picosam2/assets/sample.json"), "utf8"));
const places = sample.objects.map(({ point }) => point);
const points = [...places, ...places.map(([x, y]) => [x + 3, y + 2])];
const served = await demo();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
try {
  const cold = [];
  for (let i = 0; i < (quick ? 1 : 3); i++) cold.push(await firstMask(browser, served.url));
  const host = await slowHost(4e6);
  const slow = await firstMask(browser, host.url);
  const { sent } = host;
  host.stop();

  // A finger does not hover: what a click takes is not hidden in the preview before it.
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, hasTouch: true });
  await page.goto(served.url);
  await ready(page);
  await page.click(".welcome [data-action=sample]");
  await opened(page);
  const threads = Number((await page.textContent("#model")).match(/(\d+) thread/)[1]);

  const browserMs = [];
  const pythonMs = [];
  for (let round = 0; round < (quick ? 2 : 4); round++) {
    const some = points.slice(round * 4, round * 4 + each);
    for (const point of some) {
      await page.touchscreen.tap(...(await screen(page, point)));
      await masked(page, 1);
      if ((await page.getAttribute("body", "data-reused")) !== "false") throw new Error("a click reused a preview");
      browserMs.push(Number(await page.getAttribute("body", "data-ms")));
      // A click on a kept object would select it, and hovering there ask for nothing.
      await page.keyboard.press("Delete");
      await masked(page, 0);
    }
    pythonMs.push(python(some, threads));
  }

  // Hovering: the pointer never rests, for three seconds.
  const rates = [];
  const until = performance.now() + 3000;
  for (let i = 0; performance.now() < until; i++) {
    const [x, y] = points[0];
    await page.mouse.move(...(await screen(page, [x + 40 * Math.sin(i / 20), y + 30 * Math.cos(i / 13)])));
    await page.waitForTimeout(8);
    if (performance.now() > until - 1500) rates.push(Number(await page.getAttribute("body", "data-hovers")));
  }

  const kb = (bytes) => Math.round(bytes / 1000);
  const size = weight();
  const found = {
    date: new Date().toISOString(),
    machine: `${cpus()[0].model}, ${cpus().length} logical processors`,
    weights: sha256(join(ROOT, "src/picosam2/assets/weights/default.onnx")),
    weights_as_the_page_has_them: sha256(join(SITE, "model/default.onnx")),
    browser: `Chromium ${browser.version()}`,
    threads,
    page_kb_gzip: kb(size.page),
    onnxruntime_kb_gzip_not_for_the_first_mask: kb(size.onnxruntime),
    model_kb: kb(size.modelRaw),
    finder_kb_for_everything_only: kb(size.finder),
    cold_first_mask_ms: Math.round(median(cold)),
    cold_first_mask_at_4_mbit_ms: Math.round(slow),
    bytes_to_first_mask_brotli: sent,
    bytes_to_first_mask_gzip_at_most: size.page + size.model,
    click_ms: Math.round(median(browserMs) * 10) / 10,
    python_click_ms: Math.round(median(pythonMs) * 10) / 10,
    ratio_to_python: Math.round((100 * median(browserMs)) / median(pythonMs)) / 100,
    hover_masks_per_second: median(rates),
  };
  console.log(JSON.stringify(found, null, 2));
  const at = process.argv.indexOf("--json");
  if (at > 0) writeFileSync(process.argv[at + 1], `${JSON.stringify(found, null, 2)}\n`);
} finally {
  await browser.close();
  served.stop();
}
