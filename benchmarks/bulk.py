"""Images a second of a folder run: one thread, threads that share a network, threads inside it.

    python benchmarks/bulk.py --weights default --images 40

Every way segments the same images (the sample at several sizes, as JPEG files) with the same
eight boxes, in rounds that take turns; the best round counts. "threads x 1" is what
`picosam2 segment FOLDER` does: as many threads as cores, each inference on one of them.
"processes x 1" has a network for each process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from picosam2 import Predictor, load_image, sample
from picosam2.cli._exit_codes import run_script
from picosam2.prompts import Box

_PREDICTORS: dict[str, Predictor] = {}


def segment(path: Path, weights: str, predictor: Predictor | None = None) -> int:
    """The masks' pixels of one image; without a predictor, with this process's own."""
    if predictor is None:
        if weights not in _PREDICTORS:
            _PREDICTORS[weights] = Predictor(weights, threads=1)
        predictor = _PREDICTORS[weights]
    image = load_image(path)
    height, width = image.shape[:2]
    corners = np.random.default_rng(0).uniform(0, 0.5, (8, 2))
    boxes = [
        Box(x * width, y * height, (x + 0.4) * width, (y + 0.4) * height)
        for x, y in corners.tolist()
    ]
    return sum(segmentation.area for segmentation in predictor(image, boxes=boxes))


def main() -> None:
    """Make the images, and run them each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores, weights = os.cpu_count() or 1, options.weights
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in range(options.images):
            path = Path(folder) / f"{number:04}.jpg"
            image = Image.fromarray(sample())
            scale = (1, 1.5, 2)[number % 3]
            image.resize((int(640 * scale), int(480 * scale))).save(path, quality=90)
            files.append(path)
        single, all_inside = Predictor(weights, threads=1), Predictor(weights, threads=cores)
        segment(files[0], weights, single)
        segment(files[0], weights, all_inside)
        with ThreadPoolExecutor(cores) as pool, ProcessPoolExecutor(cores) as processes:
            list(processes.map(segment, files[:cores], [weights] * cores))
            ways: dict[str, Callable[[], Iterable[int]]] = {
                "one thread": lambda: (segment(p, weights, single) for p in files),
                f"one, network on {cores} threads": lambda: (
                    segment(p, weights, all_inside) for p in files
                ),
                f"{cores} threads x 1": lambda: pool.map(
                    lambda p: segment(p, weights, single), files
                ),
                f"{cores} processes x 1": lambda: processes.map(
                    segment, files, [weights] * len(files)
                ),
            }
            best = dict.fromkeys(ways, 0.0)
            for _ in range(options.rounds):
                for name, work in ways.items():
                    started = time.perf_counter()
                    list(work())
                    rate = len(files) / (time.perf_counter() - started)
                    best[name] = max(best[name], rate)
    for name, rate in best.items():
        print(f"{name:28} {rate:6.2f} images/s")


if __name__ == "__main__":
    run_script(main)
