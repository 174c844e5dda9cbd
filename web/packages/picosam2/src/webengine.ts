/** The engine of browsers: fetches model and runtime, and tries a graphics processor. */

import { download } from "./download.ts";
import { Engine } from "./engine.ts";
import { type ModelFacts, readFacts } from "./metadata.ts";
import type { Call, Calls, Loaded, LoadRequest, Notice, Request } from "./protocol.ts";
import type { OrtRuntime } from "./runtime.ts";
import { mayUseGpu, measure, openWasm, SwitchingRuntime } from "./web.ts";

/** Opens a session on a graphics processor. */
export type OpenGpu = (model: Uint8Array, facts: ModelFacts) => Promise<OrtRuntime>;

export interface WebEngineOptions {
  readonly openGpu: OpenGpu | null;
  readonly onNotice: (notice: Notice) => void;
  /** Does work after what was asked before it. */
  readonly inTurn: (work: () => Promise<void>) => void;
}

export class WebEngine extends Engine {
  constructor(private readonly options: WebEngineOptions) {
    super();
  }

  answer(request: Request): Promise<Calls[Call]["answer"]> | Calls[Call]["answer"] {
    switch (request.call) {
      case "load": return this.load(request.value);
      case "measure": return this.measure();
      case "setImage": return this.setImage(request.value);
      case "preview": return this.preview(request.value);
      case "predict": return this.predict(request.value);
      case "track": return this.track(request.value);
    }
  }

  async load(request: LoadRequest): Promise<Loaded> {
    const { model, name, wasm, threads, modelBytes, wasmBytes } = request;
    const sizes = (pair: readonly [number, number] | null): object =>
      pair ? { bytes: pair[0], rawBytes: pair[1] } : {};
    const parts = [
      ...(typeof model === "string" ? [{ url: model, what: `the model ${name}`, ...sizes(modelBytes) }] : []),
      ...(wasm.wasm ? [{ url: wasm.wasm, what: "the runtime", ...sizes(wasmBytes) }] : []),
    ];
    const files = await download(parts, (loaded, total) =>
      this.options.onNotice({ notice: "progress", loaded, total }),
    );
    const bytes = typeof model === "string" ? files.shift()! : model;
    const facts = readFacts(bytes, name);
    const binary = files[0]?.buffer;
    const cpu = await openWasm(bytes, facts, threads, { ...wasm, ...(binary && { binary }) });
    const runtime = new SwitchingRuntime(facts, cpu);
    this.use(runtime);
    const { inputSize: side } = facts;
    await runtime.run(new Uint8Array(side * side * 3), 1); // the first run allocates
    await this.timeWindow();
    void this.tryGpu(bytes, facts, runtime);
    return { name: facts.name, bytes: facts.bytes, threads, guidance: facts.guidance };
  }

  private async measure(): Promise<number> {
    const [ms] = await measure(this.need());
    return ms;
  }

  /** Loads what the graphics processor needs beside the work at hand, and tests it in its turn. */
  private async tryGpu(bytes: Uint8Array, facts: ModelFacts, runtime: SwitchingRuntime): Promise<void> {
    const { openGpu, inTurn, onNotice } = this.options;
    if (!openGpu || !(await mayUseGpu())) return;
    let gpu: OrtRuntime;
    try {
      gpu = await openGpu(bytes, facts);
    } catch {
      return;
    }
    inTurn(async () => {
      if (!(await runtime.adopt(gpu))) return;
      await this.timeWindow();
      onNotice({ notice: "gpu" });
    });
  }
}
