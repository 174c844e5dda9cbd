import { describe, expect, it } from "vitest";
import { type Click, isSecond } from "../src/clicks";

describe("the second click of a double click", () => {
  const first: Click = { time: 1000, x: 50, y: 60, meaning: "pick" };

  it("comes soon, at the same place, and means the same", () => {
    expect(isSecond({ ...first, time: 1200, x: 52 }, first)).toBe(true);
    expect(isSecond(first, null)).toBe(false);
  });

  it.each([
    ["later", { time: 1500 }],
    ["elsewhere", { x: 60 }],
    // Whoever is quick keeps an object by a click, presses R, and takes a part away at the same place.
    ["with another tool", { meaning: "remove" }],
  ])("is one of its own if it comes %s", (_, other) => {
    expect(isSecond({ ...first, time: 1200, ...other }, first)).toBe(false);
  });
});
