/**
 * What an ONNX file of this project says of itself: preprocessing, window rules, scorers. It is
 * JSON in the file's metadata under one key, so no constant of the network is typed here.
 *
 * Only the outermost fields of the protobuf are walked (ONNX's `ModelProto`); the graph is skipped.
 */

import { decode, fields } from "./protobuf.ts";
import { Scorer } from "./scorer.ts";

const KEY = "picosam2";

// Field numbers of onnx.proto.
const METADATA_PROPS = 14;
const ENTRY_KEY = 1;
const ENTRY_VALUE = 2;

export interface ModelFacts {
  readonly name: string;
  readonly bytes: number;
  readonly inputSize: number;
  /** Side of the logits. */
  readonly outputSize: number;
  readonly channels: number;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly pad: readonly number[];
  readonly boxGrowth: number;
  readonly boxMaxAspect: number;
  readonly clickHalves: readonly number[];
  readonly outsideLogit: number;
  /** The network takes guidance beside the crop: a mask so far, and clicks on and off the object. */
  readonly guidance: boolean;
  /** The weights try one window of the input's own size for a click, as the paper does. */
  readonly native: boolean;
  readonly clickScorer: Scorer | null;
  readonly boxScorer: Scorer | null;
}

/** A file that is no model of this project. The message is for the user. */
export class ModelError extends Error {
  constructor(
    message: string,
    /** Whether trying again may help: a lost connection, a busy host. */
    readonly temporary = false,
  ) {
    super(message);
  }
}

/** Reads the facts out of a model file's bytes. Throws `ModelError`. */
export function readFacts(bytes: Uint8Array, name: string): ModelFacts {
  return readDescription(bytes, name, (description) => interpret(description, name, bytes.byteLength));
}

/** What a file says of itself, as `interpret` understands it. Throws `ModelError`. */
export function readDescription<T>(bytes: Uint8Array, name: string, interpret: (description: unknown) => T): T {
  let text: string | null;
  try {
    text = metadata(bytes, KEY);
  } catch {
    throw new ModelError(`${name} is damaged or no ONNX file`);
  }
  if (text === null) throw new ModelError(`${name} is not a PicoSAM2 model`);
  try {
    return interpret(JSON.parse(text));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ModelError(`${name} cannot be used: ${why}`);
  }
}

function interpret(said: unknown, name: string, bytes: number): ModelFacts {
  const root = record(said, "its description");
  if (root["kind"] === "finder") throw new Error("it finds boxes, and makes no masks");
  const geometry = record(root["geometry"], "geometry");
  const scorers = root["scorers"] === undefined ? {} : record(root["scorers"], "scorers");
  const scorer = (kind: string): Scorer | null =>
    scorers[kind] === undefined || scorers[kind] === null ? null : Scorer.fromJson(scorers[kind]);
  const aspect = geometry["box_max_aspect"]; // null: no limit, for JSON has no infinity
  const halves = numbers(geometry["click_halves"], "click_halves");
  const native = root["click_windows"] === "native";
  const [click, box] = [scorer("click"), scorer("box")];
  for (const [found, count] of [[click, native ? 1 : halves.length], [box, 1]] as const) {
    if (found && found.candidates !== count) {
      throw new Error(`its scorer compares ${found.candidates} windows where there are ${count}`);
    }
  }
  const inputSize = number(root["input_size"], "input_size");
  const outputSize = number(root["output_size"] ?? inputSize, "output_size");
  const guidance = root["model"] !== undefined && record(root["model"], "model")["guidance"] === true;
  if (guidance && inputSize % outputSize !== 0) {
    throw new Error("with guidance input_size must be a multiple of output_size");
  }
  return {
    name: name.replace(/\.onnx$/, ""),
    bytes,
    inputSize,
    outputSize,
    channels: number(root["channels"], "channels"),
    ...preprocessingOf(root),
    boxGrowth: number(geometry["box_growth"], "box_growth"),
    boxMaxAspect: typeof aspect === "number" ? aspect : Infinity,
    clickHalves: halves,
    outsideLogit: number(geometry["outside_logit"], "outside_logit"),
    guidance,
    native,
    clickScorer: click,
    boxScorer: box,
  };
}

/** What is done to pixels before the network sees them. */
export type Preprocessing = Pick<ModelFacts, "mean" | "std" | "pad">;

export function preprocessingOf(description: Record<string, unknown>): Preprocessing {
  const stated = record(description["preprocessing"], "preprocessing");
  if (stated["order"] !== "RGB") throw new Error("its colors are not in RGB order");
  return {
    mean: numbers(stated["mean"], "mean", 3),
    std: numbers(stated["std"], "std", 3),
    pad: numbers(stated["pad"], "pad", 3),
  };
}

export function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`${what} is missing`);
  }
  return value as Record<string, unknown>;
}

export function number(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new Error(`${what} is no number`);
  return value;
}

export function numbers(value: unknown, what: string, length?: number): number[] {
  if (!Array.isArray(value) || value.length === 0 || (length && value.length !== length)) {
    throw new Error(`${what} is not the numbers it should be`);
  }
  return value.map((item: unknown) => number(item, what));
}

/** The metadata entry `key` of an ONNX file, or null. Throws on bytes that are no protobuf. */
function metadata(bytes: Uint8Array, key: string): string | null {
  for (const { number, body } of fields(bytes)) {
    if (number !== METADATA_PROPS) continue;
    const entry = new Map([...fields(body)].map((field) => [field.number, field.body]));
    const name = entry.get(ENTRY_KEY);
    if (name && decode(name) === key) return decode(entry.get(ENTRY_VALUE) ?? new Uint8Array());
  }
  return null;
}
