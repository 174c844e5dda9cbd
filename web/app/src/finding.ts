/** Everything mode: all objects of a photo as outlines to click, and as a list for the keyboard. */

import type { FoundObject, Mask } from "picosam2/custom";
import { pathOf } from "./answers";
import { remaining, smallestAt, thirds } from "./found";
import { STRINGS } from "./strings";

export interface FindingIntent {
  /** An object of the list was chosen. */
  take(object: FoundObject): void;
  /** Another object of the list is pointed at, or none. */
  point(object: FoundObject | null): void;
}

/** A search is under way, or its objects are shown. */
type State = "off" | "searching" | "shown";

export class Finding {
  private state: State = "off";
  private stopper = new AbortController();
  private found: readonly FoundObject[] = [];
  private left: readonly FoundObject[] = [];
  private readonly paths = new WeakMap<FoundObject, Path2D>();
  private size = { width: 1, height: 1 };
  /** The list's option that the keyboard is at. */
  private active = 0;

  private readonly section = document.getElementById("found") as HTMLElement;
  private readonly list = document.getElementById("found-list") as HTMLUListElement;

  constructor(private readonly intent: FindingIntent) {
    const objectOf = (target: EventTarget | null): FoundObject | null => {
      const option = (target as Element).closest("[role=option]");
      return option ? (this.left[[...this.list.children].indexOf(option)] ?? null) : null;
    };
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("focus", () => this.activate(this.active));
    this.list.addEventListener("blur", () => this.intent.point(null));
    this.list.addEventListener("pointerover", (event) => this.intent.point(objectOf(event.target)));
    this.list.addEventListener("pointerleave", () => this.intent.point(null));
    this.list.addEventListener("click", (event) => {
      const object = objectOf(event.target);
      if (object) this.intent.take(object);
    });
  }

  get searching(): boolean {
    return this.state === "searching";
  }

  get isOff(): boolean {
    return this.state === "off";
  }

  /** The outlines to show. */
  get outlines(): readonly Path2D[] {
    return this.left.map((object) => this.path(object));
  }

  path(object: FoundObject): Path2D {
    const path = this.paths.get(object) ?? pathOf(object.contours);
    this.paths.set(object, path);
    return path;
  }

  /** The smallest object that is shown at a place. */
  at({ x, y }: { x: number; y: number }): FoundObject | null {
    return smallestAt(this.left, x, y);
  }

  /** A search begins; its signal ends it when the mode is left. */
  begin(): AbortSignal {
    this.leave();
    this.state = "searching";
    this.stopper = new AbortController();
    return this.stopper.signal;
  }

  /** Shows the objects of a photo of this size. */
  show(found: readonly FoundObject[], width: number, height: number): void {
    this.state = "shown";
    this.found = found;
    this.size = { width, height };
    this.active = 0;
  }

  /** Takes off the list what is kept by now. */
  update(kept: readonly Mask[]): void {
    if (this.state !== "shown") return;
    const before = this.left;
    this.left = remaining(this.found, kept);
    this.section.hidden = this.left.length === 0;
    if (before.length === this.left.length && before.every((object, i) => object === this.left[i])) return;
    this.list.replaceChildren(...this.left.map((object, i) => this.option(object, i)));
    this.activate(Math.min(this.active, this.left.length - 1));
  }

  /** Ends the search, or shows the objects no more. */
  leave(): void {
    this.stopper.abort();
    this.state = "off";
    this.found = this.left = [];
    this.list.replaceChildren();
    this.section.hidden = true;
  }

  private option(object: FoundObject, index: number): HTMLElement {
    const { width, height } = this.size;
    const option = document.createElement("li");
    option.id = `found-${index}`;
    option.role = "option";
    option.ariaSelected = "false";
    const [across, down] = thirds(object, width, height);
    option.textContent = STRINGS.foundOption(STRINGS.places[down]![across]!, object.area / (width * height), object.score);
    return option;
  }

  private key(event: KeyboardEvent): void {
    const last = this.left.length - 1;
    const next = {
      ArrowDown: Math.min(this.active + 1, last), ArrowUp: Math.max(this.active - 1, 0), Home: 0, End: last,
    }[event.key];
    if (next !== undefined) this.activate(next);
    else if (event.key === "Enter" || event.key === " ") {
      const object = this.left[this.active];
      if (object) this.intent.take(object);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private activate(index: number): void {
    this.active = Math.max(index, 0);
    [...this.list.children].forEach((option, i) => {
      option.ariaSelected = String(i === this.active);
    });
    const option = this.list.children[this.active];
    if (!option) {
      this.list.removeAttribute("aria-activedescendant");
      return;
    }
    this.list.setAttribute("aria-activedescendant", option.id);
    if (document.activeElement !== this.list) return;
    option.scrollIntoView({ block: "nearest" });
    this.intent.point(this.left[this.active] ?? null);
  }
}
