/**
 * Stores an ONNX model's weights in fewer bytes: int8 with one scale an output channel where a filter
 * has many values, float16 where it has few. Cast and Mul nodes give them back as float32; ONNX
 * Runtime computes these once when it loads the file, so the network runs as before.
 */

/** Filters with fewer values than this a channel keep float16: a scale would weigh as much. */
const LEAST_FILTER = 32;

/** Tensors with fewer values than this stay as they are. */
const LEAST_SIZE = 64;

// Field numbers of onnx.proto.
const MODEL = { graph: 7 };
const GRAPH = { node: 1, initializer: 5 };
const TENSOR = { dims: 1, type: 2, floats: 4, name: 8, raw: 9 };
const NODE = { input: 1, output: 2, opType: 4, attribute: 5 };
const ATTRIBUTE = { name: 1, i: 3, type: 20, INT: 2 };
const TYPE = { FLOAT: 1, INT8: 3, FLOAT16: 10 };

/**
 * @param {Uint8Array} model
 * @param {"int8" | "float16"} to
 * @returns {Uint8Array}
 */
export function packWeights(model, to = "int8") {
  const out = [];
  // A Buffer's slice is no copy: read it as plain bytes.
  const bytes = new Uint8Array(model.buffer, model.byteOffset, model.byteLength);
  for (const field of fields(bytes)) {
    if (field.number !== MODEL.graph) out.push(field.raw);
    else out.push(bytesField(MODEL.graph, packGraph(field.body, to)));
  }
  return concat(out);
}

function packGraph(graph, to) {
  const nodes = [];
  const rest = [];
  for (const field of fields(graph)) {
    const tensor = field.number === GRAPH.initializer ? readTensor(field.body) : null;
    if (!tensor || tensor.type !== TYPE.FLOAT || tensor.values.length < LEAST_SIZE) {
      rest.push(field.raw);
      continue;
    }
    const { name, dims, values } = tensor;
    const filter = values.length / dims[0];
    const add = (suffix, type, shape, raw) =>
      rest.push(bytesField(GRAPH.initializer, tensorBytes(`${name}.${suffix}`, type, shape, raw)));
    if (to === "int8" && dims.length === 4 && filter >= LEAST_FILTER) {
      const { codes, scales } = quantized(values, dims[0]);
      add("int8", TYPE.INT8, dims, codes);
      add("scale", TYPE.FLOAT, [dims[0], 1, 1, 1], new Uint8Array(scales.buffer));
      nodes.push(node("Cast", [`${name}.int8`], `${name}.codes`, [["to", TYPE.FLOAT]]));
      nodes.push(node("Mul", [`${name}.codes`, `${name}.scale`], name, []));
    } else {
      const half = Uint16Array.from(values, float16);
      add("half", TYPE.FLOAT16, dims, new Uint8Array(half.buffer));
      nodes.push(node("Cast", [`${name}.half`], name, [["to", TYPE.FLOAT]]));
    }
  }
  // A graph's nodes are in the order of their use: what makes the weights comes first.
  return concat([...nodes.map((body) => bytesField(GRAPH.node, body)), ...rest]);
}

/** Each channel's scale is the one, of a few, that leaves the least squared error. */
function quantized(values, channels) {
  const size = values.length / channels;
  const codes = new Int8Array(values.length);
  const scales = new Float32Array(channels);
  for (let c = 0; c < channels; c++) {
    const part = values.subarray(c * size, (c + 1) * size);
    const peak = part.reduce((most, v) => Math.max(most, Math.abs(v)), 0) || 1;
    let least = Infinity;
    for (const share of [1, 0.95, 0.9, 0.85, 0.8]) {
      const scale = Math.fround((peak * share) / 127);
      const error = part.reduce((sum, v) => sum + (code(v, scale) * scale - v) ** 2, 0);
      if (error >= least) continue;
      least = error;
      scales[c] = scale;
    }
    for (let i = 0; i < size; i++) codes[c * size + i] = code(part[i], scales[c]);
  }
  return { codes: new Uint8Array(codes.buffer), scales };
}

function code(value, scale) {
  return Math.min(Math.max(Math.round(value / scale), -127), 127);
}

/** IEEE 754 binary16, rounded to nearest. */
export function float16(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  if (size < 2 ** -14) return sign | Math.round(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  const mantissa = Math.round((size / 2 ** exponent - 1) * 1024);
  return sign | ((exponent + 15 + (mantissa >> 10)) << 10) | (mantissa & 1023);
}

// --- protobuf -----------------------------------------------------------------------------------

function readTensor(bytes) {
  const tensor = { name: "", dims: [], type: 0, values: new Float32Array() };
  for (const { number, wire, body, value } of fields(bytes)) {
    if (number === TENSOR.dims) {
      if (wire === 0) tensor.dims.push(value);
      else for (let at = 0; at < body.length; ) at = push(tensor.dims, varint(body, at));
    } else if (number === TENSOR.type) tensor.type = value;
    else if (number === TENSOR.name) tensor.name = new TextDecoder().decode(body);
    else if (number === TENSOR.raw || number === TENSOR.floats) {
      tensor.values = new Float32Array(body.slice().buffer);
    }
  }
  return tensor;
}

function push(list, [value, at]) {
  list.push(value);
  return at;
}

function tensorBytes(name, type, dims, raw) {
  return concat([
    ...dims.map((dim) => varintField(TENSOR.dims, dim)),
    varintField(TENSOR.type, type),
    bytesField(TENSOR.name, text(name)),
    bytesField(TENSOR.raw, raw),
  ]);
}

function node(opType, inputs, output, attributes) {
  return concat([
    ...inputs.map((name) => bytesField(NODE.input, text(name))),
    bytesField(NODE.output, text(output)),
    bytesField(NODE.opType, text(opType)),
    ...attributes.map(([name, value]) =>
      bytesField(NODE.attribute, concat([
        bytesField(ATTRIBUTE.name, text(name)),
        varintField(ATTRIBUTE.i, value),
        varintField(ATTRIBUTE.type, ATTRIBUTE.INT),
      ])),
    ),
  ]);
}

function* fields(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const start = at;
    let tag, value, body = null;
    [tag, at] = varint(bytes, at);
    const wire = tag % 8;
    if (wire === 0) [value, at] = varint(bytes, at);
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      [value, at] = varint(bytes, at);
      body = bytes.subarray(at, at + value);
      at += value;
    } else throw new Error("this is no ONNX file");
    if (at > bytes.length) throw new Error("this ONNX file is cut off");
    yield { number: Math.floor(tag / 8), wire, value, body, raw: bytes.subarray(start, at) };
  }
}

function varint(bytes, at) {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++];
    if (byte === undefined) throw new Error("this ONNX file is cut off");
    value += (byte & 127) * factor;
    if (byte < 128) return [value, at];
  }
}

function varintBytes(value) {
  const out = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  return [...out, value];
}

function varintField(number, value) {
  return Uint8Array.from([...varintBytes(number * 8), ...varintBytes(value)]);
}

function bytesField(number, body) {
  return concat([Uint8Array.from([...varintBytes(number * 8 + 2), ...varintBytes(body.length)]), body]);
}

function text(value) {
  return new TextEncoder().encode(value);
}

function concat(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
