/** Servers and browsers for the end-to-end tests and the benchmark. */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createServer, type Server } from "node:http";
import { existsSync, readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { extname, join, resolve, sep } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";

export const ROOT = resolve(import.meta.dirname, "../../..");
export const SITE = resolve(ROOT, "src/picosam2/assets/web");
export const PYTHON = process.env["PICOSAM2_PYTHON"] ?? "python3";
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** Why the end-to-end tests cannot run here, or null. */
export function missing(): string | null {
  if (!existsSync(join(SITE, "index.html"))) return "the page is not built: npm run build";
  if (!existsSync(CHROMIUM)) return `there is no browser at ${CHROMIUM}: set CHROMIUM`;
  const probe = spawnSync(PYTHON, ["-c", "import picosam2.apps.demo"], { encoding: "utf8" });
  if (probe.status !== 0) return `${PYTHON} cannot import picosam2: set PICOSAM2_PYTHON`;
  return null;
}

export interface Served {
  readonly url: string;
  stop(): Promise<void>;
}

/** `picosam2 demo`'s server on a free port. */
export async function demoServer(): Promise<Served> {
  const code = [
    "from picosam2.apps.demo import DemoServer, find_site",
    "server = DemoServer(find_site(), 0)",
    "print(server.url, flush=True)",
    "server.serve_forever()",
  ].join("\n");
  const child: ChildProcess = spawn(PYTHON, ["-c", code], { stdio: ["ignore", "pipe", "inherit"] });
  const url = await new Promise<string>((done, fail) => {
    child.stdout!.once("data", (data: Buffer) => done(data.toString().trim()));
    child.once("exit", (code) => fail(new Error(`the demo server ended with ${code}`)));
  });
  return {
    url,
    stop: () =>
      new Promise((done) => {
        child.once("exit", () => done());
        child.kill();
      }),
  };
}

const TYPES: Record<string, string> = {
  ".css": "text/css", ".html": "text/html", ".jpg": "image/jpeg", ".js": "text/javascript",
  ".mjs": "text/javascript", ".svg": "image/svg+xml", ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};

/** A file host that knows nothing of the page: no headers of its own, in a folder of a name. `change` serves other bytes. */
export async function plainHost(
  refuses: (path: string) => boolean = () => false,
  change: (path: string, body: Buffer) => Buffer = (_, body) => body,
): Promise<Served> {
  const server: Server = createServer((request, response) => {
    const path = decodeURIComponent((request.url ?? "").split("?")[0]!);
    if (refuses(path)) {
      request.socket.destroy();
      return;
    }
    const file = resolve(SITE, path === "/some/folder/" ? "index.html" : path.replace(/^\/some\/folder\//, ""));
    if (!path.startsWith("/some/folder/") || !file.startsWith(SITE + sep) || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
    response.end(change(path, readFileSync(file)));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/some/folder/`,
    stop: () =>
      new Promise((done) => {
        server.closeAllConnections();
        server.close(() => done());
      }),
  };
}

export function launch(...more: string[]): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync", ...more,
    ],
  });
}

/** Waits for the model, then opens the bundled sample. */
export async function openSample(page: Page): Promise<void> {
  await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
  await page.click(".welcome [data-action=sample]");
  await settled(page);
}

/** Waits until the photo has reached the worker. */
export async function settled(page: Page): Promise<void> {
  await page.waitForSelector("body[data-photo]", { timeout: 60_000 });
}

/** Waits until the selected object, number `count`, has its mask. */
export async function masked(page: Page, count: number): Promise<void> {
  await page.waitForFunction(
    (n) => {
      const scores = [...document.querySelectorAll(".object .score")];
      return scores.length === n && scores.every((score) => score.textContent?.includes("%"));
    },
    count,
    { timeout: 60_000 },
  );
}

/** Does something, and waits for `count` more answers of the model than there were. */
export async function answered(page: Page, act: () => Promise<void>, count = 1): Promise<void> {
  const answers = async (): Promise<number> => Number((await page.getAttribute("body", "data-answers")) ?? 0);
  const before = await answers();
  await act();
  await page.waitForFunction((n) => Number(document.body.dataset["answers"]) >= n, before + count, { timeout: 60_000 });
}

/** The place on the screen of a place on the image, as soon as the image is drawn. */
export async function screen(page: Page, x: number, y: number): Promise<[number, number]> {
  await page.waitForSelector("#view[data-transform]", { timeout: 60_000 });
  return page.evaluate(([px, py]) => {
    const area = document.getElementById("view")!;
    const [scale, left, top] = area.dataset["transform"]!.split(" ").map(Number) as [number, number, number];
    const box = area.getBoundingClientRect();
    return [box.left + left + px! * scale, box.top + top + py! * scale] as [number, number];
  }, [x, y]);
}

/** Runs Python and gives what it prints, as JSON. */
export function python<T>(code: string, argument: unknown): T {
  const run = spawnSync(PYTHON, ["-c", code, JSON.stringify(argument)], {
    encoding: "utf8", maxBuffer: 64e6, env: { ...process.env, OMP_NUM_THREADS: "1" },
  });
  if (run.status !== 0) throw new Error(run.stderr);
  return JSON.parse(run.stdout) as T;
}

/** Python's masks for prompts on the sample, by the model that the page was built with. */
export const PYTHON_MASKS = `
import json, sys
from pathlib import Path
from picosam2.images import load_image
from picosam2.masks import rle_encode
from picosam2.predictor import Predictor
from picosam2.prompts import Prompt
site, prompts = json.loads(sys.argv[1])
predictor = Predictor(Path(site) / "model" / "default.onnx")
image = load_image(Path(site) / "sample.jpg")
found = predictor(image, prompts=[Prompt.from_json(p) for p in prompts])
print(json.dumps([{"rle": rle_encode(one.mask), "score": one.score} for one in found]))
`;
