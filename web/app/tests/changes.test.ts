import { describe, expect, it } from "vitest";
import { answered, Changes } from "../src/changes";
import {
  addItem, addPoint, boxPrompt, changeItem, type Doc, EMPTY, pointPrompt, removeItem, select, selectedItem,
} from "../src/document";

const two = addItem(addItem(EMPTY, pointPrompt(1, 1)), pointPrompt(9, 9)); // the second is selected

/** A promise, and what fulfills it. */
function gate(): { readonly promise: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const promise = new Promise<void>((done) => (open = done));
  return { promise, open };
}

describe("changes that wait for the model", () => {
  const none = (error: unknown): never => {
    throw error;
  };

  it("come one after another, whatever fails before", async () => {
    const errors: unknown[] = [];
    const changes = new Changes((error) => errors.push(error));
    const log: string[] = [];
    const first = gate();
    void changes.add(() => first.promise.then(() => void log.push("first")));
    void changes.add(() => Promise.reject(new Error("no model")));
    const last = changes.add(() => void log.push("last"));
    expect(changes.busy).toBe(true);
    first.open();
    await last;
    expect(log).toEqual(["first", "last"]);
    expect(errors).toEqual([new Error("no model")]);
    expect(changes.busy).toBe(false);
  });

  it("are for the object that a click is still making", async () => {
    const changes = new Changes(none);
    let doc: Doc = two;
    const answer = gate();
    const made = changes.make(async () => {
      await answer.promise;
      doc = addItem(doc, boxPrompt({ x0: 0, y0: 0, x1: 4, y1: 4 }));
    });
    const target = changes.target(doc);
    answer.open();
    await made;
    expect(target(doc)?.id).toBe(3);
    expect(changes.target(doc)(select(doc, 1))?.id).toBe(3); // nothing is being made any more
  });

  it("are for the selected object, also if another one is selected in their turn", async () => {
    const changes = new Changes(none);
    expect(changes.target(two)(select(two, 1))?.id).toBe(2);
    expect(changes.target(two)(removeItem(two, 2))).toBeNull();
    const answer = gate();
    const made = changes.make(() => answer.promise);
    changes.chosen(); // while one is being made
    expect(changes.target(select(two, 1))(two)?.id).toBe(1);
    answer.open();
    await made;
  });

  it("have an object if one is selected, or being made", async () => {
    const changes = new Changes(none);
    expect(changes.hasTarget(two)).toBe(true);
    expect(changes.hasTarget(EMPTY)).toBe(false);
    const made = changes.make(() => Promise.resolve());
    expect(changes.hasTarget(EMPTY)).toBe(true);
    await made;
    expect(changes.hasTarget(EMPTY)).toBe(false);
  });
});

describe("a change that the model has answered", () => {
  const corrected = (doc: Doc): Doc => addPoint(doc, 2, { x: 5, y: 5, positive: false });

  /** The document after `meanwhile` was done to it while the answer was awaited. */
  async function after(meanwhile: (doc: Doc) => Doc, found = true): Promise<{ doc: Doc | null; found: boolean; asked: number }> {
    let doc: Doc = two;
    let asked = 0;
    const result = await answered(() => doc, 2, corrected, () => {
      if (asked++ === 0) doc = meanwhile(doc);
      return Promise.resolve(found);
    });
    return { ...result, asked };
  }

  it("keeps what was done meanwhile", async () => {
    expect(await after((doc) => doc)).toEqual({ doc: corrected(two), found: true, asked: 1 });
    const renamed = changeItem(removeItem(two, 1), 2, { name: "Mug" });
    expect((await after(() => renamed)).doc).toEqual(corrected(renamed));
    expect(selectedItem((await after((doc) => select(doc, 1))).doc!)?.id).toBe(1);
    const more = addPoint(two, 2, { x: 7, y: 7, positive: true });
    expect((await after(() => more)).doc!.items[1]!.prompt.points.length).toBe(3);
  });

  it("is none if its object is gone by then, or nothing is found for it", async () => {
    expect(await after((doc) => removeItem(doc, 2))).toMatchObject({ doc: null, found: true });
    expect(await after((doc) => doc, false)).toMatchObject({ doc: null, found: false });
  });

  it("needs no answer for an object that it takes away", async () => {
    const { doc } = await answered(() => two, 2, (then) => removeItem(then, 2), () => Promise.reject(new Error("asked")));
    expect(doc!.items.map(({ id }) => id)).toEqual([1]);
  });
});
