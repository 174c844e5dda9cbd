/** Which clicks mean something of their own. */

const TWICE = 400; // ms within which a second click at the same place is a double click's
const TREMBLE = 6; // screen pixels between the two

/** A click on the stage: when, where on the screen, and what it would do. */
export interface Click {
  readonly time: number;
  readonly x: number;
  readonly y: number;
  /** Tool, button and keys held: clicks that differ in it mean different things. */
  readonly meaning: string;
}

/** Whether a click is the second of a double click, which means what the first did. */
export function isSecond(click: Click, before: Click | null): boolean {
  return (
    before !== null &&
    click.meaning === before.meaning &&
    click.time - before.time < TWICE &&
    Math.hypot(click.x - before.x, click.y - before.y) < TREMBLE
  );
}
