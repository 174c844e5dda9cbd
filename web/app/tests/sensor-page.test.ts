/** The page of `picosam2 camera`: its script, with as much of a document as it needs. */

import { readFileSync } from "node:fs";
import { runInNewContext } from "node:vm";
import { describe, expect, it, vi } from "vitest";

const page = readFileSync(new URL("../../../src/picosam2/apps/camera/page.html", import.meta.url), "utf8");
const script = /<script[^>]*>(.*)<\/script>/s.exec(page)![1]!;

interface Asked {
  readonly path: string;
  readonly command: unknown;
  answer(state: object): void;
}

/** The page's script at work: what it asked, and its elements by their ids. */
function opened(): { asked: Asked[]; elements: Map<string, Record<string, unknown>>; press(key: string): void } {
  const asked: Asked[] = [];
  const elements = new Map<string, Record<string, unknown>>();
  const listeners: ((event: unknown) => void)[] = [];
  const element = (id: string): Record<string, unknown> => {
    const options: unknown[] = [];
    const made = elements.get(id) ?? {
      value: "", textContent: "", options, add: (option: unknown) => options.push(option), addEventListener: () => undefined,
    };
    elements.set(id, made);
    return made;
  };
  element("scale")["options"] = Array.from({ length: 7 }); // "all", and six sizes
  runInNewContext(script, {
    document: {
      activeElement: null,
      getElementById: element,
      addEventListener: (_: string, listener: (event: unknown) => void) => listeners.push(listener),
    },
    Option: Object,
    setTimeout: () => undefined,
    fetch: (path: string, { body = "null" } = {}) =>
      new Promise((done) => {
        const answer = (state: object): void => done({ ok: true, json: () => Promise.resolve(state) });
        asked.push({ path, command: JSON.parse(body), answer });
      }),
  });
  const press = (key: string): void =>
    listeners.forEach((listener) => listener({ key, target: null, preventDefault: () => undefined }));
  return { asked, elements, press };
}

const state = (scale: number | null): object => ({
  state: "idle", step: null, score: null, note: "", scale, scales: 6, rate: 10, dnn_ms: null,
});

describe("the page of the sensor", () => {
  it("goes on from a step that is still on its way, one command after another", async () => {
    const { asked, elements, press } = opened();
    press("+");
    press("+");
    expect(elements.get("scale")!["value"]).toBe(1);
    const commands = (): Asked[] => asked.filter(({ path }) => path === "/do");
    await vi.waitFor(() => expect(commands().map(({ command }) => command)).toEqual([{ scale: 0 }]));
    commands()[0]!.answer(state(0));
    await vi.waitFor(() => expect(commands().length).toBe(2));
    expect(commands()[1]!.command).toEqual({ scale: 1 });
    expect(elements.get("scale")!["value"]).toBe(1); // not what was so before the second step
    commands()[1]!.answer(state(1));
  });

  it("does not show a state of before a command", async () => {
    const { asked, elements, press } = opened();
    await vi.waitFor(() => expect(asked.map(({ path }) => path)).toEqual(["/state"]));
    press("+");
    asked[0]!.answer({ ...state(null), note: "old" });
    await vi.waitFor(() => expect(asked.length).toBe(2));
    asked[1]!.answer({ ...state(0), note: "new" });
    await vi.waitFor(() => expect(elements.get("note")!["textContent"]).toBe("new"));
    expect(elements.get("scale")!["value"]).toBe(0);
  });
});
