/** The library in browsers. */

export * from "./custom.ts";
export { createSegmenter, type CreateOptions } from "./defaults.ts";
