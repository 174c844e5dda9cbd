/** The live camera: frames to the worker one at a time, the newest first. */

import { drawnPixels, type Segmenter, type Tracked } from "picosam2/custom";

/** Frames are segmented at this long side: the network sees a small crop of them anyway. */
const FRAME_SIDE = 640;

export class CameraError extends Error {}

export class Camera {
  private stream: MediaStream | null = null;
  private running = false;
  private restart = true;
  /** Where the prompt is, in pixels of the video; null keeps it at the centre. */
  private tapped: { x: number; y: number } | null = null;

  constructor(
    private readonly segmenter: () => Segmenter | null,
    readonly video: HTMLVideoElement,
    private readonly onFrame: (tracked: Tracked, scale: number) => void,
    private readonly onError: (error: Error) => void,
  ) {}

  async start(): Promise<void> {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new CameraError("This browser gives pages no camera. Over a network it needs https.");
    }
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
      });
    } catch (error) {
      const name = error instanceof DOMException ? error.name : "";
      throw new CameraError(
        name === "NotAllowedError"
          ? "The camera was not allowed. Allow it for this page in the browser's address bar."
          : name === "NotFoundError"
            ? "There is no camera on this device."
            : "The camera could not be started. Is another program using it?",
      );
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    this.running = true;
    this.follow(null);
    void this.loop();
  }

  /** Follows what is at a place of the video, or (null) keeps to what is at the centre. */
  follow(at: { x: number; y: number } | null): void {
    this.tapped = at;
    this.restart = true;
  }

  stop(): void {
    this.running = false;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  private async loop(): Promise<void> {
    while (this.running) {
      const { videoWidth: width, videoHeight: height } = this.video;
      if (width === 0) {
        await new Promise(requestAnimationFrame);
        continue;
      }
      const scale = Math.min(1, FRAME_SIDE / Math.max(width, height));
      const image = drawnPixels(this.video, Math.round(width * scale), Math.round(height * scale));
      const { x, y } = this.tapped ?? { x: width / 2, y: height / 2 };
      const restart = this.restart;
      this.restart = false;
      try {
        const at = { x: x * scale, y: y * scale, restart, fixed: this.tapped === null };
        const tracked = await this.segmenter()!.track(image, at);
        if (this.running) this.onFrame(tracked, 1 / scale);
      } catch (error) {
        this.onError(error instanceof Error ? error : new Error(String(error)));
        return;
      }
      await new Promise(requestAnimationFrame);
    }
  }
}
