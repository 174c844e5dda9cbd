/** Makes weights/default.onnx from the Python package's weights, or from PICOSAM2_WEIGHTS. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { packWeights } from "../dist/weights.js";

const root = resolve(import.meta.dirname, "..");
const source =
  process.env.PICOSAM2_WEIGHTS ?? resolve(root, "../../../src/picosam2/assets/weights/default.onnx");
if (!existsSync(source)) {
  console.error(`there are no weights at ${source}: set PICOSAM2_WEIGHTS to an ONNX file`);
  process.exit(2);
}
const to = process.env.PICOSAM2_PACK ?? "int8";
const bytes = readFileSync(source);
mkdirSync(resolve(root, "weights"), { recursive: true });
writeFileSync(resolve(root, "weights/default.onnx"), to === "none" ? bytes : packWeights(bytes, to));
