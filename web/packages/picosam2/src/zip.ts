/** ZIP files (APPNOTE 6.3) of files that are compressed already: they are stored as they are. */

import { crc32 } from "./png.ts";

const UTF8_NAMES = 0x0800;
const VERSION = 20;

/** One archive of named files. Names are made unique, also where a file system does not tell cases apart. */
export async function zip(files: readonly { readonly name: string; readonly data: Blob }[]): Promise<Blob> {
  const parts: (Uint8Array<ArrayBuffer> | Blob)[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  const taken = new Set<string>();
  let offset = 0;
  for (const file of files) {
    const name = new TextEncoder().encode(unique(file.name, taken));
    const crc = crc32(new Uint8Array(await file.data.arrayBuffer()));
    const { size } = file.data;
    // Version, flags, method 0 (stored), time and date (none), CRC, both sizes, name, no extra.
    const common = [
      ...short(VERSION), ...short(UTF8_NAMES), ...short(0), ...short(0), ...short(0x21),
      ...long(crc), ...long(size), ...long(size), ...short(name.length), ...short(0),
    ];
    const header = Uint8Array.from([...long(0x04034b50), ...common, ...name]);
    parts.push(header, file.data);
    directory.push(
      Uint8Array.from([
        ...long(0x02014b50), ...short(VERSION), ...common,
        ...short(0), ...short(0), ...short(0), ...long(0), ...long(offset), ...name,
      ]),
    );
    offset += header.length + size;
  }
  const size = directory.reduce((sum, entry) => sum + entry.length, 0);
  const end = Uint8Array.from([
    ...long(0x06054b50), ...short(0), ...short(0), ...short(files.length), ...short(files.length),
    ...long(size), ...long(offset), ...short(0),
  ]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function unique(name: string, taken: Set<string>): string {
  const dot = name.lastIndexOf(".");
  const [stem, ending] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let result = name;
  for (let i = 2; taken.has(result.toLowerCase()); i++) result = `${stem} ${i}${ending}`;
  taken.add(result.toLowerCase());
  return result;
}

const short = (value: number): number[] => [value & 255, (value >> 8) & 255];
const long = (value: number): number[] => [...short(value), ...short(value >>> 16)];
