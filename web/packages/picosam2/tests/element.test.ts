/** `<pico-segment>`: what clicks, drags and keys ask for; on as much of a document as it needs. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { definePicoSegment, type PicoSegmentElement } from "../src/element-core.ts";
import type { CreateOptions } from "../src/defaults.ts";
import type { PromptLike, Segmentation, Segmenter } from "../src/segmenter.ts";

/** An element, a canvas and a paragraph in one. */
class FakeElement extends EventTarget {
  readonly parts: FakeElement[] = [];
  textContent = "";
  tabIndex = -1;
  isConnected = false;
  width = 0;
  height = 0;
  clientWidth = 50;
  private readonly attributes = new Map<string, string>();

  getAttribute(name: string): string | null {
    return this.attributes.get(name) ?? null;
  }

  setAttribute(name: string, value: string): void {
    this.attributes.set(name, value);
    (this as { attributeChangedCallback?: (name: string) => void }).attributeChangedCallback?.(name);
  }

  attachShadow(): unknown {
    return { adoptedStyleSheets: [], append: (...nodes: FakeElement[]) => this.parts.push(...nodes) };
  }

  getContext(): unknown {
    return new Proxy({}, { get: () => () => undefined, set: () => true });
  }

  getBoundingClientRect(): unknown {
    return { left: 0, top: 0, width: this.width, height: this.height };
  }

  setPointerCapture(): void {
    // Nothing to capture.
  }
}

type Fake = FakeElement & Omit<PicoSegmentElement, keyof HTMLElement> & { connectedCallback(): void; disconnectedCallback(): void };

const pause = (): Promise<void> => new Promise((done) => setTimeout(done, 1));
const answer = { score: 0.9, contours: [Float64Array.of(0, 0, 9, 0, 9, 9)] } as unknown as Segmentation;

