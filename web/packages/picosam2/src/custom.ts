/** The library without its own weights and worker, for pages that bring theirs. */

export { type BrowserOptions, openSegmenter } from "./browser.ts";
export * from "./core.ts";
export { drawnPixels, type DrawOptions, ImageError, pixelsOf } from "./image.ts";
