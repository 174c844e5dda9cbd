import { describe, expect, it } from "vitest";
import type { Mask, Point } from "picosam2/custom";
import { questionOf } from "../src/answers";
import {
  addItem, addPoint, answerKey, boxPrompt, changeItem, EMPTY, PALETTE, pointPrompt, removeItem,
  pointAt, removePoint, selectedItem, setMask,
} from "../src/document";
import { History } from "../src/history";
import { addSheet, changeDoc, NOTHING, removeSheet, showSheet, unsavedAfter, unsavedWithout } from "../src/workspace";

describe("history", () => {
  it("goes back and forth, and forgets what was undone", () => {
    const history = new History(0);
    history.push(1, "step 1");
    history.push(2, "step 2");
    expect(history.undo()).toBe("step 2");
    expect(history.current).toBe(1);
    expect(history.redo()).toBe("step 2");
    expect(history.current).toBe(2);
    history.undo();
    history.push(3, "step 3");
    expect(history.canRedo).toBe(false);
    history.undo();
    history.undo();
    expect(history.current).toBe(0);
    expect(history.undo()).toBeNull();
    expect(history.redo()).toBe("step 1");
  });

  it("replaces without a step", () => {
    const history = new History("a");
    history.push("b", "b");
    history.replace("c");
    history.undo();
    expect(history.current).toBe("a");
    history.reset("z");
    expect([history.current, history.canUndo, history.canRedo]).toEqual(["z", false, false]);
  });

  it("keeps a bounded past", () => {
    const history = new History(0);
    for (let i = 1; i <= 500; i++) history.push(i, `step ${i}`);
    let steps = 0;
    while (history.undo() !== null) steps++;
    expect(steps).toBe(200);
  });
});

describe("the document", () => {
  it("names, colors and selects a new object", () => {
    let doc = EMPTY;
    for (let i = 0; i < PALETTE.length + 1; i++) doc = addItem(doc, pointPrompt(i, i));
    expect(doc.items.map(({ color }) => color)).toEqual([...PALETTE, PALETTE[0]]);
    expect(selectedItem(doc)?.name).toBe(`Object ${PALETTE.length + 1}`);
  });

  it("takes the color that is free and no name twice", () => {
    let doc = addItem(addItem(EMPTY, pointPrompt(1, 1)), pointPrompt(2, 2));
    doc = addItem(removeItem(doc, 1), pointPrompt(3, 3));
    expect(doc.items.map(({ name }) => name)).toEqual(["Object 2", "Object 3"]);
    expect(doc.items[1]!.color).toBe(PALETTE[0]);
  });

  it("adds and removes points; the last one takes the object along", () => {
    let doc = addItem(EMPTY, pointPrompt(1, 1));
    doc = changeItem(doc, 1, { scale: 2 });
    doc = addPoint(doc, 1, { x: 5, y: 6, positive: false });
    expect(selectedItem(doc)?.prompt.points.length).toBe(2);
    const [on, off] = selectedItem(doc)!.prompt.points as [Point, Point];
    expect(removePoint(doc, 1, off).items[0]!.prompt.points).toEqual([on]);
    expect(removePoint(doc, 1, on).items).toEqual([]);
    expect(removePoint(removePoint(doc, 1, off), 1, off)).toEqual(removePoint(doc, 1, off)); // it is gone already
  });

  it("keeps a scale chosen by hand as long as the click that it was chosen for", () => {
    let doc = changeItem(addItem(EMPTY, pointPrompt(1, 1)), 1, { scale: 2 });
    doc = addPoint(addPoint(doc, 1, { x: 5, y: 6, positive: false }), 1, { x: 3, y: 3, positive: true });
    expect(selectedItem(doc)?.scale).toBe(2);
    const [first, off] = selectedItem(doc)!.prompt.points as [Point, Point];
    expect(selectedItem(removePoint(doc, 1, off))?.scale).toBe(2);
    expect(selectedItem(removePoint(doc, 1, first))?.scale).toBeNull();
  });

  it("tells which point lies at a place", () => {
    const item = selectedItem(addPoint(addItem(EMPTY, pointPrompt(10, 10)), 1, { x: 20, y: 10, positive: false }))!;
    expect(pointAt(item, { x: 18, y: 11 }, 3)).toBe(item.prompt.points[1]);
    expect(pointAt(item, { x: 14, y: 10 }, 3)).toBeNull();
  });

  it("keeps a box without points", () => {
    const box = boxPrompt({ x0: 0, y0: 0, x1: 4, y1: 4 });
    const doc = addPoint(addItem(EMPTY, box), 1, { x: 1, y: 1, positive: false });
    expect(removePoint(doc, 1, selectedItem(doc)!.prompt.points[0]!).items[0]!.prompt).toEqual(box);
  });

  it("selects a neighbour of what is deleted", () => {
    let doc = EMPTY;
    for (let i = 0; i < 3; i++) doc = addItem(doc, pointPrompt(i, i));
    doc = removeItem(doc, 3);
    expect(doc.selected).toBe(2);
    doc = removeItem(removeItem(doc, 2), 1);
    expect(doc.selected).toBeNull();
  });

  it("knows the same question again, whatever its name", () => {
    const doc = addItem(EMPTY, pointPrompt(1, 1));
    const item = doc.items[0]!;
    expect(answerKey({ ...item, name: "x", color: "#000" })).toBe(answerKey(item));
    expect(answerKey({ ...item, scale: 1 })).not.toBe(answerKey(item));
  });
});

