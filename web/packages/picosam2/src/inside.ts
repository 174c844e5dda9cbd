/** The engine in the page itself, for where there are no workers. */

import type { Link } from "./browser.ts";
import { type Call, type Calls, isBeside, type Notice, type Request } from "./protocol.ts";
import { WebEngine } from "./webengine.ts";

export class Inside implements Link {
  private queue: Promise<unknown> = Promise.resolve();
  private readonly engine: WebEngine;

  constructor(onNotice: (notice: Notice) => void) {
    this.engine = new WebEngine({ openGpu: null, onNotice, inTurn: (work) => void this.inTurn(work) });
  }

  call<K extends Call>(call: K, value: Calls[K]["request"]): Promise<Calls[K]["answer"]> {
    const work = async (): Promise<Calls[K]["answer"]> => {
      return (await this.engine.answer({ id: 0, call, value } as Request)) as Calls[K]["answer"];
    };
    return isBeside(call) ? work() : this.inTurn(work);
  }

  close(): void {
    // Nothing runs that would have to be stopped.
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.queue.then(work);
    this.queue = result.catch(() => undefined);
    return result;
  }
}
