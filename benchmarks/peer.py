"""A peer of the SAM family and our weights in turn: milliseconds of a user's steps, and memory.

    python benchmarks/peer.py --peer onnx:package/dist/encoder.onnx,package/dist/sam.onnx \\
        --images DIR --json times.json

On one thread and on the same images: the first mask of an image by box and by click, each further
box, and each correction by a click. The models take turns, so a slow moment hits all of them. The
memory at the peak is that of a process that does nothing else. `picosam2 report` reads the file.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import taken

from picosam2 import guidance
from picosam2._files import write_json
from picosam2.cli._exit_codes import run_script
from picosam2.errors import require
from picosam2.evaluation.peers import Peer
from picosam2.evaluation.sam import KINDS, open_sam
from picosam2.images import load_image
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt

STEPS = ("first_box_ms", "first_click_ms", "next_box_ms", "correction_ms")


class Weights:
    """Weights of this package."""

    def __init__(self, name: str) -> None:
        self.name, self._predictor = name, Predictor(name, threads=1)
        self.sha256 = self._predictor.runtime.info.weights_sha256

    def steps(self, image: np.ndarray, box: Box, point: Point) -> dict[str, float]:
        """Milliseconds of each step on a new image (H, W, 3) uint8."""
        height, width = image.shape[:2]
        both = (point, Point(point.x / 2, point.y / 2, positive=False))
        times = {"first_box_ms": timed(lambda: self._predictor.boxes(image, [box]))}
        times["next_box_ms"] = timed(lambda: self._predictor.boxes(image, [box]))
        times["first_click_ms"] = timed(
            lambda: self._predictor.candidates(image, [point_of(point)])
        )
        if self._predictor.runtime.info.guidance:
            region = self._predictor.candidates(image, [point_of(point)])[0][0].region
            before = guidance.whole(region, height, width)
            times["correction_ms"] = timed(lambda: self._predictor.correct(image, before, both))
        return times


class Other:
    """A peer: an image is encoded once, so its first mask costs that too."""

    def __init__(self, spec: str) -> None:
        require("torch", "train").set_num_threads(1)
        self.name, self._peer = spec, Peer(open_sam(spec, threads=1))
        self.sha256 = self._peer.weights_sha256

    def steps(self, image: np.ndarray, box: Box, point: Point) -> dict[str, float]:
        """Milliseconds of each step on a new image (H, W, 3) uint8."""
        both = (point, Point(point.x / 2, point.y / 2, positive=False))
        fresh = image.copy()  # another array is another image
        return {
            "first_box_ms": timed(lambda: self._peer.boxes(image, [box])),
            "next_box_ms": timed(lambda: self._peer.boxes(image, [box])),
            "first_click_ms": timed(lambda: self._peer.clicks(fresh, [point])),
            "correction_ms": timed(
                lambda: self._peer.answers(fresh, [Prompt(both)], several=False)
            ),
        }


def point_of(point: Point) -> Prompt:
    """A prompt of one click."""
    return Prompt((point,))


def timed(step: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - started)


def open_model(name: str) -> Weights | Other:
    """Weights by name or file, or a peer by KIND:WHERE."""
    return Other(name) if name.partition(":")[0] in KINDS else Weights(name)


def load(folder: Path, count: int) -> list[np.ndarray]:
    """The first images of a folder, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file())[:count]
    return [load_image(file) for file in files]


def prompts(image: np.ndarray) -> tuple[Box, Point]:
    """A box of half the image's sides in its middle, and the middle."""
    height, width = image.shape[:2]
    return (
        Box(width / 4, height / 4, 3 * width / 4, 3 * height / 4),
        Point(width / 2, height / 2),
    )


def own_peak_mb() -> float:
    """Largest memory of this process so far; `getrusage` on Linux counts its parent, too."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def peak_mb(name: str, images: Path, count: int) -> float:
    """Largest memory of a process that opens one model and takes its steps on every image."""
    words = [sys.executable, __file__, "--memory-of", name, "--images", images, "--count", count]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", help="KIND:WHERE, as for `picosam2 eval`")
    parser.add_argument("--weights", nargs="+", default=["default", "default-int8"])
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=20, help="how many images")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--memory-of", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        model = open_model(options.memory_of)
        for image in load(options.images, options.count):
            model.steps(image, *prompts(image))
        print(own_peak_mb())
        return
    if options.peer is None:
        parser.error("give --peer KIND:WHERE")
    where = taken(("numpy", "onnxruntime", "torch"))
    print(where["processor"], where["cores"], "cores", where["date"], where["versions"])
    models = [open_model(name) for name in (*options.weights, options.peer)]
    images = load(options.images, options.count)
    rounds: dict[str, list[dict[str, float]]] = {model.name: [] for model in models}
    for number, image in enumerate((images[0], *images)):
        for model in models:
            times = model.steps(image, *prompts(image))
            if number:  # the first round warms up
                rounds[model.name].append(times)
    results: dict[str, dict[str, float]] = {}
    for model in models:
        steps = rounds[model.name]
        numbers = {
            step: round(median(each[step] for each in steps), 2)
            for step in STEPS
            if step in steps[0]
        }
        numbers["memory_mb"] = round(peak_mb(model.name, options.images, 3), 1)
        results[model.sha256] = numbers
        print(model.name, *(f"{key} {value:,.1f}" for key, value in numbers.items()), sep="\n  ")
    if options.json:
        kind, _, places = options.peer.partition(":")
        files = ",".join(Path(place).name for place in places.split(","))
        write_json(
            options.json,
            {
                "kind": "times",
                "measured": where["date"],
                "command": f"python benchmarks/peer.py --peer {kind}:{files} "
                f"--images {options.images.name}",
                "machine": {key: where[key] for key in ("processor", "cores", "system")},
                "images": len(images),
                "models": results,
            },
        )


if __name__ == "__main__":
    run_script(main)
