import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Camera } from "../src/camera";

describe("the camera", () => {
  let streams = 0;
  let ended = 0;

  beforeEach(() => {
    streams = ended = 0;
    vi.stubGlobal("requestAnimationFrame", (work: () => void) => setTimeout(work, 1));
    vi.stubGlobal("navigator", {
      mediaDevices: {
        getUserMedia: () => {
          streams++;
          return Promise.resolve({ getTracks: () => [{ stop: () => ended++ }] });
        },
      },
    });
  });

  afterEach(() => vi.unstubAllGlobals());

  function camera(): Camera {
    const video = { play: () => Promise.resolve(), videoWidth: 0, videoHeight: 0, srcObject: null };
    return new Camera(() => null, video as unknown as HTMLVideoElement, () => undefined, () => undefined);
  }

  it("starts when the model is there, and ends its stream", async () => {
    const own = camera();
    expect(await own.start(Promise.resolve())).toBe(true);
    own.stop();
    expect([streams, ended]).toEqual([1, 1]);
  });

  it("does not start any more if it was stopped while the model was loaded", async () => {
    const own = camera();
    let loaded = (): void => undefined;
    const started = own.start(new Promise((done) => (loaded = done)));
    own.stop(); // a photo was opened meanwhile
    loaded();
    expect(await started).toBe(false);
    expect(streams).toBe(0);
  });
});
