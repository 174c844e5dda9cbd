"""Figures of a run: loss and mIoU (`curves.png`), and validation masks (`validation.png`)."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry
from picosam2._files import write_bytes
from picosam2.data.coco import AnnotatedImage, Instance
from picosam2.data.contact_sheet import caption, grid
from picosam2.errors import PicoSAM2Error, require
from picosam2.evaluation.protocols import true_box
from picosam2.images import load_image
from picosam2.masks import center_point, iou
from picosam2.predictor import Predictor
from picosam2.prompts import Prompt
from picosam2.results import PALETTE, Segmentation, encode_image, overlay

_OBJECTS = 12  # of as many images, in validation.png
_TILE = 192  # pixels a side
_SURROUNDINGS = 1.4  # a tile shows this many times the object's longer side

_LOSS, _BOX, _CLICK = ("#0072b2", "#d55e00", "#009e73")  # of the palette of Okabe and Ito


def draw_curves(metrics: Path, out: Path) -> None:
    """Draw the loss of a run over its samples, and its validation mIoU if it was measured.

    `metrics` is the run's metrics.jsonl; half a line at its end is passed over. Needs matplotlib.
    """
    lines = _lines(metrics)
    losses = [(x["samples"], x["loss"]) for x in lines if "loss" in x]
    measured = [(x["samples"], x["validation"]) for x in lines if "validation" in x]
    columns = 2 if measured else 1
    figure = require("matplotlib.figure", "train").Figure(
        figsize=(5 * columns, 4), layout="constrained"
    )
    panels = figure.subplots(1, columns, squeeze=False)[0]
    panels[0].plot(*_transposed(losses), color=_LOSS, linewidth=1)
    panels[0].set(title="training loss", xlabel="samples", xlim=(0, None), ylim=(0, None))
    if measured:
        for key, color, label in (
            ("box_miou", _BOX, "box"),
            ("click_miou", _CLICK, "click"),
            ("click_best", _CLICK, "click, best candidate"),
        ):
            points = [(samples, scores[key]) for samples, scores in measured if key in scores]
            style = ":" if key == "click_best" else "-"
            panels[1].plot(*_transposed(points), style, color=color, marker=".", label=label)
        panels[1].set(title="validation mIoU, whole images", xlabel="samples")
        panels[1].set(xlim=(0, None), ylim=(0, 1))
        panels[1].legend(loc="lower right")
    for axes in panels:
        axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_bytes(out, buffer.getvalue())


def _lines(metrics: Path) -> list[dict[str, Any]]:
    lines = []
    for text in metrics.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the run was killed while it wrote
            continue
        if isinstance(line, dict) and "samples" in line:
            lines.append(line)
    return lines


def _transposed(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def draw_validation(predictor: Predictor, images: Sequence[AnnotatedImage], out: Path) -> None:
    """Draw the same objects every time: the true mask, the mask from the box, and from the click.

    One object of each of `_OBJECTS` images at most: the largest that is no more than a quarter of
    its image, or else the smallest.
    """
    tiles: list[npt.NDArray[np.uint8]] = []
    chosen = np.linspace(0, len(images) - 1, min(_OBJECTS, len(images))).round().astype(int)
    for annotated in (images[index] for index in chosen):
        try:
            image = load_image(annotated.path)
            mask = _telling(annotated).mask()
        except PicoSAM2Error:  # named by the evaluation that came before
            continue
        if mask.shape == image.shape[:2]:
            tiles += _row(predictor, image, mask)
    if tiles:
        write_bytes(out, encode_image(grid(np.stack(tiles), 6), "PNG"))


def _telling(annotated: AnnotatedImage) -> Instance:
    ordered = sorted(annotated.instances, key=lambda instance: instance.area)
    fitting = [
        instance for instance in ordered if instance.area <= annotated.height * annotated.width / 4
    ]
    return fitting[-1] if fitting else ordered[0]


def _row(
    predictor: Predictor, image: npt.NDArray[np.uint8], truth: npt.NDArray[np.bool_]
) -> list[npt.NDArray[np.uint8]]:
    """Three tiles (T, T, 3) uint8 of one object."""
    box, point = true_box(truth), center_point(truth)
    by_box, by_click = predictor(image, points=[point], boxes=[box])[::-1]
    true = Segmentation(mask=truth, score=1.0, prompt=Prompt(box=box))
    center, half = box.center, max(box.width, box.height) * _SURROUNDINGS / 2
    window = geometry.point_window(center, half)
    tiles = []
    for text, color, segmentation in (
        ("truth", PALETTE[0], true),
        (f"box {iou(by_box.mask, truth):.2f}", PALETTE[1], by_box),
        (f"click {iou(by_click.mask, truth):.2f}", PALETTE[2], by_click),
    ):
        drawn = np.asarray(overlay(image, [segmentation], colors=[color]))
        tile = Image.fromarray(geometry.crop(drawn, window, _TILE))
        caption(tile, text)
        tiles.append(np.asarray(tile))
    return tiles
