/** The object at a place of a JPEG, as a PNG mask: node segment.mjs photo.jpg 120 80 mask.png */

import { readFileSync, writeFileSync } from "node:fs";
import jpeg from "jpeg-js";
import { createSegmenter } from "picosam2";

const [photo, x, y, out] = process.argv.slice(2);
const segmenter = await createSegmenter();
await segmenter.setImage(jpeg.decode(readFileSync(photo), { useTArray: true }));
const mask = await segmenter.predict({ points: [[Number(x), Number(y)]] });
if (!mask) {
  console.error("nothing was found there");
  process.exit(1);
}
writeFileSync(out, Buffer.from(await (await mask.png()).arrayBuffer()));
console.log(JSON.stringify({ score: mask.score, area: mask.area, rle: mask.rle() }));
await segmenter.dispose();
