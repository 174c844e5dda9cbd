/** The library in browsers. */

export { type BrowserOptions, createSegmenter } from "./browser.ts";
export * from "./core.ts";
export { drawnPixels, type DrawOptions, ImageError, pixelsOf } from "./image.ts";
