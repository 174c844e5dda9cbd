/** What a page and the worker that runs the model send each other. */

import type { Box, Prompt, RgbaImage, Window } from "./geometry.ts";
import type { Mask } from "./masks.ts";

/** An outline (x, y in turn, in the image's pixels, several contours) and its score. */
export interface Shape {
  readonly contours: readonly Float64Array[];
  readonly score: number;
}

/** One of the windows tried for a click, with the mask it gives. */
export interface Scale extends Shape {
  readonly window: Window;
}

/** An answer in full: its mask and the opacity of its cut-out, both cut to the mask's box. */
export interface Answer extends Shape {
  readonly mask: Mask;
  readonly alpha: Mask;
  /**
   * The windows of a single click, smallest first, and which of them this is; empty for other prompts, and
   * where not all of them were looked through.
   */
  readonly scales: readonly Scale[];
  readonly scale: number;
  /** Milliseconds this answer took, and whether an earlier preview had done the work. */
  readonly ms: number;
  readonly reused: boolean;
}

export interface Preview extends Shape {
  readonly ms: number;
}

/** A camera frame's answer; `found` is false while the object is lost. */
export interface Tracked extends Preview {
  readonly found: boolean;
  readonly x: number;
  readonly y: number;
}

/** An object that nobody pointed at. Its mask is what `box` as a prompt gives. */
export interface FoundObject extends Shape {
  readonly box: Box;
  /** Pixels on the object, about. */
  readonly area: number;
}

/** How far the search for all objects is. */
export interface Searched {
  /** The share of the work that is done, 0..1. */
  readonly share: number;
  /** The objects, once all is done. */
  readonly objects: readonly FoundObject[] | null;
}

/** A prompt with the mask it is to refine. */
export interface Question {
  readonly prompt: Prompt;
  readonly mask: Mask | null;
  /** Overrules the scorer for a single click: a window, counted from the smallest. */
  readonly scale: number | null;
}

export interface LoadRequest {
  /** The model file: its address or its bytes. */
  readonly model: string | Uint8Array;
  readonly name: string;
  /** ONNX Runtime's glue and WebAssembly; by default where its package has them. */
  readonly wasm: { readonly mjs?: string; readonly wasm?: string };
  readonly threads: number;
  /** Sizes for the progress, [as they travel, decompressed], where they are known. */
  readonly modelBytes: readonly [number, number] | null;
  readonly wasmBytes: readonly [number, number] | null;
}

export interface Loaded {
  readonly name: string;
  readonly bytes: number;
  readonly threads: number;
  /** Whether the weights take guidance: a mask to refine, and clicks on and off it. */
  readonly guidance: boolean;
}

/** Requests by name: what is sent, and what comes back. */
export interface Calls {
  load: { request: LoadRequest; answer: Loaded };
  /** Milliseconds of a click's crops. */
  measure: { request: null; answer: number };
  /** `image` may be a reduced copy of an image of `width` x `height`. */
  setImage: { request: { image: RgbaImage; width: number; height: number }; answer: null };
  preview: { request: Question & { whole: boolean }; answer: Preview | null };
  /** With `scales` all windows of a click are looked through, for what the others give. */
  predict: { request: Question & { scales?: boolean }; answer: Answer | null };
  /** Fetches the finder, beside what else is asked. */
  loadFinder: { request: { finder: string | Uint8Array }; answer: null };
  /** The next piece of the search for all objects of the image; `begin` starts anew. */
  everything: { request: { finder: string | Uint8Array; begin: boolean }; answer: Searched };
  track: {
    request: { image: RgbaImage; x: number; y: number; restart: boolean; fixed: boolean };
    answer: Tracked;
  };
}

export type Call = keyof Calls;

/** Whether a request is answered beside the others, not after those that came before it: it waits for a connection. */
export function isBeside(call: Call): boolean {
  return call === "loadFinder";
}

export type Request = {
  [K in Call]: { readonly id: number; readonly call: K; readonly value: Calls[K]["request"] };
}[Call];

/** What comes unasked. */
export type Notice =
  | { readonly notice: "progress"; readonly loaded: number; readonly total: number }
  | { readonly notice: "gpu" };

export type Response =
  | { readonly id: number; readonly answer: Calls[Call]["answer"] }
  | { readonly id: number; readonly error: string; readonly kind: string }
  | Notice;
