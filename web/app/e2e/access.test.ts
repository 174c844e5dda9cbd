/** No violation that axe knows of, at four sizes and in both themes; and what axe cannot see. */

import { describe, expect, it } from "vitest";
import { masked, missing, openSample, screen } from "./harness";
import { known, Pages } from "./setup";
import { violations } from "./violations";

const why = missing();

const sizes = [[1280, 800], [820, 1180], [390, 844], [740, 360]] as const;
const looks = sizes.flatMap((size) => (["light", "dark"] as const).map((scheme) => [...size, scheme] as const));

describe.skipIf(why !== null)(`accessible${why ? ` (skipped: ${why})` : ""}`, () => {
  const pages = new Pages();

  it.each(looks)("at %i x %i, %s", async (width, height, colorScheme) => {
    // Colors that fade into each other have every contrast on the way.
    const page = await pages.open({ viewport: { width, height }, colorScheme, reducedMotion: "reduce" });
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    expect(await violations(page)).toEqual([]);
    await openSample(page);
    await pages.click(...known("apple").point);
    await masked(page, 1);
    expect(await violations(page)).toEqual([]);
    if (await page.isVisible("[data-handle]")) {
      await page.click("[data-handle]");
      expect(await violations(page)).toEqual([]);
      await page.click("[data-handle]");
    }
    await page.click("[data-tool=brush]");
    expect(await violations(page)).toEqual([]);
    await page.click("[data-action=help]");
    await page.waitForSelector("dialog[open]");
    expect(await violations(page)).toEqual([]);
  });

  it("moves through the tools by arrow keys, with one tab stop", async () => {
    const page = await pages.open();
    await openSample(page);
    await page.focus("[data-tool=pick]");
    const focused = (): Promise<string> =>
      page.evaluate(() => {
        const { tool, action } = (document.activeElement as HTMLElement).dataset;
        return tool ?? action ?? document.activeElement!.tagName;
      });
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    expect(await focused()).toBe("add");
    await page.keyboard.press("End");
    expect(await focused()).toBe("redo");
    await page.keyboard.press("ArrowRight");
    expect(await focused()).toBe("pick");
    expect(await page.locator("#tools button[tabindex='0']").count()).toBe(1);
  });

  it("keeps the focus, and announces what undo and delete did", async () => {
    const page = await pages.open();
    await page.waitForSelector("body[data-model=ready]", { timeout: 90_000 });
    await page.focus(".welcome [data-action=sample]");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.activeElement?.id === "view");
    await page.waitForSelector("body[data-photo]");
    await page.keyboard.press("Enter");
    await masked(page, 1);
    await page.keyboard.press("Delete");
    await pages.said("Object 1 deleted");
    await page.keyboard.press("Control+z");
    await pages.said("Undone: deleting Object 1");
    await masked(page, 1);
    await page.focus(".object [aria-label='Delete Object 1']");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("view");
    const focused = (): Promise<string> =>
      page.evaluate(() => (document.activeElement as HTMLElement).dataset["action"] ?? document.activeElement!.tagName);
    await page.focus("[data-action=undo]");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Enter");
    await pages.said("Undone: keeping Object 1");
    expect(await focused()).toBe("undo");
    await page.keyboard.press("Enter"); // the opening: the tools go with the photo
    await pages.said("Undone: opening sample.jpg");
    expect(await focused()).toBe("open");
  });

  it("zooms about the pointer of the keyboard, and moves the photo by keys", async () => {
    const page = await pages.open();
    await openSample(page);
    await page.focus("#view");
    for (let i = 0; i < 8; i++) await page.keyboard.press("ArrowLeft");
    const at = [320 - 8 * 16, 240] as const;
    const before = await screen(page, ...at);
    await page.keyboard.press("+");
    await page.keyboard.press("+");
    await page.waitForTimeout(200);
    const after = await screen(page, ...at);
    expect(Math.hypot(after[0] - before[0], after[1] - before[1])).toBeLessThan(2);
    await page.keyboard.press("h");
    await page.keyboard.press("ArrowRight");
    await page.waitForTimeout(200);
    expect((await screen(page, ...at))[0]).toBeCloseTo(after[0] - 60, 0);
  });

  it("shows what is chosen in forced colors", async () => {
    const page = await pages.open({ forcedColors: "active" });
    await openSample(page);
    const outline = (tool: string): Promise<string> =>
      page.evaluate((name) => getComputedStyle(document.querySelector(`[data-tool=${name}]`)!).outlineStyle, tool);
    expect(await outline("pick")).toBe("solid");
    expect(await outline("box")).toBe("none");
  });

  it.each([[390, 844], [320, 568]])("does not move the photo on a phone of %i x %i", async (width, height) => {
    const page = await pages.open({ viewport: { width, height }, hasTouch: true, isMobile: true });
    await openSample(page);
    const transform = (): Promise<string> =>
      page.evaluate(() => {
        const view = document.getElementById("view")!;
        return `${view.dataset["transform"]} ${view.getBoundingClientRect().top}`;
      });
    const before = await transform();
    await page.touchscreen.tap(...(await screen(page, ...known("mug").point)));
    await page.waitForTimeout(60);
    await page.touchscreen.tap(...(await screen(page, ...known("apple").point)));
    await masked(page, 2);
    expect(await transform()).toBe(before);
    // Saving is always within reach, and the sheet is dragged open and shut.
    await page.click("[data-action=go-save]");
    expect(await page.isVisible("[data-save=cutout]")).toBe(true);
    expect(await transform()).toBe(before);
    const drag = async (by: number): Promise<void> => {
      const box = (await page.locator("[data-handle]").boundingBox())!;
      await page.mouse.move(box.x + 60, box.y + 20);
      await page.mouse.down();
      await page.mouse.move(box.x + 60, box.y + 20 + by, { steps: 3 });
      await page.mouse.up();
    };
    await drag(80);
    expect(await page.isVisible("[data-save=cutout]")).toBe(false);
    await drag(-80);
    expect(await page.isVisible("[data-save=cutout]")).toBe(true);
  });

  it.each([[740, 360], [568, 320], [640, 400]])("leaves the photo room on a low screen of %i x %i", async (width, height) => {
    const page = await pages.open({ viewport: { width, height } });
    await openSample(page);
    const [scale] = (await page.getAttribute("#view", "data-transform"))!.split(" ").map(Number);
    expect(640 * scale!).toBeGreaterThan(300);
    expect(await page.getAttribute("#tools", "aria-orientation")).toBe("vertical");
    for (const tool of ["pick", "box", "add", "remove", "brush", "erase", "move"]) {
      const box = (await page.locator(`[data-tool=${tool}]`).boundingBox())!;
      expect(box.y + box.height).toBeLessThanOrEqual(height + 0.5);
    }
    // Saving is within reach.
    await pages.click(...known("apple").point);
    await masked(page, 1);
    await page.click("[data-action=go-save]");
    const save = page.locator("[data-save=cutout]");
    await expect.poll(async () => {
      const box = (await save.boundingBox())!;
      return box.y >= 0 && box.y + box.height <= height + 0.5;
    }, { timeout: 30_000 }).toBe(true);
  });
});
