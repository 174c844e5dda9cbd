/**
 * The finder: a network that sees a view of an image and says which boxes hold an object. Its file is
 * read and computed like the segmenter's, on this library's kernels.
 */

import { dequantized } from "./dequantized.ts";
import { ModelError, number, numbers, type Preprocessing, preprocessingOf, readDescription, record } from "./metadata.ts";
import { type Layer, layersOf, type PlainGraph, UnknownNetwork } from "./network.ts";
import { Compiled, IMAGE, Normalizer, readable } from "./simd.ts";
import { cellCount, type Cells, OUTPUTS } from "./views.ts";

const ANSWER = "cells";

/** What a finder's file says of itself. */
export interface FinderFacts extends Cells, Preprocessing {
  readonly name: string;
}

/** Finds boxes in views of an image. */
export interface BoxFinder {
  readonly facts: FinderFacts;
  /** A view (S, S, 3) RGB 8 bits to cells (5, N); see `OUTPUTS`. */
  run(view: Uint8Array): Float32Array | Promise<Float32Array>;
}

/** Reads what a finder's file says of itself. Throws `ModelError`. */
export function readFinderFacts(bytes: Uint8Array, name: string): FinderFacts {
  return readDescription(bytes, name, (value) => {
    const description = record(value, "its description");
    if (description["kind"] !== "finder") throw new Error("it is no finder");
    const geometry = record(description["geometry"], "geometry");
    const inputSize = number(description["input_size"], "input_size");
    const strides = numbers(geometry["strides"], "strides");
    if (strides.some((stride) => !Number.isInteger(inputSize / stride))) {
      throw new Error("its views are not whole numbers of cells");
    }
    return {
      name: name.replace(/\.onnx$/, ""),
      inputSize,
      strides,
      reach: number(geometry["reach"], "reach"),
      ...preprocessingOf(description),
    };
  });
}

export class Finder implements BoxFinder {
  private readonly normalizer: Normalizer;

  private constructor(
    readonly facts: FinderFacts,
    private readonly network: Compiled,
  ) {
    this.normalizer = new Normalizer(facts);
  }

  /** Rejects with `ModelError` if the file is no finder, or one of other operators than the kernels know. */
  static async open(model: Uint8Array, name: string): Promise<Finder> {
    const facts = readFinderFacts(model, name);
    try {
      const { layers, heads } = headed(dequantized(readable(model)));
      const network = await Compiled.open([layers], facts.inputSize, heads);
      const sizes = network.outputs().map(({ height, width, channels }) => [channels, height, width].join());
      const expected = facts.strides.map((stride) => [OUTPUTS, facts.inputSize / stride, facts.inputSize / stride].join());
      if (sizes.join(" ") !== expected.join(" ")) throw new UnknownNetwork("other cells than its description says");
      return new Finder(facts, network);
    } catch (error) {
      if (!(error instanceof UnknownNetwork)) throw error;
      throw new ModelError(`${name} cannot be used: it has ${error.message}`);
    }
  }

  run(view: Uint8Array): Float32Array {
    const { network, facts } = this;
    this.normalizer.fill(network.kernels.memory, network.input(IMAGE), view);
    network.run();
    const count = cellCount(facts);
    const out = new Float32Array(OUTPUTS * count);
    let from = 0;
    for (const plane of network.outputs()) {
      for (let c = 0; c < OUTPUTS; c++) network.read(plane, c, out, c * count + from);
      from += plane.height * plane.width;
    }
    return out;
  }
}

/** The layers up to the heads, whose cells the graph then lays in one row; `heads` in the row's order. */
function headed({ nodes, constants }: PlainGraph): { layers: Layer[]; heads: string[] } {
  const makers = new Map(nodes.map((node) => [node.output, node]));
  const row = makers.get(ANSWER);
  const flat = row?.op === "Concat" ? row.inputs.map((name) => makers.get(name)) : [];
  if (flat.length === 0 || flat.some((node) => node?.op !== "Reshape")) throw new UnknownNetwork("no cells");
  const heads = flat.map((node) => node!.inputs[0]!);
  const needed = new Set<string>();
  const waiting = [...heads];
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (needed.has(name)) continue;
    needed.add(name);
    waiting.push(...(makers.get(name)?.inputs ?? []));
  }
  return { layers: layersOf({ nodes: nodes.filter(({ output }) => needed.has(output)), constants }), heads };
}
