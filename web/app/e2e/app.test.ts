/** The page as an app: its first sight, installed, shared from, of a new version, on any host. */

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { iou, rleDecode } from "picosam2/custom";
import { masked, missing, openSample, plainHost, SITE } from "./harness";
import { known, Pages } from "./setup";

const why = missing();

describe.skipIf(why !== null)(`an app${why ? ` (skipped: ${why})` : ""}`, () => {
  const pages = new Pages();

  it("shows the sample masked under the pointer at once, and begins with a click on it", async () => {
    const page = await pages.open();
    const canvas = page.locator(".welcome canvas");
    const drawn = (): Promise<string> => canvas.evaluate((view) => (view as HTMLCanvasElement).toDataURL());
    await page.waitForFunction(() => {
      const view = document.querySelector<HTMLCanvasElement>(".welcome canvas")!;
      return view.getContext("2d")!.getImageData(320, 240, 1, 1).data[3] === 255;
    });
    const first = await drawn();
    const { width, height } = (await canvas.boundingBox())!;
    const at = (name: string): { x: number; y: number } => {
      const [x, y] = known(name).point;
      return { x: (x / 640) * width, y: (y / 480) * height };
    };
    await canvas.hover({ position: at("mug") });
    const mug = await drawn();
    expect(mug).not.toBe(first);
    await canvas.hover({ position: at("blue book") });
    expect(await drawn()).not.toBe(mug);
    await page.mouse.move(2, 2);
    await expect.poll(drawn).toBe(first); // an object is masked while nothing is pointed at
    await canvas.click({ position: at("mug") });
    await masked(page, 1);
    const { data } = await pages.mask();
    const [x, y] = known("mug").point.map(Math.floor) as [number, number];
    expect(data[y * 640 + x]).toBe(1);
  });

  it("can be installed where the browser offers it", async () => {
    const page = await pages.open();
    const manifest = JSON.parse(readFileSync(join(SITE, "manifest.webmanifest"), "utf8")) as { icons: { src: string }[] };
    for (const { src } of manifest.icons) expect(statSync(join(SITE, src)).size).toBeGreaterThan(0);
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    const install = page.locator("#install");
    await page.keyboard.press("?");
    expect(await install.isVisible()).toBe(false);
    await page.evaluate(() => {
      const prompt = (): Promise<void> => {
        document.body.dataset["prompted"] = "yes";
        return Promise.resolve();
      };
      dispatchEvent(Object.assign(new Event("beforeinstallprompt", { cancelable: true }), { prompt }));
    });
    await install.click();
    expect(await page.getAttribute("body", "data-prompted")).toBe("yes");
    expect(await install.isVisible()).toBe(false);
  });

  it("shares the cut-out where the system offers it", async () => {
    const page = await pages.open({}, (fresh) =>
      fresh.addInitScript(() => {
        navigator.canShare = () => true;
        navigator.share = (data) => {
          const [file] = data!.files!;
          document.body.dataset["shared"] = `${file!.name} ${file!.type}`;
          return Promise.resolve();
        };
      }),
    );
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await page.click("[data-save=share]");
    await page.waitForSelector("body[data-shared='sample-cutout.png image/png']", { timeout: 60_000 });
  });

  it("says that there is a new version, and changes over to it when it is asked to", async () => {
    const page = await pages.open();
    let version = "";
    const host = await plainHost(undefined, (path, body) =>
      path.endsWith("sw.js") && version ? Buffer.from(body.toString().replace(/[0-9a-f]{16}/g, version)) : body,
    );
    const kept = (): Promise<string[]> => page.evaluate(() => caches.keys());
    try {
      await page.goto(host.url);
      await page.waitForFunction(() => navigator.serviceWorker.controller !== null, undefined, { timeout: 60_000 });
      const before = await kept();
      version = "0123456789abcdef";
      await page.reload();
      await pages.toasted("new version");
      expect(await kept()).toEqual(expect.arrayContaining(before)); // nothing has changed yet
      await page.click("#toast-action");
      await expect.poll(kept, { timeout: 60_000 }).toEqual([`picosam2-${version}`]);
      await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    } finally {
      await page.goto("about:blank");
      await host.stop();
    }
  });

  it("runs a model of other operators on ONNX Runtime", async () => {
    const page = await pages.open();
    const fetched: string[] = [];
    page.on("request", (request) => fetched.push(new URL(request.url()).pathname));
    await page.goto(`${pages.served.url.replace(/\?.*$/, "")}?model=default-int8.onnx`);
    await openSample(page);
    expect(fetched.some((path) => /ort-wasm-simd-threaded.*\.wasm$/.test(path))).toBe(true);
    expect(await page.textContent("#model")).toMatch(/^default-int8 · /);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    expect(iou(await pages.mask(), rleDecode(known("apple").rle))).toBeGreaterThan(0.7);
    expect(pages.complaints).toEqual([]);
  });

  it("has no file that a host may refuse for its size", () => {
    const files = readdirSync(SITE, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files.length).toBeGreaterThan(8);
    for (const { parentPath, name } of files) {
      expect(statSync(join(parentPath, name)).size, name).toBeLessThan(25 * 2 ** 20);
    }
  });
});
