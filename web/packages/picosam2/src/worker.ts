/** The worker that `createSegmenter` starts. */

import { serve } from "./serve.ts";

serve();
