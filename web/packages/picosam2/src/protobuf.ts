/** As much of the protobuf wire format as ONNX files need: fields in, fields out. */

export interface Field {
  readonly number: number;
  /** 0 a number, 2 bytes; 1 and 5 are numbers of a fixed size, which are only passed on. */
  readonly wire: number;
  readonly value: number;
  readonly body: Uint8Array;
  /** The field as it is in the file, its tag included. */
  readonly raw: Uint8Array;
}

const NOTHING = new Uint8Array(0);

/** The fields of a message. Throws on bytes that are none. */
export function* fields(bytes: Uint8Array): Generator<Field> {
  for (let at = 0; at < bytes.length; ) {
    const start = at;
    let value = 0;
    let body: Uint8Array = NOTHING;
    let tag: number;
    [tag, at] = varint(bytes, at);
    const wire = tag % 8;
    if (wire === 0) [value, at] = varint(bytes, at);
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      [value, at] = varint(bytes, at);
      body = bytes.subarray(at, at + value);
      at += value;
    } else throw new Error("no protobuf");
    if (at > bytes.length) throw new Error("cut off");
    yield { number: Math.floor(tag / 8), wire, value, body, raw: bytes.subarray(start, at) };
  }
}

/** The integers of a repeated field: one, or several packed together. */
export function integers({ wire, value, body }: Field): number[] {
  if (wire !== 2) return [value];
  const out: number[] = [];
  for (let at = 0, next = 0; at < body.length; out.push(next)) [next, at] = varint(body, at);
  return out;
}

export function varint(bytes: Uint8Array, from: number): [value: number, next: number] {
  let value = 0;
  let at = from;
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++];
    if (byte === undefined || factor > 2 ** 63) throw new Error("cut off");
    value += (byte & 127) * factor;
    if (byte < 128) return [value, at];
  }
}

function varintBytes(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128);
  return [...out, rest];
}

export function varintField(number: number, value: number): Uint8Array {
  return Uint8Array.from([...varintBytes(number * 8), ...varintBytes(value)]);
}

export function bytesField(number: number, body: Uint8Array): Uint8Array {
  return concat([Uint8Array.from([...varintBytes(number * 8 + 2), ...varintBytes(body.length)]), body]);
}

export function textField(number: number, text: string): Uint8Array {
  return bytesField(number, new TextEncoder().encode(text));
}

export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function decode(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}
