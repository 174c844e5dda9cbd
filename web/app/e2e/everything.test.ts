/** Everything mode: all objects as outlines, chosen by click or by keyboard. */

import { describe, expect, it } from "vitest";
import { iou, rleDecode, type Rle } from "picosam2/custom";
import { answered, masked, missing, openSample, python, SITE, screen } from "./harness";
import { known, Pages } from "./setup";
import { violations } from "./violations";

const why = missing();

/** Python's masks of all objects of the sample, by the models that the page was built with. */
const PYTHON_EVERYTHING = `
import json, sys
from pathlib import Path
from picosam2.images import load_image
from picosam2.masks import rle_encode
from picosam2.predictor import Predictor
from picosam2.tasks.everything import Everything, everything
site = Path(json.loads(sys.argv[1]))
model = site / "model"
settings = Everything(finder=str(model / "finder.onnx"))
found = everything(load_image(site / "sample.jpg"), Predictor(model / "default.onnx"), settings)
print(json.dumps([rle_encode(one.mask) for one in found]))
`;

describe.skipIf(why !== null)(`everything${why ? ` (skipped: ${why})` : ""}`, () => {
  const pages = new Pages();
  const options = (): Promise<number> => pages.page.locator("#found-list [role=option]").count();

  /** Waits for the outlines. The search is a few seconds of work, which a busy machine has not at once. */
  const shown = (): Promise<unknown> =>
    pages.page.waitForFunction(
      () => document.querySelector("#toast p")!.textContent!.includes("objects were found"), undefined, { timeout: 240_000 },
    );

  it("fetches the finder only when it is asked for, and shows what Python finds, to be taken by a click", async () => {
    const page = await pages.open();
    const fetched: string[] = [];
    page.on("request", (request) => fetched.push(new URL(request.url()).pathname));
    const finders = (): number => fetched.filter((path) => path.includes("finder.onnx")).length;
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await page.keyboard.press("Control+z");
    expect(fetched.some((path) => path.includes("finder"))).toBe(false);
    await page.click("[data-action=everything]");
    await shown();
    expect(finders()).toBe(1);
    expect(await page.getAttribute("[data-action=everything]", "aria-pressed")).toBe("true");
    const found = python<Rle[]>(PYTHON_EVERYTHING, SITE).map(rleDecode);
    const before = await options();
    expect(Math.abs(before - found.length)).toBeLessThanOrEqual(Math.max(2, 0.25 * found.length));

    // What is clicked becomes an object, and leaves the list.
    const mug = known("mug");
    await page.mouse.move(...(await screen(page, ...mug.point)));
    await pages.click(...mug.point);
    await masked(page, 1);
    await expect.poll(options).toBeLessThan(before);
    const taken = await pages.mask();
    expect(Math.max(...found.map((mask) => iou(taken, mask)))).toBeGreaterThan(0.9);
    // Corrections go on as usual.
    await page.click("[data-tool=remove]");
    await answered(page, () => pages.click(...mug.point));
    const { data } = await pages.mask();
    expect(data[Math.floor(mug.point[1]) * 640 + Math.floor(mug.point[0])]).toBe(0);
    // Undone, it can be had again.
    await page.keyboard.press("v");
    await page.keyboard.press("Control+z");
    await page.keyboard.press("Control+z");
    await expect.poll(options).toBe(before);
    // Once more at once, without another search.
    await page.keyboard.press("Escape");
    expect(await options()).toBe(0);
    await page.keyboard.press("f");
    await expect.poll(options).toBe(before);
    expect(finders()).toBe(1);
    expect(pages.complaints).toEqual([]);
  }, 600_000);

  it("is used by keyboard alone, and left by Escape", async () => {
    const page = await pages.open();
    await openSample(page);
    await page.focus("#view");
    await page.keyboard.press("f");
    await shown();
    expect(await violations(page)).toEqual([]);
    await page.focus("#found-list");
    const active = (): Promise<string> =>
      page.evaluate(() => {
        const id = document.activeElement!.getAttribute("aria-activedescendant")!;
        return document.getElementById(id)!.textContent!;
      });
    const first = await active();
    expect(first).toMatch(/^(Top|Bottom|Left|Right|Center).*, (less than )?\d+ % of the photo, quality \d+ %$/);
    await page.keyboard.press("ArrowDown");
    expect(await page.getAttribute("#found-list", "aria-activedescendant")).toBe("found-1");
    await page.keyboard.press("End");
    await page.keyboard.press("Home");
    expect(await active()).toBe(first);
    const before = await options();
    await page.keyboard.press("Enter");
    await masked(page, 1);
    await expect.poll(options).toBeLessThan(before);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("found-list");
    await page.keyboard.press("Escape");
    await pages.said("The outlines are gone");
    expect(await page.isVisible("#found")).toBe(false);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("view");
    expect(await page.getAttribute("[data-action=everything]", "aria-pressed")).toBe("false");
    expect(await page.locator(".object.selected").count()).toBe(1); // Escape has not let go of it
  }, 600_000);

  it("ends a search by Escape, and by another photo", async () => {
    const page = await pages.open();
    await openSample(page);
    await page.keyboard.press("f");
    await pages.said("Looking for all objects");
    await page.keyboard.press("Escape");
    await pages.said("The search was ended");
    // A click is answered at once.
    await pages.click(...known("apple").point);
    await masked(page, 1);
    expect(await options()).toBe(0);
    await page.keyboard.press("f");
    await pages.said("Looking for all objects");
    await page.click(".strip .close");
    await page.waitForSelector("body[data-state=empty]");
    expect(pages.complaints).toEqual([]);
  });

  it("shows outlines on a phone", async () => {
    const page = await pages.open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
    await openSample(page);
    await page.tap("[data-action=everything]");
    await shown();
    expect(await violations(page)).toEqual([]);
    await page.touchscreen.tap(...(await screen(page, ...known("mug").point)));
    await masked(page, 1);
  }, 600_000);
});