describe("<pico-segment>", () => {
  const registry = new Map<string, new () => Fake>();
  /** What segmenters were asked, in turn. */
  let log: string[] = [];
  let answers: (prompt: PromptLike) => Segmentation | null = () => answer;
  let loads: (options: CreateOptions) => void = () => undefined;

  function create(options: CreateOptions): Promise<Segmenter> {
    let image = "none";
    const segmenter = {
      async setImage(source: unknown) {
        await pause();
        ({ name: image } = source as { name: string });
      },
      async predict(prompt: PromptLike) {
        await pause();
        const points = (prompt.points as { x: number; y: number; positive: boolean }[])
          .map(({ x, y, positive }) => `${positive ? "+" : "-"}${Math.round(x)},${Math.round(y)}`);
        const box = prompt.box ? [Object.values(prompt.box).map(Math.round).join()] : [];
        log.push([image, ...points, ...box].join(" "));
        return answers(prompt);
      },
    };
    return new Promise((done) => {
      loads(options);
      done(segmenter as unknown as Segmenter);
    });
  }

  beforeEach(() => {
    log = [];
    registry.clear();
    answers = () => answer;
    loads = () => undefined;
    vi.stubGlobal("HTMLElement", FakeElement);
    vi.stubGlobal("document", { baseURI: "http://host/page/", createElement: () => new FakeElement() });
    vi.stubGlobal("customElements", {
      get: (name: string) => registry.get(name),
      define: (name: string, made: new () => Fake) => registry.set(name, made),
    });
    vi.stubGlobal("CSSStyleSheet", class { replaceSync(): void { /* no styles */ } });
    vi.stubGlobal("Path2D", class { moveTo(): void {} lineTo(): void {} closePath(): void {} });
    vi.stubGlobal("fetch", (url: URL) => Promise.resolve({ ok: !url.href.includes("none"), status: 404, blob: () => Promise.resolve(url) }));
    vi.stubGlobal("createImageBitmap", (url: URL) =>
      Promise.resolve({ name: url.pathname.split("/").pop(), width: 100, height: 80, close: () => undefined }));
    definePicoSegment(create);
  });

  afterEach(() => vi.unstubAllGlobals());

  async function shown(src: string): Promise<{ element: Fake; canvas: FakeElement; note: FakeElement; changes: unknown[] }> {
    const element = new (registry.get("pico-segment")!)();
    const changes: unknown[] = [];
    element.addEventListener("change", (event) => changes.push((event as CustomEvent).detail));
    element.setAttribute("src", src);
    element.isConnected = true;
    element.connectedCallback();
    const [canvas, note] = element.parts as [FakeElement, FakeElement];
    await vi.waitFor(() => expect(note.textContent).not.toBe("Loading…"));
    return { element, canvas, note, changes };
  }

  function point(canvas: FakeElement, type: string, x: number, y: number, more: Record<string, unknown> = {}): void {
    const event = { clientX: x, clientY: y, button: 0, shiftKey: false, pointerType: "mouse", pointerId: 1, ...more };
    canvas.dispatchEvent(Object.assign(new Event(type, { cancelable: true }), event));
  }

  function click(canvas: FakeElement, x: number, y: number, more: Record<string, unknown> = {}): void {
    point(canvas, "pointerdown", x, y, more);
    point(canvas, "pointerup", x, y, more);
  }

  const key = (canvas: FakeElement, name: string, shiftKey = false): boolean =>
    canvas.dispatchEvent(Object.assign(new Event("keydown", { cancelable: true }), { key: name, shiftKey }));

  it("asks for what is clicked, added, taken away and framed", async () => {
    const { element, canvas, note, changes } = await shown("a.jpg");
    expect([canvas.width, canvas.height, note.textContent]).toEqual([100, 80, ""]);
    click(canvas, 30, 40, { button: 2 }); // there is nothing to take away from
    click(canvas, 30, 40);
    await vi.waitFor(() => expect(changes).toEqual([answer]));
    expect(element.value).toBe(answer);
    click(canvas, 50, 41, { shiftKey: true });
    await vi.waitFor(() => expect(changes.length).toBe(2));
    click(canvas, 20, 10, { button: 2 });
    await vi.waitFor(() => expect(changes.length).toBe(3));
    point(canvas, "pointerdown", 70, 60);
    point(canvas, "pointermove", 30, 20);
    point(canvas, "pointerup", 30, 20);
    await vi.waitFor(() => expect(changes.length).toBe(4));
    expect(log).toEqual(["a.jpg +30,40", "a.jpg +30,40 +50,41", "a.jpg +30,40 +50,41 -20,10", "a.jpg 30,20,70,60"]);
    point(canvas, "pointerup", 5, 5); // of a press elsewhere
    expect(log.length).toBe(4);
  });

  it("is used by keys alone", async () => {
    const { element, canvas, changes } = await shown("a.jpg");
    expect(key(canvas, "ArrowRight")).toBe(false); // its own, so the page does not scroll
    key(canvas, "ArrowDown", true);
    expect(key(canvas, "Tab")).toBe(true);
    key(canvas, "Enter");
    await vi.waitFor(() => expect(changes).toEqual([answer]));
    expect(log).toEqual(["a.jpg +53,41"]);
    key(canvas, "Escape");
    expect(changes).toEqual([answer, null]);
    expect(element.value).toBeNull();
    expect(canvas.getAttribute("aria-label")).toContain("Image: ");
    element.setAttribute("label", "Fruit");
    expect(canvas.getAttribute("aria-label")).toContain("Fruit: ");
  });

  it("keeps the prompts of several with their images", async () => {
    const [a, b] = [await shown("a.jpg"), await shown("b.jpg")];
    await Promise.all([a, b, a, b].map(({ element }) => element.prompt([{ x: 5, y: 6, positive: true }])));
    expect(new Set(log)).toEqual(new Set(["a.jpg +5,6", "b.jpg +5,6"]));
    expect([a.element.value, b.element.value]).toEqual([answer, answer]);
  });

  it("takes clicks that come while the mask before them is awaited for corrections of it", async () => {
    const { canvas, changes } = await shown("a.jpg");
    click(canvas, 30, 40);
    click(canvas, 50, 41, { shiftKey: true });
    click(canvas, 20, 10, { button: 2 });
    await vi.waitFor(() => expect(changes).toEqual([answer]));
    expect(log.at(-1)).toBe("a.jpg +30,40 +50,41 -20,10");
  });

  it("gives each prompt its own answer, and none to one that another has replaced", async () => {
    const { element } = await shown("a.jpg");
    const at = (x: number): { x: number; y: number; positive: boolean }[] => [{ x, y: 5, positive: true }];
    expect(await Promise.all([element.prompt(at(10)), element.prompt(at(60))])).toEqual([null, answer]);
    // Nor what an earlier prompt gave.
    expect(await Promise.all([element.prompt(at(20)), element.prompt(at(70))])).toEqual([null, answer]);
  });

  it("shows the answer to the last prompt, whichever comes first", async () => {
    const { canvas, element, changes } = await shown("a.jpg");
    const second = { ...answer, score: 0.5 } as Segmentation;
    answers = ({ points }) => ((points![0] as { x: number }).x < 20 ? answer : second);
    click(canvas, 10, 10);
    click(canvas, 60, 60);
    await vi.waitFor(() => expect(changes).toEqual([second]));
    click(canvas, 10, 10);
    element.clear();
    await pause();
    await pause();
    await pause();
    expect(element.value).toBeNull();
  });

  it("says where nothing is, what cannot be fetched, and what fails", async () => {
    const { element, canvas, note } = await shown("a.jpg");
    answers = () => null;
    click(canvas, 30, 40);
    await vi.waitFor(() => expect(note.textContent).toContain("Nothing"));
    answers = () => {
      throw new Error("out of memory");
    };
    click(canvas, 30, 40);
    await vi.waitFor(() => expect(note.textContent).toBe("out of memory"));
    element.setAttribute("src", "none.jpg");
    await vi.waitFor(() => expect(note.textContent).toContain("(404)"));
    element.disconnectedCallback();
    expect(await element.prompt([{ x: 1, y: 1, positive: true }])).toBeNull();
  });

  it("loads a model once for all, and again after a failure", async () => {
    const loaded: unknown[] = [];
    let broken = true;
    loads = (options) => {
      loaded.push(options);
      if (broken) throw new Error("no connection");
    };
    expect((await shown("a.jpg")).note.textContent).toBe("no connection");
    broken = false;
    expect((await shown("a.jpg")).note.textContent).toBe("");
    await shown("b.jpg");
    expect(loaded).toEqual([{}, {}]);
    const { element } = await shown("c.jpg");
    element.setAttribute("model", "own.onnx");
    await vi.waitFor(() => expect(loaded).toEqual([{}, {}, { model: "own.onnx" }]));
  });

  it("is defined once", () => {
    expect(definePicoSegment(create)).toBe(registry.get("pico-segment"));
  });
});
