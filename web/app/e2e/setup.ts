/** One server and one browser for a file of tests, a fresh page for each test. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, BrowserContext, BrowserContextOptions, Download, Page } from "playwright-core";
import { PNG } from "pngjs";
import { afterAll, afterEach, beforeAll } from "vitest";
import type { Mask, Rle } from "picosam2/custom";
import { demoServer, launch, ROOT, screen, type Served } from "./harness";

interface Sample {
  objects: { name: string; point: [number, number]; box: [number, number, number, number]; rle: Rle }[];
}

const sample = JSON.parse(readFileSync(join(ROOT, "src/picosam2/assets/sample.json"), "utf8")) as Sample;

export const known = (name: string): Sample["objects"][number] =>
  sample.objects.find((object) => object.name === name)!;

export class Pages {
  served!: Served;
  browser!: Browser;
  context!: BrowserContext;
  page!: Page;
  complaints: string[] = [];

  constructor() {
    beforeAll(async () => {
      this.served = await demoServer();
      this.browser = await launch("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream");
    });
    afterEach(async () => {
      await this.context?.close();
    });
    afterAll(async () => {
      await this.browser?.close();
      await this.served?.stop();
    });
  }

  async open(options: BrowserContextOptions = {}, prepare: (page: Page) => Promise<unknown> = async () => undefined): Promise<Page> {
    this.context = await this.browser.newContext({
      viewport: { width: 1280, height: 800 },
      permissions: ["clipboard-read", "clipboard-write", "camera"],
      acceptDownloads: true,
      ...options,
    });
    this.page = await this.context.newPage();
    this.complaints = [];
    this.page.on("pageerror", (error) => this.complaints.push(error.message));
    this.page.on("console", (message) => {
      if (message.type() === "error") this.complaints.push(message.text());
    });
    await prepare(this.page);
    await this.page.goto(this.served.url);
    return this.page;
  }

  async click(x: number, y: number, options?: Parameters<Page["mouse"]["click"]>[2]): Promise<void> {
    const [sx, sy] = await screen(this.page, x, y);
    await this.page.mouse.click(sx, sy, options);
  }

  async drag(x0: number, y0: number, x1: number, y1: number): Promise<void> {
    const { page } = this;
    await page.mouse.move(...(await screen(page, x0, y0)));
    await page.mouse.down();
    await page.mouse.move(...(await screen(page, (x0 + x1) / 2, (y0 + y1) / 2)));
    await page.mouse.move(...(await screen(page, x1, y1)));
    await page.mouse.up();
  }

  async save(what: string): Promise<Download> {
    const [download] = await Promise.all([
      this.page.waitForEvent("download", { timeout: 90_000 }), this.page.click(`[data-save=${what}]`),
    ]);
    return download;
  }

  async mask(): Promise<Mask> {
    const png = await this.png("mask");
    const data = Uint8Array.from({ length: png.width * png.height }, (_, i) => (png.data[i * 4]! > 127 ? 1 : 0));
    return { x: 0, y: 0, width: png.width, height: png.height, data };
  }

  async png(what: string): Promise<PNG> {
    return PNG.sync.read(readFileSync(await (await this.save(what)).path()));
  }

  /** Gives files to the page as if they had been chosen. */
  async choose(...files: { name: string; mimeType: string; buffer: Buffer }[]): Promise<void> {
    await this.page.setInputFiles("#file", files);
  }

  said(text: string): Promise<unknown> {
    return this.page.waitForFunction(
      (part) => document.getElementById("said")!.textContent!.includes(part), text, { timeout: 60_000 },
    );
  }

  toasted(text: string): Promise<unknown> {
    return this.page.waitForFunction(
      (part) => document.querySelector("#toast p")!.textContent!.includes(part), text, { timeout: 60_000 },
    );
  }
}

/** A PNG of one color with a disk of another, in the middle. */
export function disk(width: number, height: number, ground: readonly number[], color: readonly number[]): Buffer {
  const png = new PNG({ width, height });
  const radius = Math.min(width, height) / 4;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i += 4) {
      const on = (x - width / 2) ** 2 + (y - height / 2) ** 2 < radius ** 2;
      png.data.set(on ? color : ground, i);
    }
  }
  return PNG.sync.write(png, { deflateLevel: 1 });
}
