/** What the library exports in browsers and in Node alike. */

export * from "./edits.ts";
export * from "./exports.ts";
export {
  type Box, boxWindow, clickWindows, crop, cropMask, cropPlane, pasteRegion, type Point, pointWindow, type Prompt,
  type Region, type RgbaImage, sensorWindow, toCrop, toImage, type Window,
} from "./geometry.ts";
export { DISK_RADIUS, drawPlanes, followingBox, type Known, PLANES, probability } from "./guidance.ts";
export * from "./masks.ts";
export { ModelError, type ModelFacts, readFacts } from "./metadata.ts";
export { UnknownNetwork } from "./network.ts";
export { smoothPath } from "./outline.ts";
export { encodePng } from "./png.ts";
export { Candidate, type ClickAnswers, Predictor, type Runtime } from "./predictor.ts";
export type { FoundObject, Preview, Scale, Shape, Tracked } from "./protocol.ts";
export { Pyramid } from "./pyramid.ts";
export { type OrtModule, OrtRuntime, type OrtSession } from "./runtime.ts";
export { FEATURES, features, Ladder, Scorer } from "./scorer.ts";
export {
  type BoxLike, type EverythingOptions, type ImageSource, type PointLike, type PredictOptions, PromptError, type PromptLike,
  Segmentation, type Segmenter, type SetImageOptions, type TrackRequest,
} from "./segmenter.ts";
export { SimdRuntime } from "./simd.ts";
export { type Sighting, Tracker } from "./tracker.ts";
export { packWeights, unpackWeights } from "./weights.ts";
export { zip } from "./zip.ts";
