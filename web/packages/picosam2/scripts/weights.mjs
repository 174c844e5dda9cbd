/** Makes weights/default.onnx from the Python package's weights, or from PICOSAM2_WEIGHTS, and copies its finder. */

import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { packWeights } from "../dist/weights.js";

const root = resolve(import.meta.dirname, "..");
const assets = resolve(root, "../../../src/picosam2/assets/weights");
const source = process.env.PICOSAM2_WEIGHTS ?? resolve(assets, "default.onnx");
const finder = process.env.PICOSAM2_FINDER ?? resolve(assets, "finder.onnx");
for (const [path, variable] of [[source, "PICOSAM2_WEIGHTS"], [finder, "PICOSAM2_FINDER"]]) {
  if (existsSync(path)) continue;
  console.error(`there are no weights at ${path}: set ${variable} to an ONNX file`);
  process.exit(2);
}
const to = process.env.PICOSAM2_PACK ?? "int8";
const bytes = readFileSync(source);
mkdirSync(resolve(root, "weights"), { recursive: true });
writeFileSync(resolve(root, "weights/default.onnx"), to === "none" ? bytes : packWeights(bytes, to));
copyFileSync(finder, resolve(root, "weights/finder.onnx"));
