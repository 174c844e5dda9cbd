"""Tracking: frames a second on a 640x480 clip, without decoding and encoding, and how well.

    python benchmarks/track.py --weights default --threads 2

The clip is made here, so its truth is known: an object of the sample image crosses a table, grows
and shrinks, and leaves; from then on each frame must be lost. In a second clip it leaves and comes
back elsewhere, larger or smaller, among all the other objects of the sample image.

"tracking" is `Tracker.update` alone; the real-time factor is its frames a second over the clip's
30. On a machine that does other work, too, look at the processor's time with `--threads 1`: what
one core needs when it is free.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the clip is the tests' own

from picosam2 import Predictor
from picosam2.cli._exit_codes import run_script
from picosam2.io.video_files import VideoWriter, open_frames
from picosam2.masks import iou
from picosam2.tasks.tracking import Tracked, Tracker
from picosam2.tasks.tracking_outputs import draw
from tests.helpers.clip import Clip, Pose, journey, make_clip

RATE = 30.0
GONE = 20
AWAY, BACK = 3, 4
"""Frames of the second clip without the object, and with it, in turn."""
COMEBACKS = (
    Pose(560, 300), Pose(90, 330, 0.8), Pose(330, 410, 1.2), Pose(520, 60, 0.8), Pose(300, 80),
    Pose(200, 250, 1.2),
)  # fmt: skip
LYING = {
    "potted plant": (140, 150), "bottle": (420, 150), "blue book": (470, 400),
    "red book": (540, 200), "mug": (70, 420), "apple": (330, 300), "banana": (210, 420),
    "tennis ball": (260, 180),
}  # fmt: skip


def follow(
    clip: Clip, frames: list[np.ndarray], predictor: Predictor
) -> tuple[list[Tracked], list[tuple[float, float]]]:
    """What was found in each frame, and the seconds that each update took (wall, processor)."""
    tracker = Tracker(predictor)
    results, seconds = tracker.start(frames[0], boxes=[clip.box(0)]), []
    for frame in frames[1:]:
        started, busy = time.perf_counter(), time.process_time()
        results += tracker.update(frame)
        seconds.append((time.perf_counter() - started, time.process_time() - busy))
    return results, seconds


def comebacks(name: str) -> tuple[Clip, np.ndarray]:
    """A clip in which an object leaves and comes back; each frame's comeback by number, or -1."""
    poses, numbers = [Pose(450, 300)] * BACK, [-1] * BACK
    for number, pose in enumerate(COMEBACKS):
        poses += [Pose(2000, 2000)] * AWAY + [pose] * BACK
        numbers += [-1] * AWAY + [number] * BACK
    others = {other: place for other, place in LYING.items() if other != name}
    return make_clip(name, poses, lying=others), np.array(numbers)


def found_again(predictor: Predictor, names: list[str]) -> dict[str, Any]:
    """How often an object that was away is followed again, and how often another thing is."""
    again, frames, wrong, away = 0, 0, 0, 0
    for name in names:
        clip, numbers = comebacks(name)
        tracker = Tracker(predictor)
        results = tracker.start(clip.frames[0], boxes=[clip.box(0)])
        for frame in clip.frames[1:]:
            results += tracker.update(frame)
        overlaps = np.array(
            [iou(each.mask, truth) for each, truth in zip(results, clip.masks, strict=True)]
        )
        followed = np.array([each.found for each in results])
        hidden = ~clip.masks.any((1, 2))
        wrong += int((followed & (hidden | (overlaps < 0.5))).sum())
        away += int((followed & hidden).sum())
        for number in range(len(COMEBACKS)):
            right = followed[numbers == number] & (overlaps[numbers == number] >= 0.5)
            again += int(right.any())
            frames += int(right.sum())
    count = len(names) * len(COMEBACKS)
    return {
        "comebacks": count,
        "found_again": again,
        "frames_found_again": frames / (count * BACK),
        "wrong_frames": wrong,
        "found_while_away": away,
    }


def main() -> None:
    """Make the clips, write, read and follow them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--objects", nargs="+", default=["apple", "mug", "banana", "tennis ball"])
    parser.add_argument("--only-comebacks", action="store_true", help="the second clip alone")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    options = parser.parse_args()
    predictor = Predictor(options.weights, threads=options.threads)
    comeback = found_again(predictor, options.objects)
    if options.only_comebacks:
        print(json.dumps(comeback))
        return
    parts: dict[str, list[float]] = {"encode": [], "decode": [], "draw": []}
    updates: list[tuple[float, float]] = []
    overlaps, false_found, seen_found = [], 0, []
    for name in options.objects:
        poses = journey(options.frames) + [Pose(2000, 2000)] * GONE
        clip = make_clip(name, poses, lying={"blue book": (500, 90), "bottle": (330, 160)})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            started = time.perf_counter()
            with VideoWriter(path, RATE) as writer:
                for index, frame in enumerate(clip.frames):
                    writer.write(frame, index / RATE)
            parts["encode"].append((time.perf_counter() - started) / len(poses))
            started = time.perf_counter()
            with open_frames(path) as source:
                frames = [frame.pixels for frame in source]
            parts["decode"].append((time.perf_counter() - started) / len(poses))
        results, seconds = follow(clip, frames, predictor)
        updates += seconds[: options.frames - 1]
        started = time.perf_counter()
        for frame, result in zip(frames[::10], results[::10], strict=True):
            draw(frame, [result])
        parts["draw"].append((time.perf_counter() - started) / len(frames[::10]))
        for result, truth, share in zip(results, clip.masks, clip.share, strict=True):
            if share > 0.5:
                overlaps.append(iou(result.mask, truth))
                seen_found.append(result.found)
        false_found += sum(result.found for result in results[-GONE:])
    track, busy = np.array(updates).T
    report = {
        "weights_sha256": predictor.runtime.info.weights_sha256,
        "threads": options.threads,
        "frames": len(track),
        "track_ms_mean": 1e3 * float(track.mean()),
        "track_ms_p95": 1e3 * float(np.quantile(track, 0.95)),
        "track_cpu_ms_mean": 1e3 * float(busy.mean()),
        "track_fps": 1 / float(track.mean()),
        "real_time_factor": 1 / float(track.mean()) / RATE,
        **{f"{k}_ms": 1e3 * float(np.mean(parts[k])) for k in ("decode", "encode", "draw")},
        "mean_iou": float(np.mean(overlaps)),
        "found_share": float(np.mean(seen_found)),
        "false_found": false_found,
        "frames_after_leaving": GONE * len(options.objects),
        **comeback,
    }
    if options.json:
        print(json.dumps(report))
        return
    print(
        f"tracking {report['track_ms_mean']:.1f} ms a frame (95 %: {report['track_ms_p95']:.1f}; "
        f"of the processor: {report['track_cpu_ms_mean']:.1f}), "
        f"{report['track_fps']:.0f} frames/s, {report['real_time_factor']:.1f} x real time; "
        f"decode {report['decode_ms']:.1f} ms, encode {report['encode_ms']:.1f} ms, "
        f"draw {report['draw_ms']:.1f} ms\n"
        f"mean IoU {report['mean_iou']:.3f} where more than half is in sight, found in "
        f"{report['found_share']:.1%}; found after leaving: {false_found} of "
        f"{report['frames_after_leaving']} frames\n"
        f"found again: {comeback['found_again']} of {comeback['comebacks']} times, in "
        f"{comeback['frames_found_again']:.1%} of the frames; another thing in its place in "
        f"{comeback['wrong_frames']} frames, in {comeback['found_while_away']} of them while it "
        "was away"
    )


if __name__ == "__main__":
    run_script(main)
