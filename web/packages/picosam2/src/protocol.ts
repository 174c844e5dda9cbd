/** What the page and the worker that runs the model say to each other. */

import type { RgbaImage, Prompt, Window } from "./geometry";
import type { Mask } from "./masks";

/** One object as it is shown: contours (x, y in turn, in the image's pixels) and its score. */
export interface Shape {
  readonly contours: readonly Float64Array[];
  readonly score: number;
}

/** One of the windows tried for a click: the mask there is what a thumbnail shows. */
export interface Scale {
  readonly window: Window;
  readonly score: number;
  readonly contours: readonly Float64Array[];
}

/** An object as it is kept: also its mask and the opacity of its cut-out, both cut to its box. */
export interface Segmentation extends Shape {
  readonly mask: Mask;
  readonly alpha: Mask;
  /** Windows tried for a single click, smallest first, and which of them this is; else empty. */
  readonly scales: readonly Scale[];
  readonly scale: number;
  readonly ms: number;
}

export interface Loaded {
  readonly name: string;
  readonly bytes: number;
  readonly threads: number;
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

/** Requests by name: what is sent, and what comes back. */
export interface Calls {
  load: { request: { modelUrl: string }; answer: Loaded };
  image: { request: { image: RgbaImage; reduced: RgbaImage | null }; answer: null };
  hover: { request: { x: number; y: number; whole: boolean }; answer: Preview | null };
  segment: { request: { prompt: Prompt; scale: number | null }; answer: Segmentation | null };
  track: {
    request: { image: RgbaImage; x: number; y: number; restart: boolean; fixed: boolean };
    answer: Tracked;
  };
}

export type Call = keyof Calls;

export type Request = {
  [K in Call]: { readonly id: number; readonly call: K; readonly value: Calls[K]["request"] };
}[Call];

export type Response =
  | { readonly id: number; readonly answer: Calls[Call]["answer"] }
  | { readonly id: number; readonly error: string }
  | { readonly progress: number }
  | { readonly gpu: true };
