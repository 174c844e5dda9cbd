/** The sample on the welcome screen: what is under the pointer is shown masked before any model is there. */

import { covers, type Mask, polygons, rleDecode, type Rle, smoothPath } from "picosam2/custom";

interface Sample {
  readonly objects: readonly { readonly name: string; readonly point: [number, number]; readonly rle: Rle }[];
}

interface Known {
  readonly mask: Mask;
  readonly name: string;
  readonly path: Path2D;
}

export class Welcome {
  private readonly canvas: HTMLCanvasElement;
  private image: HTMLImageElement | null = null;
  private objects: Known[] = [];

  constructor(root: HTMLElement, private readonly pick: (point: { x: number; y: number } | null) => void) {
    this.canvas = root.querySelector("canvas")!;
    this.canvas.addEventListener("pointermove", (event) => this.show(this.under(event)));
    this.canvas.addEventListener("pointerleave", () => this.show(this.first));
    this.canvas.addEventListener("click", (event) => this.pick(this.place(event)));
    void this.load();
  }

  private async load(): Promise<void> {
    try {
      const image = new Image();
      image.src = new URL("sample.jpg", document.baseURI).href;
      const [response] = await Promise.all([fetch(new URL("sample.json", document.baseURI)), image.decode()]);
      const sample = (await response.json()) as Sample;
      this.canvas.width = image.naturalWidth;
      this.canvas.height = image.naturalHeight;
      this.image = image;
      this.objects = sample.objects.map(({ name, rle }) => {
        const mask = rleDecode(rle);
        const path = new Path2D();
        for (const { points } of polygons(mask, 0.75)) smoothPath(path, points);
        return { name, mask, path };
      });
      this.show(this.first);
    } catch {
      this.canvas.hidden = true; // the page works without its sample
    }
  }

  /** What is masked while nothing is pointed at. */
  private get first(): Known | null {
    return this.objects.find(({ name }) => name === "apple") ?? this.objects[0] ?? null;
  }

  private place(event: MouseEvent): { x: number; y: number } {
    const area = this.canvas.getBoundingClientRect();
    return {
      x: Math.min(((event.clientX - area.left) / area.width) * this.canvas.width, this.canvas.width - 1),
      y: Math.min(((event.clientY - area.top) / area.height) * this.canvas.height, this.canvas.height - 1),
    };
  }

  private under(event: MouseEvent): Known | null {
    const { x, y } = this.place(event);
    return this.objects.find(({ mask }) => covers(mask, x, y)) ?? null;
  }

  private show(known: Known | null): void {
    const context = this.canvas.getContext("2d");
    if (!context || !this.image) return;
    context.drawImage(this.image, 0, 0);
    if (!known) return;
    context.fillStyle = "rgb(86 180 233 / 46%)";
    context.fill(known.path, "evenodd");
    context.lineWidth = 5;
    context.strokeStyle = "rgb(0 0 0 / 45%)";
    context.stroke(known.path);
    context.lineWidth = 2.5;
    context.strokeStyle = "#fff";
    context.stroke(known.path);
  }
}
