"""What the published windows cost at the image's border, for networks that see 96 pixels or more.

    python tools/studies/published_windows.py --weights paper default-int8 \
        --coco instances_val2017.json val2017 --lvis lvis_val.json val2017

`paper-point` repeats the windows of the paper's data set: where 96 pixels around the click leave
the image, the window is moved back or cut off and stretched, so that the click is no longer its
center. Each network answers every object through that window and through the padded one of
prediction; IoU is measured on the published window's 96 x 96 pixels both times. Objects whose
padded window leaves the image are counted apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from picosam2 import Predictor, geometry, load_image, masks
from picosam2.cli._exit_codes import run_script
from picosam2.data.coco import AnnotatedImage
from picosam2.data.datasets import read_annotations
from picosam2.evaluation.protocols import Item, make_item
from picosam2.geometry import CROP_SIZE, Window
from picosam2.predictor import CLICK_CHANNEL


def windows(item: Item) -> tuple[Window, Window]:
    """The published window of an item, and the padded one around its click."""
    assert item.window is not None, "paper-point prescribes one"
    return item.window, geometry.point_window(item.point, CROP_SIZE / 2)


def at_border(item: Item) -> bool:
    """Whether the padded window leaves the image."""
    height, width = item.mask.shape
    padded = windows(item)[1]
    return padded.x0 < 0 or padded.y0 < 0 or padded.x1 > width or padded.y1 > height


def measure(
    predictor: Predictor, images: Sequence[AnnotatedImage]
) -> Iterator[tuple[bool, float, float]]:
    """For each object: whether it is at the border, and the IoU through both windows."""
    for annotated in images:
        image = load_image(annotated.path)
        for instance in annotated.instances:
            item = make_item("paper-point", instance.mask(), seed=instance.id)
            pair = windows(item)
            truth = geometry.crop_mask(item.mask, pair[0]) > 0.5
            if not truth.any():
                continue
            answers = predictor.window_logits(image, pair, CLICK_CHANNEL)
            ious = [
                masks.iou(on_window(answer, window, pair[0], item), truth)
                for answer, window in zip(answers, pair, strict=True)
            ]
            yield at_border(item), ious[0], ious[1]


def on_window(
    logits: npt.NDArray[np.float32], seen: Window, published: Window, item: Item
) -> masks.Mask:
    """The mask of logits of the window `seen`, on the pixels of the published one."""
    height, width = item.mask.shape
    mask = geometry.paste_region(logits, seen, height, width).on_image(height, width)
    covered: masks.Mask = geometry.crop_mask(mask, published) > 0.5
    return covered


def cells(measured: Sequence[tuple[bool, float, float]]) -> list[str]:
    """How many objects are at the border, and mean IoU of all, of those inside and of those there,
    through the published window and through the padded one; a dash where there are none."""
    border = [entry[0] for entry in measured]
    parts = [
        [entry for entry, at in zip(measured, border, strict=True) if at in wanted]
        for wanted in ((False, True), (False,), (True,))
    ]
    means = [
        f"{100 * sum(entry[way] for entry in part) / len(part):.1f}" if part else "-"
        for way in (1, 2)
        for part in parts
    ]
    return [f"{sum(border)} of {len(measured)}", *means]


def main() -> None:
    """Print one row for each network and data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", nargs="+", default=["paper", "default-int8"])
    parser.add_argument("--threads", type=int)
    for name in ("coco", "lvis"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, required=True, metavar=("FILE", "DIR"))
    options = parser.parse_args()
    print("| weights | data | objects at the border | published: all | inside | at the border | "
          "padded: all | inside | at the border |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for weights in options.weights:
        predictor = Predictor(weights, threads=options.threads)
        for dataset in ("coco", "lvis"):
            images = read_annotations(dataset, *getattr(options, dataset)).images
            row = (f"`{weights}`", dataset.upper(), *cells(list(measure(predictor, images))))
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run_script(main)
