"""How much `picosam2 eval --protocol box` costs above the bare network: at most three times.

    python benchmarks/evaluate.py --annotations instances_val2017.json --images val2017

The evaluation decodes every image and mask, cuts crops, runs the network image by image, pastes,
and measures masks and baselines. The bare network runs on the same crops, in the same batches.
Both run on one thread, alternating, and the best of the rounds counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2.cli._exit_codes import run_script
from picosam2.data.datasets import read_annotations
from picosam2.errors import DataError, ImageError
from picosam2.evaluation.network_facts import machine
from picosam2.evaluation.protocols import true_box
from picosam2.evaluation.run import evaluate
from picosam2.images import load_image
from picosam2.predictor import Predictor

LIMIT = 3.0


def main() -> None:
    """Print both times and their ratio; exit with 1 if it is above `LIMIT`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--count", type=int, help="the first images only")
    options = parser.parse_args()
    predictor = Predictor(options.weights, threads=1)
    annotated = read_annotations("coco", options.annotations, options.images).images[
        : options.count
    ]
    size = predictor.runtime.info.input_size
    batches: list[npt.NDArray[np.uint8]] = []
    for entry in annotated:
        crops = []
        try:
            image = load_image(entry.path)
        except ImageError:
            continue
        for instance in entry.instances:
            try:
                box = true_box(instance.mask())
            except DataError:
                continue
            crops.append(geometry.crop(image, geometry.box_window(box), size))
        if crops:
            batches.append(np.stack(crops))
    predictor.runtime(batches[0])  # to warm up
    whole, bare = [], []
    count = sum(map(len, batches))
    for _ in range(options.rounds):
        started = time.perf_counter()
        for batch in batches:
            predictor.runtime(batch)
        bare.append(time.perf_counter() - started)
        started = time.perf_counter()
        evaluation = evaluate(predictor, annotated, protocol="box")
        whole.append(time.perf_counter() - started)
        assert len(evaluation.measured) == count
    ratio = min(whole) / min(bare)
    where = machine()
    print(f"{count} objects in {len(batches)} images, one thread")
    print(f"{where['processor']}, {where['cores']} cores, {where['system']}")
    print(f"network alone  {min(bare):7.2f} s  {1000 * min(bare) / count:6.2f} ms an object")
    print(f"evaluation     {min(whole):7.2f} s  {1000 * min(whole) / count:6.2f} ms an object")
    print(f"ratio          {ratio:7.2f}  (at most {LIMIT:g})")
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    run_script(main)
