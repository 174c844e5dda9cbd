/** The page's worker: the library's, with a graphics processor where the build and the browser have one. */

import { serve } from "picosam2/serve";

/** Whether the build holds what WebGPU needs (PICOSAM2_WEBGPU=0 leaves it out). */
declare const __WEBGPU__: boolean;

/** ONNX Runtime's build for WebGPU waits for the graphics processor with JSPI. */
const suspends = "Suspending" in WebAssembly;

serve(
  __WEBGPU__ && suspends
    ? async (model, facts) => {
        const { open } = await import("./webgpu");
        return open(model, facts);
      }
    : null,
);
