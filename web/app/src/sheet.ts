/**
 * The panel on small screens: a sheet over the photo that is dragged or pressed open. Its handle keeps
 * its place, so the photo under it never moves.
 */

const DRAG = 24; // pixels a handle is dragged before the sheet follows

export class Sheet {
  private readonly handle: HTMLButtonElement;

  constructor(private readonly panel: HTMLElement) {
    this.handle = panel.querySelector<HTMLButtonElement>("[data-handle]")!;
    let start: number | null = null;
    let dragged = false;
    this.handle.addEventListener("pointerdown", (event) => {
      start = event.clientY + event.clientX;
      dragged = false;
      this.handle.setPointerCapture(event.pointerId);
    });
    this.handle.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const moved = event.clientY + event.clientX - start;
      if (Math.abs(moved) < DRAG) return;
      dragged = true;
      this.set(moved < 0);
    });
    this.handle.addEventListener("pointerup", () => (start = null));
    this.handle.addEventListener("pointercancel", () => (start = null));
    this.handle.addEventListener("click", () => {
      if (!dragged) this.set(!this.isOpen);
      dragged = false;
    });
    document.getElementById("view")?.addEventListener("pointerdown", () => this.set(false));
  }

  get isOpen(): boolean {
    return this.panel.classList.contains("open");
  }

  /** Opens the sheet and brings a part of it into sight. */
  open(part: HTMLElement): void {
    this.set(true);
    part.scrollIntoView({ block: "nearest" });
    part.querySelector<HTMLElement>("button, input")?.focus({ preventScroll: true });
  }

  close(): void {
    this.set(false);
    this.handle.focus();
  }

  private set(open: boolean): void {
    this.panel.classList.toggle("open", open);
    this.handle.setAttribute("aria-expanded", String(open));
  }
}
