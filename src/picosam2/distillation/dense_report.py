"""What dense teaching gave, to look at.

confidence.png   how many new masks there are by confidence, and on held-out images the IoU with the
                 annotations
masks.png        some new masks, at even distances from the most confident to the least
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry, masks
from picosam2._files import write_bytes
from picosam2.data.contact_sheet import agreement, caption, grid
from picosam2.data.store import SourceFiles
from picosam2.distillation.dense import ConfidenceBin, DenseResult
from picosam2.errors import ImageError, require
from picosam2.images import load_image
from picosam2.prompts import Box
from picosam2.results import encode_image

_TILES, _COLUMNS = 24, 6
_SIDE = 160  # of a tile, pixels
_AROUND = 1.8  # a tile's side over its mask's longer one
_BINS = 22


def write_dense_report(result: DenseResult, out: Path) -> None:
    """Draw what a finished `teach_dense` wrote to `out`; nothing if it has no new mask."""
    if not result.files:
        return
    listed = [(files, _read(files)) for files in result.files]
    scores = [
        (files.annotations.stem, np.array([each["score"] for each in document["annotations"]]))
        for files, document in listed
    ]
    _draw_confidence(scores, result.curve, out / "confidence.png")
    ranked = sorted(
        (
            (annotation["score"], annotation, image, files)
            for files, document in listed
            for annotation, image in _with_images(document)
        ),
        key=lambda each: -each[0],
    )
    places = np.unique(np.linspace(0, len(ranked) - 1, _TILES).round().astype(int))
    tiles = [_tile(*ranked[place][1:]) for place in places.tolist()]
    drawn = [tile for tile in tiles if tile is not None]
    if drawn:
        sheet = grid(np.stack(drawn), _COLUMNS)
        write_bytes(out / "masks.png", encode_image(sheet, "PNG"))


def _read(files: SourceFiles) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(files.annotations.read_text())
    return document


def _with_images(document: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    images = {image["id"]: image for image in document["images"]}
    return [(each, images[each["image_id"]]) for each in document["annotations"]]


def _tile(
    annotation: dict[str, Any], image: dict[str, Any], files: SourceFiles
) -> npt.NDArray[np.uint8] | None:
    """A mask on the part of its image around it; None if the image cannot be read any more."""
    try:
        pixels = load_image(files.images / image["file_name"])
    except ImageError:
        return None
    mask = masks.rle_decode(annotation["segmentation"])
    if mask.shape != pixels.shape[:2]:
        return None
    x0, y0, width, height = annotation["bbox"]
    window = geometry.box_window(
        Box(x0, y0, x0 + width, y0 + height), growth=_AROUND, max_aspect=1.0
    )
    tinted = agreement(pixels, np.zeros_like(mask), mask)
    tile = Image.fromarray(geometry.crop(tinted, window, _SIDE))
    caption(tile, f"{annotation['score']:.2f}")
    return np.asarray(tile)


def _draw_confidence(
    scores: Sequence[tuple[str, npt.NDArray[np.float64]]],
    curve: Sequence[ConfidenceBin],
    out: Path,
) -> None:
    figure = require("matplotlib.figure", "train").Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lowest = min(float(each.min()) for _, each in scores)
    left.hist(
        [each for _, each in scores], np.linspace(lowest, 1, _BINS).tolist(), stacked=True,
        label=[name for name, _ in scores],
    )  # fmt: skip
    left.set(xlabel="confidence", ylabel="new masks", title="What nobody annotated")
    left.legend(loc="upper right")
    right.plot((lowest, 1), (lowest, 1), color="grey", linestyle=":")
    right.plot([part.confidence for part in curve], [part.iou for part in curve], marker="o")
    for part in curve:
        right.annotate(f"{part.count:,}", (part.confidence, part.iou), (4, -12),
                       textcoords="offset points")  # fmt: skip
    right.set(xlabel="confidence", ylabel="IoU with the annotation", ylim=(0, 1),
              title="Masks of annotated objects, held-out images")  # fmt: skip
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_bytes(out, buffer.getvalue())
