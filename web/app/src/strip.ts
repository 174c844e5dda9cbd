/** The open photos as small pictures in the bar: show one, close one. */

import { icon } from "./panel";
import { STRINGS } from "./strings";
import type { Workspace } from "./workspace";

export interface StripIntent {
  show(id: number): void;
  close(id: number): void;
}

const SIDE = 72; // pixels, drawn at half the size

export class Strip {
  private readonly list = document.getElementById("strip") as HTMLUListElement;
  private readonly entries = new Map<number, HTMLLIElement>();

  constructor(private readonly intent: StripIntent) {}

  show(workspace: Workspace, blob: (id: number) => Blob | undefined): void {
    this.list.hidden = workspace.sheets.length === 0;
    for (const [id, entry] of this.entries) {
      if (workspace.sheets.some((sheet) => sheet.id === id)) continue;
      const focused = entry.contains(document.activeElement);
      entry.remove();
      this.entries.delete(id);
      if (focused) document.getElementById("view")?.focus();
    }
    workspace.sheets.forEach(({ id, name }, index) => {
      let entry = this.entries.get(id);
      if (!entry) {
        entry = this.entry(id, name, blob(id));
        this.entries.set(id, entry);
      }
      if (this.list.children[index] !== entry) this.list.insertBefore(entry, this.list.children[index] ?? null);
      const current = id === workspace.current;
      entry.className = current ? "current" : "";
      const [show] = entry.getElementsByTagName("button");
      if (current) show?.setAttribute("aria-current", "true");
      else show?.removeAttribute("aria-current");
      if (current) entry.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  private entry(id: number, name: string, blob: Blob | undefined): HTMLLIElement {
    const entry = document.createElement("li");
    const show = document.createElement("button");
    show.type = "button";
    show.className = "photo";
    show.title = name;
    show.setAttribute("aria-label", STRINGS.showPhoto(name));
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    show.append(canvas);
    show.addEventListener("click", () => this.intent.show(id));
    const close = document.createElement("button");
    close.type = "button";
    close.className = "close";
    close.setAttribute("aria-label", STRINGS.closePhoto(name));
    close.append(icon("i-close"));
    close.addEventListener("click", () => this.intent.close(id));
    entry.append(show, close);
    if (blob) void paint(canvas, blob);
    return entry;
  }
}

async function paint(canvas: HTMLCanvasElement, blob: Blob): Promise<void> {
  try {
    const bitmap = await createImageBitmap(blob, { resizeHeight: SIDE * 2, resizeQuality: "medium" });
    const scale = Math.max(SIDE / bitmap.width, SIDE / bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    canvas.getContext("2d")?.drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
    bitmap.close();
  } catch {
    // The photo itself says what is wrong with it.
  }
}
