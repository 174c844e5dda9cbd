/** The page's handle on the worker: one promise a request. */

import type { Call, Calls, Request, Response } from "./protocol";

interface Waiting {
  readonly resolve: (answer: Calls[Call]["answer"]) => void;
  readonly reject: (error: Error) => void;
}

export class Client {
  private readonly worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  private readonly waiting = new Map<number, Waiting>();
  private lastId = 0;

  /** `onProgress` is told the share of the model that is here, `onGpu` that WebGPU took over. */
  constructor(onProgress: (share: number) => void, onGpu: () => void) {
    this.worker.addEventListener("message", ({ data }: MessageEvent<Response>) => {
      if ("progress" in data) {
        onProgress(data.progress);
        return;
      }
      if ("gpu" in data) {
        onGpu();
        return;
      }
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ("error" in data) waiting?.reject(new Error(data.error));
      else waiting?.resolve(data.answer);
    });
    this.worker.addEventListener("error", (event) => {
      const error = new Error(event.message || "the worker that runs the model could not start");
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    });
  }

  call<K extends Call>(
    call: K,
    value: Calls[K]["request"],
    transfer: Transferable[] = [],
  ): Promise<Calls[K]["answer"]> {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      this.worker.postMessage({ id, call, value } as Request, transfer);
    });
  }
}
