/** The tarball as its users get it: in an empty Vite project, from a file host, and in plain Node. */

import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { iou, rleDecode, type Rle } from "../../src/masks.ts";

const PACKAGE = resolve(import.meta.dirname, "../..");
const ASSETS = resolve(PACKAGE, "../../../src/picosam2/assets");
const CHROMIUM = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const VERSIONS = { web: "1.30.0", node: "1.30.0", vite: "8.3.8" };

const sample = JSON.parse(readFileSync(join(ASSETS, "sample.json"), "utf8")) as {
  objects: { name: string; point: [number, number]; rle: Rle }[];
};
const apple = sample.objects.find(({ name }) => name === "apple")!;

const TYPES: Record<string, string> = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
  ".jpg": "image/jpeg",
};

function npm(folder: string, ...args: string[]): string {
  return execFileSync("npm", [...args, "--no-audit", "--no-fund", "--prefer-offline"], {
    cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"],
  });
}

let folder: string;
let tarball: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "picosam2-pack-"));
  const [packed] = JSON.parse(npm(PACKAGE, "pack", "--json", "--pack-destination", folder).replace(/^[^[{]*/, "")) as {
    filename: string;
  }[];
  tarball = join(folder, packed!.filename);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function serve(root: string): Promise<{ url: string; stop: () => void }> {
  const server = createServer((request, response) => {
    const path = decodeURIComponent((request.url ?? "").split("?")[0]!);
    const file = join(root, path.endsWith("/") ? `${path}index.html` : path);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
    return response.end(readFileSync(file));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, stop: () => server.close() };
}

async function inBrowser<T>(root: string, look: (page: import("playwright-core").Page) => Promise<T>): Promise<T> {
  const host = await serve(root);
  let browser: Browser | null = null;
  try {
    browser = await chromium.launch({
      executablePath: CHROMIUM, args: ["--headless", "--no-sandbox", "--disable-gpu"],
    });
    const page = await browser.newPage();
    const errors: string[] = [];
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(host.url);
    const result = await look(page);
    expect(errors).toEqual([]);
    return result;
  } finally {
    await browser?.close();
    host.stop();
  }
}

describe("the tarball", () => {
  it("holds what its package.json promises, and nothing of the tests", () => {
    const files = execFileSync("tar", ["tzf", tarball], { encoding: "utf8" }).split("\n");
    const { exports } = JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf8")) as {
      exports: Record<string, string | Record<string, string>>;
    };
    const named = Object.values(exports).flatMap((to) => (typeof to === "string" ? [to] : Object.values(to)));
    for (const path of named.filter((name) => !name.includes("*"))) {
      expect(files).toContain(`package/${path.slice(2)}`);
    }
    expect(files).toContain("package/LICENSE");
    expect(files).toContain("package/README.md");
    expect(files.filter((file) => /test|golden|examples/.test(file))).toEqual([]);
  });

  it("works in plain Node with onnxruntime-node", () => {
    const project = join(folder, "node");
    cpSync(resolve(PACKAGE, "examples/node"), project, { recursive: true });
    rmSync(join(project, "package.json"));
    writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }');
    npm(project, "install", "--ignore-scripts", "--legacy-peer-deps", tarball, `onnxruntime-node@${VERSIONS.node}`, "jpeg-js@0.4.4");
    const run = spawnSync(
      "node",
      ["segment.mjs", join(ASSETS, "sample.jpg"), ...apple.point.map(String), "mask.png"],
      { cwd: project, encoding: "utf8" },
    );
    expect(run.stderr).toBe("");
    const answer = JSON.parse(run.stdout) as { score: number; rle: Rle };
    expect(iou(rleDecode(answer.rle), rleDecode(apple.rle))).toBeGreaterThan(0.7);
    expect(readFileSync(join(project, "mask.png")).subarray(1, 4).toString()).toBe("PNG");
  });

  it.skipIf(!existsSync(CHROMIUM))("works in an empty Vite project", async () => {
    const project = join(folder, "vite");
    mkdirSync(join(project, "public"), { recursive: true });
    cpSync(join(ASSETS, "sample.jpg"), join(project, "public/photo.jpg"));
    writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }');
    writeFileSync(join(project, "index.html"), '<!doctype html><script type="module" src="/main.ts"></script>');
    writeFileSync(
      join(project, "main.ts"),
      `import { createSegmenter } from "picosam2";
       const segmenter = await createSegmenter();
       await segmenter.setImage(await (await fetch("photo.jpg")).blob());
       const mask = await segmenter.predict({ points: [[${apple.point.join(", ")}]] });
       document.body.dataset.rle = JSON.stringify(mask?.rle() ?? null);`,
    );
    npm(project, "install", tarball, `onnxruntime-web@${VERSIONS.web}`, `vite@${VERSIONS.vite}`);
    execFileSync("npx", ["vite", "build", "--target", "es2022"], { cwd: project, stdio: "pipe" });
    const rle = await inBrowser(join(project, "dist"), async (page) => {
      await page.waitForSelector("body[data-rle]", { state: "attached", timeout: 120_000 });
      return JSON.parse((await page.getAttribute("body", "data-rle"))!) as Rle;
    });
    expect(iou(rleDecode(rle), rleDecode(apple.rle))).toBeGreaterThan(0.7);
  });

  it.skipIf(!existsSync(CHROMIUM))("works in the React example", async () => {
    const project = join(folder, "react");
    cpSync(resolve(PACKAGE, "examples/react"), project, { recursive: true });
    mkdirSync(join(project, "public"));
    cpSync(join(ASSETS, "sample.jpg"), join(project, "public/photo.jpg"));
    npm(project, "install", tarball); // in place of the version that its package.json asks for
    execFileSync("npx", ["vite", "build"], { cwd: project, stdio: "pipe" });
    await inBrowser(join(project, "dist"), async (page) => {
      const view = page.locator("svg");
      await view.waitFor({ timeout: 120_000 });
      const { width, height } = (await view.boundingBox())!;
      const [x, y] = apple.point;
      await view.click({ position: { x: (x / 640) * width, y: (y / 480) * height } });
      const path = page.locator("svg path");
      await path.waitFor({ state: "attached", timeout: 60_000 });
      const covers = await path.evaluate(
        (node, [px, py]) => (node as SVGPathElement).isPointInFill(new DOMPoint(px, py)), apple.point,
      );
      expect(covers).toBe(true);
    });
  });

  it.skipIf(!existsSync(CHROMIUM))("works in one line of HTML from a file host", async () => {
    const project = join(folder, "html");
    cpSync(resolve(PACKAGE, "examples/html"), project, { recursive: true });
    execFileSync("tar", ["xzf", tarball, "-C", project, "--strip-components=1", "package/standalone"]);
    cpSync(join(project, "standalone"), join(project, "picosam2"), { recursive: true });
    cpSync(join(ASSETS, "sample.jpg"), join(project, "photo.jpg"));
    await inBrowser(project, async (page) => {
      const canvas = page.locator("pico-segment canvas");
      await page.waitForFunction(() => document.querySelector("pico-segment")!.clientWidth > 200);
      await canvas.click({ position: { x: apple.point[0], y: apple.point[1] } });
      await page.waitForFunction(() => document.getElementById("result")!.textContent!.includes("%"), undefined, {
        timeout: 120_000,
      });
      const rle = await page.evaluate(() => {
        const element = document.querySelector("pico-segment") as unknown as { value: { rle(): unknown } };
        return element.value.rle();
      });
      expect(iou(rleDecode(rle as Rle), rleDecode(apple.rle))).toBeGreaterThan(0.7);
      // By keyboard too: Escape clears, Enter picks what is in the middle.
      await canvas.focus();
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => document.getElementById("result")!.textContent === "Nothing there.");
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.getElementById("result")!.textContent!.includes("%"), undefined, {
        timeout: 60_000,
      });
    });
  });
});
