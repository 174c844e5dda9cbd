/** Defines `<pico-segment>`; see element-core.ts. */

import { createSegmenter } from "./defaults.ts";
import { definePicoSegment } from "./element-core.ts";

export type { PicoSegmentElement } from "./element-core.ts";

export const PicoSegment = definePicoSegment(createSegmenter);
