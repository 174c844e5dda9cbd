/** The engine of browsers: fetches model and runtime, and tries a graphics processor. */

import { download } from "./download.ts";
import { Engine } from "./engine.ts";
import { type ModelFacts, readFacts } from "./metadata.ts";
import type { Call, Calls, Loaded, LoadRequest, Notice, Request } from "./protocol.ts";
import { UnknownNetwork } from "./network.ts";
import type { OrtRuntime } from "./runtime.ts";
import { SimdRuntime } from "./simd.ts";
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
      case "loadFinder": return this.loadFinder(request.value);
      case "everything": return this.everything(request.value);
      case "track": return this.track(request.value);
    }
  }

  async load(request: LoadRequest): Promise<Loaded> {
    const { model, name, modelBytes } = request;
    const bytes =
      typeof model === "string" ? (await this.fetched(model, `the model ${name}`, modelBytes))[0]! : model;
    const facts = readFacts(bytes, name);
    const { cpu, threads } = await this.open(bytes, facts, request);
    const runtime = new SwitchingRuntime(facts, cpu);
    this.use(runtime);
    const { inputSize: side } = facts;
    await runtime.run(new Uint8Array(side * side * 3), 1); // the first run allocates
    await this.timeWindow();
    void this.tryGpu(bytes, facts, runtime);
    return { name: facts.name, bytes: facts.bytes, threads, guidance: facts.guidance };
  }

  /** Own kernels on one thread; ONNX Runtime, which is large, for a network that they do not know. */
  private async open(
    bytes: Uint8Array,
    facts: ModelFacts,
    { model, modelBytes, wasm, wasmBytes, threads }: LoadRequest,
  ): Promise<{ cpu: SimdRuntime | OrtRuntime; threads: number }> {
    try {
      return { cpu: await SimdRuntime.open(bytes, facts), threads: 1 };
    } catch (error) {
      if (!(error instanceof UnknownNetwork)) throw error;
    }
    const before = typeof model === "string" ? (modelBytes?.[0] ?? bytes.length) : 0;
    const [file] = wasm.wasm ? await this.fetched(wasm.wasm, "the runtime", wasmBytes, before) : [];
    const source = { ...wasm, ...(file && { binary: file.buffer }) };
    return { cpu: await openWasm(bytes, facts, threads, source), threads };
  }

  protected override async fetchFinder(url: string, name: string): Promise<Uint8Array> {
    const [bytes] = await download([{ url, what: `the finder ${name}` }], () => undefined);
    return bytes!;
  }

  private fetched(
    url: string,
    what: string,
    sizes: readonly [number, number] | null,
    before = 0,
  ): Promise<Uint8Array<ArrayBuffer>[]> {
    const part = { url, what, ...(sizes && { bytes: sizes[0], rawBytes: sizes[1] }) };
    return download([part], (loaded, total) =>
      this.options.onNotice({ notice: "progress", loaded: before + loaded, total: before + total }),
    );
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
