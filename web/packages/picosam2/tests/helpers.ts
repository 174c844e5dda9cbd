/** Small ONNX-like files and masks for tests. */

import type { Mask } from "../src/masks.ts";

function varint(value: number): number[] {
  const out: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  return [...out, value];
}

function field(number: number, body: Uint8Array): number[] {
  return [...varint(number * 8 + 2), ...varint(body.length), ...body];
}

/** The bytes of an ONNX `ModelProto` with a graph of `graph` bytes and one metadata entry. */
export function onnxWith(key: string, value: string, graph = 1000): Uint8Array {
  const text = new TextEncoder();
  const entry = Uint8Array.from([...field(1, text.encode(key)), ...field(2, text.encode(value))]);
  return Uint8Array.from([
    8, 8, // ir_version 8
    ...field(7, new Uint8Array(graph)),
    ...field(14, entry),
  ]);
}

/** A mask from rows of text: `#` is on the object. */
export function drawn(...rows: string[]): Mask {
  const width = rows[0]!.length;
  const data = Uint8Array.from(rows.flatMap((row) => [...row].map((c) => (c === "#" ? 1 : 0))));
  return { x: 0, y: 0, width, height: rows.length, data };
}

/** A random mask from a seed (xorshift), with `share` of its pixels on. */
export function random(seed: number, width: number, height: number, share = 0.5): Mask {
  let state = seed * 2654435761 + 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  const data = Uint8Array.from({ length: width * height }, () => (next() < share ? 1 : 0));
  return { x: 0, y: 0, width, height, data };
}
