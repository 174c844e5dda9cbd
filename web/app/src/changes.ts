/**
 * Changes that wait for the model. Whatever else is done meanwhile, the document becomes what it would be if
 * every answer had been there at once.
 */

import type { Doc, Item } from "./document";

/** Does changes one after another, each on what the one before left. */
export class Changes {
  private last: Promise<void> = Promise.resolve();
  private waiting = 0;
  /** The last change under way that makes an object and selects it. */
  private making: Promise<void> | null = null;

  constructor(private readonly onError: (error: unknown) => void) {}

  /** Whether a change waits for its turn or its answer. */
  get busy(): boolean {
    return this.waiting > 0;
  }

  /** Does work in its turn. */
  add(work: () => Promise<void> | void): Promise<void> {
    this.waiting++;
    this.last = this.last
      .then(work)
      .catch((error: unknown) => this.onError(error))
      .finally(() => this.waiting--);
    return this.last;
  }

  /** The same for work that makes an object and selects it. */
  make(work: () => Promise<void>): Promise<void> {
    const made = this.add(work);
    this.making = made;
    void made.then(() => {
      if (this.making === made) this.making = null;
    });
    return made;
  }

  /** Another object was chosen: what comes now is for that one. */
  chosen(): void {
    this.making = null;
  }

  /** Whether an object is selected, or is being made and will be. */
  hasTarget({ selected }: Doc): boolean {
    return this.making !== null || selected !== null;
  }

  /**
   * Which object a change is for that is asked for now: the selected one, or the one that is being made. What is
   * returned gives it, or null, from the document as it is in the change's turn.
   */
  target({ selected }: Doc): (then: Doc) => Item | null {
    const made = this.making !== null;
    return (then) => then.items.find(({ id }) => id === (made ? then.selected : selected)) ?? null;
  }
}

/**
 * A change of the object `id` whose new mask the model gives: `next` makes it on the document as it is when
 * that mask is there. Null if the object is gone by then, or if nothing is found for it, which `found` says.
 */
export async function answered(
  read: () => Doc,
  id: number,
  next: (doc: Doc) => Doc,
  fill: (item: Item) => Promise<boolean>,
): Promise<{ readonly doc: Doc | null; readonly found: boolean }> {
  for (;;) {
    const before = read();
    const has = (doc: Doc): Item | undefined => doc.items.find((item) => item.id === id);
    if (!has(before)) return { doc: null, found: true };
    const doc = next(before);
    const item = has(doc);
    if (item && !(await fill(item))) return { doc: null, found: false };
    if (read() === before) return { doc, found: true };
  }
}
