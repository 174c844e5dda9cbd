/** What the user has made of a photo: named objects with prompts. Immutable, so that history is snapshots. */

import type { Box, Mask, Point, Prompt } from "picosam2/custom";
import { STRINGS } from "./strings";

/**
 * Okabe and Ito's colors ("Color Universal Design", 2008), which people with any color vision can
 * tell apart; in the order of `picosam2.results.PALETTE`.
 */
export const PALETTE = [
  "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00",
] as const;

export interface Item {
  readonly id: number;
  readonly name: string;
  readonly color: string;
  readonly prompt: Prompt;
  /** The window chosen by hand for the first click, from the smallest; null leaves it to the model. */
  readonly scale: number | null;
  /** A mask that was drawn or loaded; later points refine it. */
  readonly mask: Mask | null;
  /** How many of the prompt's points the mask has already taken in. */
  readonly settled: number;
  /** Pixels over which the edge of a cut-out fades; 0 leaves it as the model has it. */
  readonly feather: number;
}

export interface Doc {
  readonly items: readonly Item[];
  readonly selected: number | null;
  /** Never used twice, so that a new object does not take the name of a deleted one. */
  readonly nextId: number;
}

export const EMPTY: Doc = { items: [], selected: null, nextId: 1 };

export function selectedItem(doc: Doc): Item | null {
  return doc.items.find((item) => item.id === doc.selected) ?? null;
}

/** Adds an object and selects it. */
export function addItem(doc: Doc, prompt: Prompt, mask: Mask | null = null, name: string | null = null): Doc {
  const item: Item = {
    id: doc.nextId,
    name: name ?? STRINGS.object(doc.nextId),
    color: freeColor(doc),
    prompt,
    scale: null,
    mask,
    settled: prompt.points.length,
    feather: 0,
  };
  return { items: [...doc.items, item], selected: item.id, nextId: doc.nextId + 1 };
}

export function removeItem(doc: Doc, id: number): Doc {
  const at = doc.items.findIndex((item) => item.id === id);
  const items = doc.items.filter((item) => item.id !== id);
  const neighbor = items[Math.min(at, items.length - 1)]?.id ?? null;
  return { ...doc, items, selected: doc.selected === id ? neighbor : doc.selected };
}

export function changeItem(doc: Doc, id: number, change: Partial<Item>): Doc {
  return { ...doc, items: doc.items.map((item) => (item.id === id ? { ...item, ...change } : item)) };
}

export function select(doc: Doc, id: number | null): Doc {
  return { ...doc, selected: id };
}

/** Adds a point to an object: it corrects the answer so far, also one of a hand-chosen scale. */
export function addPoint(doc: Doc, id: number, point: Point): Doc {
  const item = doc.items.find((candidate) => candidate.id === id);
  if (!item) return doc;
  const prompt = { ...item.prompt, points: [...item.prompt.points, point] };
  return changeItem(doc, id, { prompt });
}

/** The point of an object that lies at a place, to within `near` pixels; the first of several. */
export function pointAt(item: Item, at: { readonly x: number; readonly y: number }, near: number): Point | null {
  return item.prompt.points.find(({ x, y }) => Math.hypot(x - at.x, y - at.y) <= near) ?? null;
}

function firstOf(points: readonly Point[]): Point | undefined {
  return points.find(({ positive }) => positive);
}

/** Takes a point away; the object goes with its last positive point if nothing else says what it is. */
export function removePoint(doc: Doc, id: number, point: Point): Doc {
  const item = doc.items.find((candidate) => candidate.id === id);
  const index = item?.prompt.points.indexOf(point) ?? -1;
  if (!item || index < 0) return doc;
  const points = item.prompt.points.filter((_, i) => i !== index);
  if (!item.prompt.box && !item.mask && !points.some(({ positive }) => positive)) return removeItem(doc, id);
  const settled = item.settled - (index < item.settled ? 1 : 0);
  // A hand-chosen scale belongs to the first click on the object.
  const scale = firstOf(points) === firstOf(item.prompt.points) ? item.scale : null;
  return changeItem(doc, id, { prompt: { ...item.prompt, points }, scale, settled });
}

/** Gives an object a mask of its own, in which its points so far are taken in. */
export function setMask(doc: Doc, id: number, mask: Mask): Doc {
  const item = doc.items.find((candidate) => candidate.id === id);
  if (!item) return doc;
  return changeItem(doc, id, { mask, settled: item.prompt.points.length, scale: null });
}

/** Whether an object's mask is as it was drawn or loaded: no later point changes it. */
export function isDrawn(item: Item): boolean {
  return item.mask !== null && item.prompt.points.length === item.settled;
}

export function pointPrompt(x: number, y: number): Prompt {
  return { points: [{ x, y, positive: true }], box: null };
}

export function boxPrompt(box: Box): Prompt {
  return { points: [], box };
}

/** Tells apart the objects that have different masks. */
export function answerKey(item: Item): string {
  return JSON.stringify([item.prompt, item.scale, item.mask ? [numberOf(item.mask), isDrawn(item)] : 0]);
}

const numbers = new WeakMap<Mask, number>();
let masks = 0;

function numberOf(mask: Mask): number {
  const known = numbers.get(mask) ?? ++masks;
  numbers.set(mask, known);
  return known;
}

function freeColor(doc: Doc): string {
  const uses = (color: string): number => doc.items.filter((i) => i.color === color).length;
  return PALETTE.reduce((best, color) => (uses(color) < uses(best) ? color : best));
}
