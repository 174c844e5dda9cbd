/**
 * Compiles kernels/kernels.ts (AssemblyScript), with and without relaxed SIMD, and writes the bytes into
 * src/kernels.ts. With --check it only says whether that file is up to date (exit code 1 if not).
 */

import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import asc from "assemblyscript/asc";

const root = resolve(import.meta.dirname, "..");

async function compiled(features) {
  const options = ["--runtime", "stub", "--optimizeLevel", "3", "--noAssert", "--enable", features.join(",")];
  const source = readFileSync(resolve(root, "kernels/kernels.ts"), "utf8");
  let binary = null;
  const { error, stderr } = await asc.main(["kernels.ts", ...options, "--outFile", "kernels.wasm"], {
    readFile: (name) => (name === "kernels.ts" ? source : null),
    writeFile: (name, contents) => {
      if (name === "kernels.wasm") binary = contents;
    },
  });
  if (error) throw new Error(stderr.toString());
  return Buffer.from(binary).toString("base64").replace(/.{1,100}/g, (line) => `\n  "${line}" +`).slice(0, -2);
}

const text = `/**
 * The layers of kernels/kernels.ts as WebAssembly, in base64: with SIMD, and with fused multiplications and
 * additions (relaxed SIMD) too. Written by scripts/kernels.mjs.
 */

export const SIMD =${await compiled(["simd"])};

export const RELAXED =${await compiled(["simd", "relaxed-simd"])};
`;
const path = resolve(root, "src/kernels.ts");
if (!process.argv.includes("--check")) writeFileSync(path, text);
else if (readFileSync(path, "utf8") !== text) {
  console.error("src/kernels.ts is not what kernels/kernels.ts compiles to: run npm run kernels");
  process.exit(1);
}
