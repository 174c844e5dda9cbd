/** The tools: one is chosen; one tab stop, arrow keys move among the buttons (ARIA's toolbar pattern). */

import type { Tool } from "./stage";

export class Toolbar {
  private readonly buttons: HTMLButtonElement[];

  constructor(root: HTMLElement) {
    this.buttons = [...root.querySelectorAll("button")];
    this.stop(this.buttons[0]!);
    root.addEventListener("keydown", (event) => this.key(event));
    // On low screens the bar stands up.
    new ResizeObserver(() => {
      root.setAttribute("aria-orientation", root.clientHeight > root.clientWidth ? "vertical" : "horizontal");
    }).observe(root);
    root.addEventListener("focusin", (event) => {
      const button = (event.target as Element).closest("button");
      if (button) this.stop(button);
    });
  }

  /** Marks the tool that is in hand. */
  choose(tool: Tool): void {
    for (const button of this.buttons) {
      const own = button.dataset["tool"];
      if (own) button.setAttribute("aria-pressed", String(own === tool));
    }
  }

  private stop(button: HTMLButtonElement): void {
    for (const each of this.buttons) each.tabIndex = each === button ? 0 : -1;
  }

  private key(event: KeyboardEvent): void {
    const at = this.buttons.indexOf(document.activeElement as HTMLButtonElement);
    const last = this.buttons.length - 1;
    if (at < 0) return;
    const next = {
      ArrowRight: at === last ? 0 : at + 1,
      ArrowDown: at === last ? 0 : at + 1,
      ArrowLeft: at === 0 ? last : at - 1,
      ArrowUp: at === 0 ? last : at - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.buttons[next]!.focus();
  }
}
