import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { indexPixels, overlaid, svg } from "../src/exports.ts";
import { smoothPath, SvgPath } from "../src/outline.ts";
import { zip } from "../src/zip.ts";
import { drawn } from "./helpers.ts";

const sheet = { fileName: "a.png", width: 4, height: 3 };
const named = (x: number, y: number) => ({
  name: "thing", color: "#123456", score: null, prompt: { points: [], box: null },
  mask: { ...drawn("##"), x, y }, alpha: { ...drawn("##"), x, y },
});

describe("a ZIP file", () => {
  it("is read by Python's zipfile, with unique names", async () => {
    const folder = mkdtempSync(join(tmpdir(), "picosam2-zip-"));
    try {
      const data = [new Blob(["one"]), new Blob([new Uint8Array(70000).map((_, i) => i)]), new Blob([])];
      const file = await zip([
        { name: "été.txt", data: data[0]! }, { name: "b.bin", data: data[1]! }, { name: "B.bin", data: data[2]! },
      ]);
      writeFileSync(join(folder, "a.zip"), Buffer.from(await file.arrayBuffer()));
      const code = "import sys,zipfile,json; z=zipfile.ZipFile(sys.argv[1]); print(z.testzip(), json.dumps({n: len(z.read(n)) for n in z.namelist()}))";
      const out = execFileSync("python3", ["-c", code, join(folder, "a.zip")], { encoding: "utf8" });
      expect(out.trim()).toBe('None {"\\u00e9t\\u00e9.txt": 3, "b.bin": 70000, "B 2.bin": 0}');
      expect(readFileSync(join(folder, "a.zip")).length).toBe(file.size);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("an index map", () => {
  it("numbers objects in their order, later ones above", () => {
    expect([...indexPixels(sheet, [named(0, 0), named(1, 0), named(2, 2)])]).toEqual([
      1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 3, 3,
    ]);
    expect(() => indexPixels(sheet, Array<ReturnType<typeof named>>(256).fill(named(0, 0)))).toThrow("255");
  });
});

describe("a background", () => {
  it("shows through as far as the cut-out is clear", () => {
    const cutout = Uint8Array.of(200, 100, 0, 255, 200, 100, 0, 0, 200, 100, 0, 128);
    const ground = new Uint8Array(12).fill(40);
    expect([...overlaid(cutout, ground)]).toEqual([200, 100, 0, 255, 40, 40, 40, 255, 120, 70, 20, 255]);
  });
});

describe("a smooth outline", () => {
  it("rounds corners and leaves long sides where they are", () => {
    const path = new SvgPath();
    smoothPath(path, [0, 0, 20, 0, 20, 20, 0, 20]);
    expect(path.text).toBe("M0 3Q0 0 3 0L17 0Q20 0 20 3L20 17Q20 20 17 20L3 20Q0 20 0 17Z");
    const large = new SvgPath();
    smoothPath(large, [0, 0, 1, 0, 1, 1, 0, 1], 10);
    expect(large.text).toBe("M0 5Q0 0 5 0L5 0Q10 0 10 5L10 5Q10 10 5 10L5 10Q0 10 0 5Z");
  });

  it("is in SVG as on the screen", () => {
    expect(svg(sheet, [named(1, 1)])).toContain("M1 1.5Q1 1 2 1L2 1Q3 1 3 1.5");
  });
});
