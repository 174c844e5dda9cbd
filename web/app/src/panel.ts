/** The list of objects: names, colors, what was meant, edges. */

import type { Scale } from "picosam2/custom";
import type { Answer } from "./answers";
import type { Doc, Item } from "./document";
import { STRINGS } from "./strings";

export interface PanelIntent {
  select(id: number): void;
  rename(id: number, name: string): void;
  remove(id: number): void;
  scale(id: number, scale: number): void;
}

/** What the thumbnails are made from. */
export interface Source {
  readonly bitmap: ImageBitmap;
  /** Pixels of the photo in one of the bitmap's. */
  readonly step: number;
}

const THUMBNAIL = 168; // pixels, drawn at half the size

export class Panel {
  private readonly list = document.getElementById("objects") as HTMLUListElement;
  private readonly none = document.getElementById("none") as HTMLElement;
  private readonly save = document.getElementById("save") as HTMLElement;
  private readonly edges = document.getElementById("edges") as HTMLElement;
  private readonly feather = document.getElementById("feather") as HTMLInputElement;
  private readonly count = document.getElementById("count") as HTMLElement;
  private readonly rows = new Map<number, Row>();
  private source: Source | null = null;

  constructor(private readonly intent: PanelIntent) {}

  photo(source: Source | null): void {
    this.source = source;
    for (const row of this.rows.values()) row.root.remove();
    this.rows.clear();
  }

  show(doc: Doc, answer: (item: Item) => Answer | null): void {
    this.none.hidden = doc.items.length > 0;
    this.save.hidden = doc.items.length === 0;
    this.count.textContent = doc.items.length > 0 ? String(doc.items.length) : "";
    const current = doc.items.find(({ id }) => id === doc.selected);
    this.edges.hidden = !current;
    if (current) this.feather.value = String(current.feather);
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
      row.show(item, item.id === doc.selected, answer(item), this.source);
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
  private shown: readonly number[] = [];

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
    this.name.setAttribute("aria-label", STRINGS.nameOf);
    this.score.className = "score";
    this.remove.className = "tool";
    this.remove.append(icon("i-trash"));
    this.scales.className = "scales";
    this.scales.setAttribute("role", "group");
    this.scales.setAttribute("aria-label", STRINGS.sizes);
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

  show(item: Item, selected: boolean, answer: Answer | null, source: Source | null): void {
    this.root.className = selected ? "object selected" : "object";
    this.root.style.setProperty("--swatch", item.color);
    this.swatch.setAttribute("aria-label", STRINGS.select(item.name));
    this.swatch.setAttribute("aria-pressed", String(selected));
    this.remove.setAttribute("aria-label", STRINGS.remove(item.name));
    if (document.activeElement !== this.name) this.name.value = item.name;
    const score = answer?.score ?? null;
    this.score.textContent = !answer ? "…" : score === null ? STRINGS.drawn : STRINGS.quality(score);
    this.score.title = answer && score === null ? STRINGS.drawnTip : STRINGS.qualityTip;
    const scales = selected && answer ? answer.scales : [];
    this.scales.hidden = scales.length < 2;
    if (this.scales.hidden || !answer || !source) return;
    if (this.drawn !== scales) {
      this.drawn = scales;
      this.shown = choices(scales, answer.scale);
      const focused = this.scales.contains(document.activeElement);
      const buttons = this.shown.map((index) => this.choice(scales[index]!, index, answer.scale, source, item.color));
      this.scales.replaceChildren(...buttons);
      if (focused) buttons[this.shown.indexOf(answer.scale)]?.focus();
    }
    [...this.scales.children].forEach((child, i) => {
      child.setAttribute("aria-pressed", String(this.shown[i] === answer.scale));
    });
  }

  private choice(scale: Scale, index: number, chosen: number, source: Source, color: string): HTMLElement {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "scale";
    const name = index < chosen ? STRINGS.part : index > chosen ? STRINGS.group : STRINGS.whole;
    const text = STRINGS.sizeTip(name, scale.score);
    button.setAttribute("aria-label", text);
    button.title = text;
    const label = document.createElement("span");
    label.textContent = name;
    button.append(thumbnail(scale, source, color), label);
    button.addEventListener("click", () => this.intent.scale(this.id, index));
    return button;
  }
}

/** The best of the smaller windows, the chosen one, the best of the larger ones. */
function choices(scales: readonly Scale[], chosen: number): number[] {
  const best = (from: number, to: number): number[] => {
    let found = -1;
    for (let i = from; i < to; i++) {
      if (scales[i]!.contours.length > 0 && (found < 0 || scales[i]!.score > scales[found]!.score)) found = i;
    }
    return found < 0 ? [] : [found];
  };
  return [...best(0, chosen), chosen, ...best(chosen + 1, scales.length)];
}

/** The mask's surroundings in the photo with the mask in them. */
function thumbnail({ window, contours }: Scale, { bitmap, step }: Source, color: string): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMBNAIL;
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const zoom = THUMBNAIL / (window.x1 - window.x0);
  context.setTransform(zoom, 0, 0, zoom, -window.x0 * zoom, -window.y0 * zoom);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, bitmap.width * step, bitmap.height * step);
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
  context.lineWidth = 4 / zoom;
  context.strokeStyle = "#fff";
  context.stroke(path);
  return canvas;
}

export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.append(use);
  return svg;
}
