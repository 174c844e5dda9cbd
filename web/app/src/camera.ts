/** The live camera: frames to the model one at a time, the newest first. */

import { drawnPixels, type Segmenter, type Tracked } from "picosam2/custom";
import { STRINGS } from "./strings";

/** Frames are segmented at this long side: the network sees a small crop of them anyway. */
const FRAME_SIDE = 640;

export class CameraError extends Error {}

export class Camera {
  private stream: MediaStream | null = null;
  /** Counts starts and stops: a stream that was asked for before the last of them is ended at once. */
  private turn = 0;
  private restart = true;
  /** Where the prompt is, in pixels of the video; null keeps it at the center. */
  private tapped: { x: number; y: number } | null = null;

  constructor(
    private readonly segmenter: () => Segmenter | null,
    readonly video: HTMLVideoElement,
    private readonly onFrame: (tracked: Tracked, scale: number) => void,
    private readonly onError: (error: Error) => void,
  ) {}

  /** Starts the camera once `ready` is done; false if it was stopped, or started anew, before there was a stream. */
  async start(ready: Promise<void>): Promise<boolean> {
    if (!navigator.mediaDevices?.getUserMedia) throw new CameraError(STRINGS.noCamera);
    this.stop();
    const turn = this.turn;
    await ready;
    if (turn !== this.turn) return false;
    let stream: MediaStream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } },
      });
    } catch (error) {
      if (turn !== this.turn) return false;
      const name = error instanceof DOMException ? error.name : "";
      throw new CameraError(
        name === "NotAllowedError"
          ? STRINGS.cameraRefused
          : name === "NotFoundError"
            ? STRINGS.cameraMissing
            : STRINGS.cameraBusy,
      );
    }
    if (turn !== this.turn) {
      end(stream);
      return false;
    }
    this.stream = stream;
    this.video.srcObject = stream;
    try {
      await this.video.play();
    } catch (error) {
      if (turn !== this.turn) return false;
      this.stop();
      throw error;
    }
    if (turn !== this.turn) return false;
    this.follow(null);
    void this.loop(turn);
    return true;
  }

  /** Follows what is at a place of the video, or (null) keeps to what is at the center. */
  follow(at: { x: number; y: number } | null): void {
    this.tapped = at;
    this.restart = true;
  }

  /** Ends every track of every stream, also of one that is still on its way. */
  stop(): void {
    this.turn++;
    if (this.stream) end(this.stream);
    this.stream = null;
    this.video.srcObject = null;
  }

  private async loop(turn: number): Promise<void> {
    while (turn === this.turn) {
      const { videoWidth: width, videoHeight: height } = this.video;
      const segmenter = this.segmenter();
      if (width === 0 || !segmenter) {
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
        const tracked = await segmenter.track(image, at);
        if (turn === this.turn) this.onFrame(tracked, 1 / scale);
      } catch (error) {
        this.onError(error instanceof Error ? error : new Error(String(error)));
        return;
      }
      await new Promise(requestAnimationFrame);
    }
  }
}

function end(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}