describe("what is in no file", () => {
  const photo = (id: number) => ({ id, name: `${id}.png`, width: 9, height: 9 });
  const two = addSheet(addSheet(NOTHING, photo(1)), photo(2));
  const kept = changeDoc(two, addItem(EMPTY, pointPrompt(1, 1)));

  it("is what changed since it was saved, photo by photo", () => {
    expect(unsavedAfter(new Set(), NOTHING, two)).toEqual(new Set());
    expect(unsavedAfter(new Set(), two, kept)).toEqual(new Set([2]));
    const other = changeDoc(showSheet(kept, 1), addItem(EMPTY, pointPrompt(2, 2)));
    expect(unsavedAfter(new Set([2]), kept, other)).toEqual(new Set([1, 2]));
    expect(unsavedAfter(new Set(), kept, other)).toEqual(new Set([1])); // the second was saved
  });

  it("stays unsaved if it changed while its file was written", () => {
    const { items } = kept.sheets.find(({ id }) => id === 2)!.doc;
    expect(unsavedWithout(new Set([1, 2]), 2, items, kept)).toEqual(new Set([1]));
    const since = changeDoc(kept, addItem(kept.sheets.find(({ id }) => id === 2)!.doc, pointPrompt(9, 9)));
    expect(unsavedWithout(new Set([1, 2]), 2, items, since)).toEqual(new Set([1, 2]));
  });

  it("goes with its photo, and with the last object", () => {
    expect(unsavedAfter(new Set([2]), kept, removeSheet(kept, 2))).toEqual(new Set());
    expect(unsavedAfter(new Set([2]), kept, two)).toEqual(new Set());
  });
});

describe("what the model is asked", () => {
  const mask: Mask = { x: 0, y: 0, width: 10, height: 10, data: new Uint8Array(100).fill(1) };
  const on = (x: number, positive = true): Point => ({ x, y: 5, positive });

  it("is nothing for a mask as it was drawn, and the prompt where there is none", () => {
    const drawn = selectedItem(addItem(EMPTY, { points: [], box: null }, mask))!;
    expect(questionOf(drawn)).toBeNull();
    const clicked = selectedItem(addItem(EMPTY, pointPrompt(3, 4)))!;
    expect(questionOf(clicked)).toEqual({ points: [{ x: 3, y: 4, positive: true }], box: null });
  });

  it("leaves out clicks that were painted over since, but none that came after", () => {
    let doc = addItem(EMPTY, { points: [on(5), on(20), on(7, false), on(30, false)], box: null });
    doc = setMask(doc, 1, mask);
    doc = addPoint(doc, 1, on(8, false));
    const question = questionOf(selectedItem(doc)!)!;
    expect(question.mask).toBe(mask);
    expect(question.points).toEqual([on(5), on(30, false), on(8, false)]);
  });
});
