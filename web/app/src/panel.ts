/** The list of objects: names, colors, sizes to choose among. */

import type { Doc, Item } from "./document";
import type { Photo } from "./photo";
import type { Scale, Segmentation } from "picosam2/custom";

export interface PanelIntent {
  select(id: number): void;
  rename(id: number, name: string): void;
  remove(id: number): void;
  scale(id: number, scale: number): void;
}

const THUMBNAIL = 88; // pixels, drawn at half the size

export class Panel {
  private readonly list = document.getElementById("objects") as HTMLUListElement;
  private readonly none = document.getElementById("none") as HTMLElement;
  private readonly save = document.getElementById("save") as HTMLElement;
  private readonly rows = new Map<number, Row>();
  private bitmap: ImageBitmap | null = null;

  constructor(private readonly intent: PanelIntent) {}

  photo(photo: Photo): void {
    this.bitmap = photo.bitmap;
  }

  show(doc: Doc, answer: (item: Item) => Segmentation | null): void {
    this.none.hidden = doc.items.length > 0;
    this.save.hidden = doc.items.length === 0;
    for (const [id, row] of this.rows) {
      if (doc.items.some((item) => item.id === id)) continue;
      const focused = row.root.contains(document.activeElement);
      row.root.remove();
      this.rows.delete(id);
      // Deleting by keyboard must not drop the focus to the top of the page.
      if (focused) document.getElementById("view")?.focus();
    }
    doc.items.forEach((item, index) => {
      let row = this.rows.get(item.id);
      if (!row) {
        row = new Row(item.id, this.intent);
        this.rows.set(item.id, row);
      }
      if (this.list.children[index] !== row.root) {
        this.list.insertBefore(row.root, this.list.children[index] ?? null);
      }
      row.show(item, item.id === doc.selected, answer(item), this.bitmap);
    });
    const selected = doc.selected === null ? null : this.rows.get(doc.selected);
    selected?.root.scrollIntoView({ block: "nearest" });
  }
}

class Row {
  readonly root = document.createElement("li");
  private readonly swatch = document.createElement("button");
  private readonly name = document.createElement("input");
  private readonly score = document.createElement("span");
  private readonly remove = document.createElement("button");
  private readonly scales = document.createElement("div");
  private drawn: readonly Scale[] | null = null;

  constructor(
    private readonly id: number,
    private readonly intent: PanelIntent,
  ) {
    const row = document.createElement("div");
    row.className = "object-row";
    this.swatch.type = this.remove.type = "button";
    this.swatch.className = "swatch";
    this.name.type = "text";
    this.name.maxLength = 80;
    this.name.autocomplete = "off";
    this.name.spellcheck = false;
    this.name.setAttribute("aria-label", "Name of the object");
    this.score.className = "score";
    this.score.title = "Predicted quality: how far the mask and the object overlap";
    this.remove.className = "tool";
    this.remove.append(icon("i-trash"));
    this.scales.className = "scales";
    this.scales.setAttribute("role", "group");
    this.scales.setAttribute("aria-label", "Size of what was meant");
    row.append(this.swatch, this.name, this.score, this.remove);
    this.root.append(row, this.scales);

    this.swatch.addEventListener("click", () => this.intent.select(this.id));
    this.name.addEventListener("focus", () => this.intent.select(this.id));
    this.name.addEventListener("change", () => {
      const name = this.name.value.trim();
      if (name) this.intent.rename(this.id, name);
    });
    this.name.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") this.name.blur();
    });
    this.remove.addEventListener("click", () => this.intent.remove(this.id));
  }

  show(item: Item, selected: boolean, answer: Segmentation | null, bitmap: ImageBitmap | null): void {
    this.root.className = selected ? "object selected" : "object";
    this.root.style.setProperty("--swatch", item.color);
    this.swatch.setAttribute("aria-label", `Select ${item.name}`);
    this.swatch.setAttribute("aria-pressed", String(selected));
    this.remove.setAttribute("aria-label", `Delete ${item.name}`);
    if (document.activeElement !== this.name) this.name.value = item.name;
    this.score.textContent = answer ? `${Math.round(answer.score * 100)} %` : "…";
    const scales = selected && answer ? answer.scales : [];
    this.scales.hidden = scales.length < 2;
    if (this.scales.hidden || !answer || !bitmap) return;
    if (this.drawn !== scales) {
      this.drawn = scales;
      this.scales.replaceChildren(...scales.map((scale, i) => this.choice(scale, i, scales.length, bitmap, item.color)));
    }
    [...this.scales.children].forEach((child, i) => {
      child.setAttribute("aria-pressed", String(i === answer.scale));
    });
  }

  private choice(scale: Scale, index: number, count: number, bitmap: ImageBitmap, color: string): HTMLElement {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "scale";
    const text = `Size ${index + 1} of ${count}, predicted quality ${Math.round(scale.score * 100)} %`;
    button.setAttribute("aria-label", text);
    button.title = text;
    button.append(thumbnail(scale, bitmap, color));
    button.addEventListener("click", () => this.intent.scale(this.id, index));
    return button;
  }
}

/** The window's part of the photo with the mask in it. */
function thumbnail({ window, contours }: Scale, bitmap: ImageBitmap, color: string): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMBNAIL;
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const zoom = THUMBNAIL / (window.x1 - window.x0);
  context.setTransform(zoom, 0, 0, zoom, -window.x0 * zoom, -window.y0 * zoom);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0);
  const path = new Path2D();
  for (const contour of contours) {
    path.moveTo(contour[0]!, contour[1]!);
    for (let i = 2; i < contour.length; i += 2) path.lineTo(contour[i]!, contour[i + 1]!);
    path.closePath();
  }
  context.globalAlpha = 0.5;
  context.fillStyle = color;
  context.fill(path, "evenodd");
  context.globalAlpha = 1;
  context.lineWidth = 2.5 / zoom;
  context.strokeStyle = "#fff";
  context.stroke(path);
  return canvas;
}

function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}
