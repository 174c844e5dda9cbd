/** A worker's side of `Client`: answers requests one after another with an `Engine`. */

import { ModelError } from "./metadata.ts";
import { type OpenGpu, WebEngine } from "./webengine.ts";
import { isBeside, type Request, type Response } from "./protocol.ts";

/** The part of a worker's global scope that is used. */
export interface WorkerScope {
  readonly name?: string;
  postMessage(message: Response): void;
  addEventListener(type: "message", listener: (event: { data: Request }) => void): void;
}

/**
 * Makes this worker answer a `createSegmenter`. `openGpu` opens a session on a graphics processor:
 * a worker of your own can give it, the one that comes with the library runs on WebAssembly only.
 */
export function serve(openGpu: OpenGpu | null = null, scope = self as unknown as WorkerScope): void {
  // ONNX Runtime's threads may load the same file: they are not to be answered.
  if (scope.name?.startsWith("em-pthread")) return;
  let queue: Promise<void> = Promise.resolve();
  const inTurn = (work: () => Promise<void>): void => {
    queue = queue.then(work).catch(() => undefined); // what fails must not keep the rest from its turn
  };
  const engine = new WebEngine({
    openGpu,
    onNotice: (notice) => scope.postMessage(notice),
    inTurn,
  });
  scope.addEventListener("message", ({ data }) => {
    if (typeof data !== "object" || data === null || !("call" in data)) return;
    const answer = async (): Promise<void> => {
      try {
        scope.postMessage({ id: data.id, answer: await engine.answer(data) });
      } catch (error) {
        const kind = error instanceof ModelError ? "ModelError" : ""; // a minifier renames classes
        const text = error instanceof Error ? error.message : String(error);
        scope.postMessage({ id: data.id, error: text, kind });
      }
    };
    if (isBeside(data.call)) void answer();
    else inTurn(answer);
  });
}
