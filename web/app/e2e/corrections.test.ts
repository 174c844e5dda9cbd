/** Masks made right by hand: brush, eraser, edges, loaded masks; and what is saved of them. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { iou, rleDecode, type Rle } from "picosam2/custom";
import { masked, missing, openSample, python, screen } from "./harness";
import { disk, known, Pages } from "./setup";

const why = missing();

describe.skipIf(why !== null)(`corrections${why ? ` (skipped: ${why})` : ""}`, () => {
  const pages = new Pages();

  const score = (text: string): Promise<unknown> =>
    pages.page.waitForFunction((t) => document.querySelector(".object.selected .score")?.textContent === t, text);

  it("paints, rubs off, grows and shrinks, all to be undone", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    const first = await pages.mask();
    await page.click("[data-tool=brush]");
    await pages.drag(60, 60, 160, 60);
    await score("drawn");
    const painted = await pages.mask();
    expect(painted.data[60 * 640 + 110]).toBe(1);
    expect(painted.data.reduce((n, v) => n + v, 0)).toBeGreaterThan(first.data.reduce((n, v) => n + v, 0) + 1500);
    await page.click("[data-tool=erase]");
    await pages.drag(60, 60, 160, 60);
    await page.waitForTimeout(300);
    expect(iou(await pages.mask(), first)).toBeGreaterThan(0.99);
    await page.click("[data-action=grow]");
    await page.waitForTimeout(300);
    const grown = await pages.mask();
    expect(iou(grown, first)).toBeLessThan(0.99);
    await page.click("[data-action=shrink]");
    await page.waitForTimeout(300);
    expect(iou(await pages.mask(), first)).toBeGreaterThan(0.98);
    for (let i = 0; i < 4; i++) await page.keyboard.press("Control+z");
    await masked(page, 1);
    expect(iou(await pages.mask(), first)).toBe(1);
    // A brush without an object begins one.
    await page.keyboard.press("Delete");
    await page.keyboard.press("p");
    await pages.drag(200, 100, 260, 100);
    await score("drawn");
    expect(await page.locator(".object").count()).toBe(1);
  });

  it("shows under the pointer what Add would do", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await page.keyboard.press("a");
    const drawn = (): Promise<string> =>
      page.evaluate(() => (document.getElementById("view") as HTMLCanvasElement).toDataURL());
    await page.mouse.move(640, 30);
    await page.waitForTimeout(400);
    const before = await drawn();
    await page.mouse.move(...(await screen(page, ...known("mug").point)));
    await expect.poll(drawn, { timeout: 60_000 }).not.toBe(before);
  });

  it("loads masks and refines them", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    const [png, coco] = [await (await pages.save("mask")).path(), await (await pages.save("coco")).path()];
    await page.keyboard.press("Delete");
    for (const [name, path, mimeType] of [["m.png", png, "image/png"], ["m.json", coco, "application/json"]] as const) {
      await page.setInputFiles("#mask-file", { name, mimeType, buffer: readFileSync(path) });
      await pages.toasted("One mask was loaded");
      await score("drawn");
      expect(iou(await pages.mask(), rleDecode(known("apple").rle))).toBeGreaterThan(0.7);
    }
    // A click on the mug with Add takes it into the mask.
    await page.click("[data-tool=add]");
    await pages.click(...known("mug").point);
    await page.waitForFunction(() => document.querySelector(".object.selected .score")?.textContent?.includes("%"));
    const both = await pages.mask();
    const [mx, my] = known("mug").point.map(Math.floor) as [number, number];
    expect(both.data[my * 640 + mx]).toBe(1);
    await page.setInputFiles("#mask-file", { name: "x.json", mimeType: "application/json", buffer: Buffer.from("{") });
    await pages.toasted("no JSON");
    await page.setInputFiles("#mask-file", { name: "x.png", mimeType: "image/png", buffer: Buffer.from("x") });
    await pages.toasted("not an image");
  });

  it("saves a ZIP, an index map, cropped cut-outs and backgrounds", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await pages.click(...known("mug").point);
    await masked(page, 2);
    const zipPath = await (await pages.save("zip")).path();
    const names = python<string[]>(
      "import sys,json,zipfile; z=zipfile.ZipFile(json.loads(sys.argv[1])); assert z.testzip() is None; print(json.dumps(z.namelist()))",
      zipPath,
    );
    expect(names).toEqual([
      "sample.json", "sample.svg", "sample-index.png", "sample-mask.png",
      "Object 1-mask.png", "Object 1-cutout.png", "Object 2-mask.png", "Object 2-cutout.png",
    ]);
    const index = await pages.png("index");
    const at = (name: string): number => {
      const [x, y] = known(name).point.map(Math.floor) as [number, number];
      return index.data[(y * 640 + x) * 4]!;
    };
    expect([at("apple"), at("mug")]).toEqual([1, 2]);
    await page.check("#crop");
    const mug = known("mug").box;
    const cropped = await pages.png("cutout");
    expect(Math.abs(cropped.width - (mug[2] - mug[0]))).toBeLessThan(30);
    await page.uncheck("#crop");
    await page.selectOption("#background", "color");
    await page.fill("#background-color", "#ff0000");
    const red = await pages.png("cutout");
    expect([...red.data.subarray(0, 4)]).toEqual([255, 0, 0, 255]);
    await page.selectOption("#background", "blur");
    const blurred = await pages.png("cutout");
    expect(blurred.data[3]).toBe(255);
    expect([...blurred.data.subarray(0, 3)]).not.toEqual([255, 0, 0]);
    const other = { name: "other.png", mimeType: "image/png", buffer: disk(64, 64, [0, 200, 0, 255], [0, 200, 0, 255]) };
    const [chooser] = await Promise.all([
      page.waitForEvent("filechooser"), page.selectOption("#background", "image"),
    ]);
    await chooser.setFiles(other);
    const replaced = await pages.png("cutout");
    expect([replaced.width, replaced.height]).toEqual([640, 480]);
    expect([...replaced.data.subarray(0, 4)]).toEqual([0, 200, 0, 255]);
    const [mx, my] = known("mug").point.map(Math.floor) as [number, number];
    const inside = (my * 640 + mx) * 4;
    expect([...replaced.data.subarray(inside, inside + 4)]).toEqual([...red.data.subarray(inside, inside + 4)]);
    await page.setInputFiles("#background-file", { ...other, buffer: Buffer.from("broken") });
    await page.click("[data-save=cutout]");
    await pages.toasted("not an image");
  });

  it("chooses a part or a group instead, and keeps names", async () => {
    const page = await pages.open();
    await openSample(page);
    await pages.click(...known("red book").point);
    await masked(page, 1);
    await page.locator(".object.selected .scale").nth(1).waitFor(); // after the mask
    const labels = await page.locator(".object.selected .scale span").allTextContents();
    expect(labels).toContain("Object");
    expect(new Set([...labels, "Part", "Object", "Group"]).size).toBe(3);
    const before = await pages.mask();
    const other = page.locator(".object.selected .scale[aria-pressed=false]").first();
    await other.click();
    await page.waitForTimeout(400);
    await masked(page, 1);
    expect(iou(await pages.mask(), before)).toBeLessThan(1);
    const svg = readFileSync(await (await pages.save("svg")).path(), "utf8");
    expect(svg).toMatch(/ d="M[\d. ]+Q/);
    const coco = JSON.parse(readFileSync(await (await pages.save("coco")).path(), "utf8")) as {
      annotations: { segmentation: Rle }[];
    };
    expect(coco.annotations.length).toBe(1);
  });
});
