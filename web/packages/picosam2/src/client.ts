/** A page's handle on a worker that runs the model: one promise a request. */

import { ModelError } from "./metadata.ts";
import type { Call, Calls, Notice, Request, Response } from "./protocol.ts";

const DISPOSED = "the segmenter was disposed of";

interface Waiting {
  readonly resolve: (answer: Calls[Call]["answer"]) => void;
  readonly reject: (error: Error) => void;
}

export class Client {
  private readonly waiting = new Map<number, Waiting>();
  private lastId = 0;
  private closed = false;

  constructor(
    private readonly worker: Worker,
    onNotice: (notice: Notice) => void,
  ) {
    worker.addEventListener("message", ({ data }: MessageEvent<Response>) => {
      if ("notice" in data) {
        onNotice(data);
        return;
      }
      const waiting = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ("error" in data) {
        waiting?.reject(data.kind === "ModelError" ? new ModelError(data.error) : new Error(data.error));
      } else waiting?.resolve(data.answer);
    });
    worker.addEventListener("error", (event) => {
      this.fail(new Error(event.message || "the worker that runs the model could not start"));
    });
  }

  call<K extends Call>(
    call: K,
    value: Calls[K]["request"],
    transfer: Transferable[] = [],
  ): Promise<Calls[K]["answer"]> {
    if (this.closed) return Promise.reject(new Error(DISPOSED));
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      this.worker.postMessage({ id, call, value } as Request, transfer);
    });
  }

  /** Ends the worker; what was asked is rejected. */
  close(): void {
    this.closed = true;
    this.worker.terminate();
    this.fail(new Error(DISPOSED));
  }

  private fail(error: Error): void {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
