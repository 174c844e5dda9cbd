"""Choose the settings of the baselines on training images: the disc's radius, flood's tolerance.

    python benchmarks/baseline_settings.py --annotations instances_train2017.json --images train2017

The best of each goes into `picosam2.evaluation.baselines`, so that baselines are not tuned on what
they are measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from picosam2 import masks
from picosam2.cli._exit_codes import run_script
from picosam2.data.datasets import read_annotations
from picosam2.errors import DataError, ImageError
from picosam2.evaluation import baselines
from picosam2.images import load_image

RADII = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
TOLERANCES = (8, 12, 16, 24, 32, 40, 48, 64, 80)


def main() -> None:
    """Print the mIoU of every setting and name the best."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="how many images to look at")
    options = parser.parse_args()
    discs: list[list[float]] = []
    floods: list[list[float]] = []
    images = read_annotations("coco", options.annotations, options.images).images
    for annotated in images[: options.count]:
        try:
            image = load_image(annotated.path)
        except ImageError:
            continue
        for instance in annotated.instances:
            try:
                truth = instance.mask()
            except DataError:
                continue
            point = masks.center_point(truth)
            discs.append(
                [masks.iou(baselines.disc(point, *truth.shape, radius), truth) for radius in RADII]
            )
            if len(discs) % 4 == 0:  # flood fill is slow, and a quarter of the objects is enough
                floods.append(
                    [masks.iou(baselines.flood(image, point, t), truth) for t in TOLERANCES]
                )
    for name, settings, table in (
        ("disc radius / long side", RADII, discs),
        ("flood tolerance", TOLERANCES, floods),
    ):
        means = np.mean(table, axis=0)
        print(f"{name} ({len(table)} objects)")
        for setting, mean in zip(settings, means, strict=True):
            best = "  <- best" if mean == means.max() else ""
            print(f"  {setting:6g}  mIoU {mean:.4f}{best}")


if __name__ == "__main__":
    run_script(main)
