/** Nothing is lost, and nothing is left on: photos, work, tracks, sizes, files of others. */

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { masked, missing, openSample, plainHost, screen, settled, SITE } from "./harness";
import { disk, known, Pages } from "./setup";

const why = missing();
const png = (name: string, buffer: Buffer) => ({ name, mimeType: "image/png", buffer });
const RED = [200, 40, 30, 255];
const GRAY = [128, 128, 128, 255];

describe.skipIf(why !== null)(`nothing lost${why ? ` (skipped: ${why})` : ""}`, () => {
  const pages = new Pages();

  it("ends every track, however often the camera was pressed", async () => {
    const page = await pages.open({}, async (fresh) => {
      await fresh.addInitScript(() => {
        const tracks: MediaStreamTrack[] = [];
        Object.assign(window, { tracks });
        const media = navigator.mediaDevices;
        const get = media.getUserMedia.bind(media);
        media.getUserMedia = async (wanted) => {
          const stream = await get(wanted);
          tracks.push(...stream.getTracks());
          await new Promise((done) => setTimeout(done, 300)); // a slow permission prompt
          return stream;
        };
      });
    });
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    const states = (): Promise<string[]> =>
      page.evaluate(() => (window as unknown as { tracks: MediaStreamTrack[] }).tracks.map((t) => t.readyState));
    await page.evaluate(() => {
      const button = document.querySelector<HTMLElement>(".welcome [data-action=camera]")!;
      button.click();
      button.click();
      button.click();
    });
    await page.waitForSelector("body[data-state=live]");
    await expect.poll(async () => (await states()).filter((state) => state === "live").length).toBe(1);
    await page.click("[data-action=stop-camera]");
    await expect.poll(states).toEqual(["ended"]); // only the last press asked for one
    // Pressed, and given up (by opening a photo) before the stream is there.
    await page.click(".bar [data-action=camera]");
    await pages.choose(png("a.png", disk(64, 48, GRAY, RED)));
    await settled(page);
    await page.waitForTimeout(600);
    expect([...new Set(await states())]).toEqual(["ended"]);
    expect(await page.getAttribute("body", "data-state")).toBe("photo");
  });

  it("keeps several photos open, and undo crosses them", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await pages.choose(png("second.png", disk(200, 150, GRAY, RED)));
    await pages.said("second.png");
    await settled(page);
    expect(await page.locator("#strip li").count()).toBe(2);
    expect(await page.locator(".object").count()).toBe(0);
    await page.keyboard.press("Control+z"); // the opening
    await pages.said("Undone: opening second.png");
    await masked(page, 1);
    expect(await page.locator("#strip li").count()).toBe(1);
    await page.keyboard.press("Control+Shift+z");
    await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 2);
    await page.click('[aria-label="Show sample.jpg"]');
    await masked(page, 1);
    await page.click('[aria-label="Close sample.jpg"]');
    await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 1);
    await page.keyboard.press("Control+z");
    await masked(page, 1);
  });

  it("has the work of last time again, and asks before it is left unsaved", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await page.waitForSelector("body[data-kept='1']", { timeout: 30_000 });
    await page.waitForTimeout(600);
    const asked: string[] = [];
    page.on("dialog", (dialog) => {
      asked.push(dialog.type());
      void dialog.accept();
    });
    await page.reload();
    expect(asked).toEqual(["beforeunload"]);
    await masked(page, 1);
    await pages.save("coco"); // what is restored can be saved like before
    await page.click('[aria-label="Delete Object 1"]');
    await page.click('[aria-label="Close sample.jpg"]');
    await page.waitForSelector("body[data-kept='0']", { timeout: 30_000 });
    await page.reload();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    await page.waitForTimeout(500);
    expect(await page.getAttribute("body", "data-state")).toBe("empty");
    expect(asked).toEqual(["beforeunload"]); // nothing was unsaved this time
  });

  it("keeps the work of last time when a photo is opened before it is here again", async () => {
    const page = await pages.open({}, (fresh) =>
      fresh.addInitScript(() => {
        // A slow disk: the store opens late.
        const { request } = LockManager.prototype;
        LockManager.prototype.request = async function (this: LockManager, ...args: unknown[]) {
          await new Promise((done) => setTimeout(done, 1500));
          return Reflect.apply(request, this, args);
        } as typeof request;
      }),
    );
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await pages.save("coco");
    await page.waitForSelector("body[data-kept='1']", { timeout: 30_000 });
    await page.waitForTimeout(600); // the object is kept a moment after the photo
    await page.reload();
    await pages.choose(png("second.png", disk(200, 150, GRAY, RED)));
    await page.waitForSelector("body[data-kept='2']", { timeout: 30_000 });
    expect(await page.locator("#strip li").count()).toBe(2);
    await page.click('[aria-label="Show sample.jpg"]');
    await masked(page, 1);
  });

  it("saves all objects, also those whose masks are still on their way", async () => {
    const page = await pages.open();
    await openSample(page);
    for (const [i, name] of ["apple", "mug"].entries()) {
      await pages.click(...known(name).point);
      await masked(page, i + 1);
    }
    await pages.save("zip");
    await page.waitForSelector("body[data-kept='1']", { timeout: 30_000 });
    await page.waitForTimeout(600);
    await page.reload();
    await page.waitForSelector("#save:not([hidden])");
    await page.check('input[name="which"][value="all"]', { force: true });
    const coco = JSON.parse(readFileSync(await (await pages.save("coco")).path(), "utf8")) as { annotations: unknown[] };
    expect(coco.annotations.length).toBe(2);
  });

  it("asks before it is left while another object, or another photo, is in no file", async () => {
    const page = await pages.open();
    const asks = (): Promise<boolean> => page.evaluate(() => !dispatchEvent(new Event("beforeunload", { cancelable: true })));
    await openSample(page);
    expect(await asks()).toBe(false);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await pages.click(...known("mug").point);
    await masked(page, 2);
    await pages.save("mask"); // of the selected one only
    expect(await asks()).toBe(true);
    await pages.choose(png("second.png", disk(200, 150, GRAY, RED)));
    await pages.said("second.png");
    await settled(page);
    await pages.drag(50, 30, 150, 120);
    await masked(page, 1);
    await pages.save("mask");
    expect(await asks()).toBe(true);
    await page.click('[aria-label="Show sample.jpg"]');
    await masked(page, 2);
    await pages.save("zip");
    await expect.poll(asks).toBe(false);
  });

  it("leaves other pages of the host alone", async () => {
    const page = await pages.open();
    const files: Record<string, string> = { "/": "front page", "/app/other.html": "other page" };
    const server = createServer((request, response) => {
      const path = decodeURIComponent((request.url ?? "").split("?")[0]!);
      const own = path.startsWith("/app/") ? join(SITE, path === "/app/" ? "index.html" : path.slice(5)) : "";
      const type = /\.js$|\.mjs$/.test(path) ? "text/javascript" : /\.css$/.test(path) ? "text/css" : /\.wasm$/.test(path) ? "application/wasm" : /\.txt$/.test(path) ? "text/plain" : "text/html";
      try {
        const body = files[path] ?? readFileSync(own);
        response.writeHead(200, { "Content-Type": type }).end(body);
      } catch {
        response.writeHead(404, { "Content-Type": "text/html" }).end("nothing here");
      }
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const root = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      await page.goto(`${root}/app/`);
      await page.waitForFunction(() => navigator.serviceWorker.controller !== null, undefined, { timeout: 60_000 });
      const text = async (path: string): Promise<string> => {
        await page.goto(root + path);
        return (await page.textContent("body"))!.trim();
      };
      expect(await text("/app/other.html")).toBe("other page");
      expect(await text("/app/missing/page")).toBe("nothing here");
      expect(await text("/")).toBe("front page");
      expect(await text("/app/licences.txt")).toContain("MIT License");
      await page.goto(`${root}/app/?model=none.onnx`);
      expect(await page.title()).toContain("PicoSAM2");
    } finally {
      await page.goto("about:blank");
      server.closeAllConnections();
      server.close();
    }
  });

  it("exports photos above 24 megapixels in their own size", async () => {
    const page = await pages.open();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    await pages.choose(png("large.png", disk(6400, 4800, GRAY, RED)));
    await pages.toasted("6400 × 4800");
    await settled(page);
    await pages.drag(1800, 1100, 4600, 3700);
    await masked(page, 1);
    const coco = JSON.parse(readFileSync(await (await pages.save("coco")).path(), "utf8")) as {
      images: { width: number; height: number }[];
      annotations: { segmentation: { size: number[] }; bbox: number[] }[];
    };
    expect(coco.images[0]).toMatchObject({ width: 6400, height: 4800 });
    expect(coco.annotations[0]!.segmentation.size).toEqual([4800, 6400]);
    const [x, y, w, h] = coco.annotations[0]!.bbox as [number, number, number, number];
    for (const [got, expected] of [[x, 2000], [y, 1200], [x + w, 4400], [y + h, 3600]]) {
      expect(Math.abs(got! - expected!)).toBeLessThan(150);
    }
    await page.check("#crop");
    const cutout = await pages.png("cutout");
    expect(Math.abs(cutout.width - w)).toBeLessThan(40);
    const middle = (cutout.height >> 1) * cutout.width + (cutout.width >> 1);
    expect([...cutout.data.subarray(middle * 4, middle * 4 + 4)]).toEqual(RED);
  }, 300_000);

  it("takes a smaller copy where canvases stay blank, and says so where none works", async () => {
    const limit = async (megapixels: number): Promise<void> => {
      const page = await pages.open({}, (fresh) =>
        fresh.addInitScript((most) => {
          // A device whose canvases stay blank once a bitmap above a limit is drawn.
          const draw = CanvasRenderingContext2D.prototype.drawImage;
          CanvasRenderingContext2D.prototype.drawImage = function (this: CanvasRenderingContext2D, ...args: unknown[]) {
            const [source] = args as [{ width: number; height: number }];
            Reflect.apply(draw, this, args);
            if (source instanceof ImageBitmap && source.width * source.height > most) {
              this.setTransform(1, 0, 0, 1, 0, 0);
              this.clearRect(0, 0, 1e5, 1e5);
            }
          } as typeof draw;
        }, megapixels * 1e6),
      );
      await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
      await pages.choose(png("phone.png", disk(4000, 3000, GRAY, RED)));
    };
    await limit(7);
    await pages.toasted("4000 × 3000");
    await settled(pages.page);
    await pages.context.close();
    await limit(0.5);
    await pages.toasted("too large for this device");
  }, 300_000);

  it("shows the photo that was chosen last, whichever is read first", async () => {
    const page = await pages.open();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    await page.evaluate(async ([slow, quick]) => {
      const file = (name: string, data: readonly number[]): File =>
        new File([Uint8Array.from(data)], name, { type: "image/png" });
      const drop = (name: string, data: readonly number[]): void => {
        const transfer = new DataTransfer();
        transfer.items.add(file(name, data));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
      };
      drop("slow.png", slow!);
      drop("quick.png", quick!);
      await Promise.resolve();
    }, [[...disk(1500, 1100, GRAY, RED)], [...disk(40, 30, GRAY, RED)]]);
    await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 2);
    await settled(page);
    await page.waitForTimeout(500);
    expect(await page.getAttribute("#strip .current button", "title")).toBe("quick.png");
    expect(await page.locator("#strip .photo").evaluateAll((all) => all.map((button) => (button as HTMLElement).title))).toEqual([
      "slow.png", "quick.png",
    ]);
  });

  it.each(["chosen", "dropped"])("opens all files that are %s together", async (how) => {
    const page = await pages.open();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    const files = [
      png("1.png", disk(60, 40, GRAY, RED)), png("2.png", disk(60, 40, GRAY, RED)),
      png("3.png", Buffer.from("broken")), png("4.png", disk(60, 40, GRAY, RED)),
    ];
    if (how === "chosen") await pages.choose(...files);
    else {
      await page.evaluate((all) => {
        const transfer = new DataTransfer();
        for (const { name, data } of all) {
          transfer.items.add(new File([Uint8Array.from(data)], name, { type: "image/png" }));
        }
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
      }, files.map(({ name, buffer }) => ({ name, data: [...buffer] })));
    }
    await page.waitForFunction(() => document.querySelectorAll("#strip li").length === 3);
    await pages.toasted("not an image");
  });

  it("keeps the transparency of a PNG, on the stage and in the cut-out", async () => {
    const page = await pages.open();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    await pages.choose(png("clear.png", disk(400, 300, [0, 0, 0, 0], [200, 40, 30, 128])));
    await settled(page);
    const [x, y] = await screen(page, 10, 10);
    const shades = await page.evaluate(([px, py]) => {
      const view = document.getElementById("view") as HTMLCanvasElement;
      const box = view.getBoundingClientRect();
      const ratio = view.width / box.width;
      const { data } = view.getContext("2d")!.getImageData((px! - box.left) * ratio, (py! - box.top) * ratio, 40, 40);
      return [...new Set([...data].filter((_, i) => i % 4 === 0))].sort((a, b) => a - b);
    }, [x, y]);
    expect(shades).toContain(255);
    expect(shades).toContain(212); // the other squares of the checkerboard
    await pages.drag(110, 60, 290, 240);
    await masked(page, 1);
    const cutout = await pages.png("cutout");
    expect(Math.max(...cutout.data.filter((_, i) => i % 4 === 3))).toBe(128);
  });

  it("leaves the photo behind the camera alone", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await page.click(".bar [data-action=camera]");
    await page.waitForSelector("body[data-state=live]");
    await page.keyboard.press("Control+z");
    await page.keyboard.press("Delete");
    await page.keyboard.press("Escape");
    await page.waitForSelector("body[data-state=photo]");
    await masked(page, 1);
  });

  it("makes one object of a double click, selects what is clicked, gives up a box on Escape", async () => {
    const page = await pages.open();
    await openSample(page);
    await page.mouse.dblclick(...(await screen(page, ...known("apple").point)));
    await masked(page, 1);
    await pages.click(...known("mug").point);
    await masked(page, 2);
    expect(await page.inputValue(".object.selected input")).toBe("Object 2");
    await pages.click(known("apple").point[0] + 4, known("apple").point[1] + 4);
    await page.waitForFunction(() => document.querySelector<HTMLInputElement>(".object.selected input")?.value === "Object 1");
    await masked(page, 2);
    await page.mouse.move(...(await screen(page, 20, 20)));
    await page.mouse.down();
    await page.mouse.move(...(await screen(page, 90, 90)));
    await page.keyboard.press("Escape");
    await page.mouse.up();
    await page.waitForTimeout(500);
    await masked(page, 2);
  });

  it("does what is done while a mask is awaited as if it were there", async () => {
    const page = await pages.open();
    await openSample(page);
    await page.evaluate(() => {
      const post = Worker.prototype.postMessage;
      Worker.prototype.postMessage = function (this: Worker, message: { call: string }, ...rest: unknown[]) {
        const send = (): unknown => Reflect.apply(post, this, [message, ...rest]);
        if (message.call === "predict") setTimeout(send, 1500); // a slow device
        else send();
      } as typeof post;
    });
    const [x, y] = known("apple").point;
    const at = await screen(page, x, y);
    const off = await screen(page, x, y + 12);
    await page.mouse.click(...at);
    await page.keyboard.press("r");
    await page.mouse.click(...off); // off the object that is still on its way
    await page.keyboard.press("v");
    await page.mouse.click(...at); // it is there already: this chooses it
    await page.keyboard.press("Control+z"); // the click off it
    await pages.said("Undone");
    await masked(page, 1);
    expect(await page.getAttribute("body", "data-answers")).toBe("2");
    const whole = await pages.mask();
    const pixel = Math.floor(y + 12) * 640 + Math.floor(x);
    expect(whole.data[pixel]).toBe(1);
    await page.keyboard.press("Control+Shift+z");
    await masked(page, 1);
    expect((await pages.mask()).data[pixel]).toBe(0);
  });

  it("keeps no object where there is none, and gives it no score", async () => {
    const page = await pages.open();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    // A model whose logits are all negative finds nothing anywhere: the page is told so by its worker.
    await openSample(page);
    await page.evaluate(() => {
      const post = Worker.prototype.postMessage;
      Worker.prototype.postMessage = function (this: Worker, message: { id: number; call: string }, ...rest: unknown[]) {
        if (message.call === "predict") {
          setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data: { id: message.id, answer: null } })));
        } else Reflect.apply(post, this, [message, ...rest]);
      } as typeof post;
    });
    await pages.click(...known("apple").point);
    await pages.toasted("Nothing was found");
    expect(await page.locator(".object").count()).toBe(0);
    expect(await page.getAttribute("[data-action=undo]", "aria-disabled")).toBe("false"); // opening the photo
    await page.keyboard.press("Control+z");
    await page.waitForSelector("body[data-state=empty]");
  });

  it("can load the model again after a failure", async () => {
    const page = await pages.open();
    let broken = true;
    const host = await plainHost((path) => broken && path.endsWith("default.onnx"));
    try {
      await page.goto(host.url);
      await page.waitForSelector("#retry:not([hidden])", { timeout: 60_000 });
      await pages.toasted("is there a connection");
      broken = false;
      await page.click("#retry");
      await openSample(page);
      await pages.click(...known("apple").point);
      await masked(page, 1);
    } finally {
      await page.goto("about:blank");
      await host.stop();
    }
  });
});
