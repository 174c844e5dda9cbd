/** Undo and redo over immutable snapshots. */

const MOST = 200;

export class History<T> {
  private past: T[] = [];
  private future: T[] = [];

  constructor(private present: T) {}

  get current(): T {
    return this.present;
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  /** A new state that can be undone. */
  push(next: T): void {
    this.past = [...this.past.slice(-(MOST - 1)), this.present];
    this.present = next;
    this.future = [];
  }

  /** A new state in the place of the present one: what nobody wants to undo, such as selecting. */
  replace(next: T): void {
    this.present = next;
  }

  undo(): boolean {
    const last = this.past.pop();
    if (last === undefined) return false;
    this.future.push(this.present);
    this.present = last;
    return true;
  }

  redo(): boolean {
    const next = this.future.pop();
    if (next === undefined) return false;
    this.past.push(this.present);
    this.present = next;
    return true;
  }

  /** Forgets everything but `present`. */
  reset(present: T): void {
    this.past = [];
    this.future = [];
    this.present = present;
  }
}
