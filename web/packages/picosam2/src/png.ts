/** Writes PNG files (ISO/IEC 15948): 8-bit gray or RGBA, exact values, no color management. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10] as const;
const GRAY = 0;
const RGBA = 6;
const UP = 2; // the filter: each byte minus the one above, which suits masks and flat areas

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

/** `data` is width * height bytes (gray) or four times as many (RGBA). */
export async function encodePng(
  data: Uint8Array | Uint8ClampedArray,
  width: number,
  height: number,
): Promise<Blob> {
  const channels = data.length / (width * height);
  if (channels !== 1 && channels !== 4) throw new Error("a PNG has one channel or four");
  const line = width * channels;
  const rows = new Uint8Array((line + 1) * height);
  for (let y = 0; y < height; y++) {
    const to = y * (line + 1);
    rows[to] = UP;
    for (let i = 0; i < line; i++) {
      rows[to + 1 + i] = data[y * line + i]! - (y > 0 ? data[(y - 1) * line + i]! : 0);
    }
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 8;
  header[9] = channels === 1 ? GRAY : RGBA;
  return new Blob(
    [
      Uint8Array.from(SIGNATURE),
      chunk("IHDR", header),
      chunk("IDAT", await deflate(rows)),
      chunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

async function deflate(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([data]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(type: string, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(body.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, body.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(body, 8);
  view.setUint32(out.length - 4, crc32(out.subarray(4, out.length - 4)));
  return out;
}

/** The checksum of PNG and ZIP. */
export function crc32(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = CRC[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
