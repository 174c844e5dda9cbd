/** Undo and redo over immutable snapshots, each with the name of what led to it. */

const MOST = 200;

interface Step<T> {
  readonly state: T;
  /** What was done to leave (past) or to reach (future) this state. */
  readonly what: string;
}

export class History<T> {
  private past: Step<T>[] = [];
  private future: Step<T>[] = [];

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
  push(next: T, what: string): void {
    this.past = [...this.past.slice(-(MOST - 1)), { state: this.present, what }];
    this.present = next;
    this.future = [];
  }

  /** A new state in the place of the present one: what nobody wants to undo, such as selecting. */
  replace(next: T): void {
    this.present = next;
  }

  /** Goes a step back; what was undone, or null. */
  undo(): string | null {
    const last = this.past.pop();
    if (!last) return null;
    this.future.push({ state: this.present, what: last.what });
    this.present = last.state;
    return last.what;
  }

  /** Goes a step forward again; what was done again, or null. */
  redo(): string | null {
    const next = this.future.pop();
    if (!next) return null;
    this.past.push({ state: this.present, what: next.what });
    this.present = next.state;
    return next.what;
  }

  /** Forgets everything but `present`. */
  reset(present: T): void {
    this.past = [];
    this.future = [];
    this.present = present;
  }
}
