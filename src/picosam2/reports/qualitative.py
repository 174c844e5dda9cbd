"""Masks beside the truth: objects chosen by their rank, so that failures are shown too."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from picosam2 import geometry
from picosam2.data.coco import AnnotatedImage
from picosam2.errors import DataError
from picosam2.evaluation.baselines import inscribed_ellipse
from picosam2.evaluation.protocols import true_box
from picosam2.images import load_image
from picosam2.io.sample_image import sample, sample_objects
from picosam2.masks import Mask, iou
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Prompt
from picosam2.results import Segmentation, overlay

RANKS = (("95th percentile", 0.95), ("75th", 0.75), ("median", 0.5), ("25th", 0.25),
         ("5th", 0.05), ("worst", 0.0))  # fmt: skip
"""What is shown: the share of objects that the first network does worse on."""

_TILE, _GAP, _MARGIN = 172, 8, 118  # pixels; the margin is for what stands at the left
_INK, _SOFT = (28, 35, 48), (91, 102, 120)
_TRUTH, _MASK, _GUESS = "#2a9d5c", "#2f6fde", "#d9822b"

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Example:
    """One object: its picture (H, W, 3) uint8, true mask (H, W) bool and each network's mask."""

    name: str
    picture: Picture
    truth: Mask
    found: Mapping[str, Mask]


def at_ranks(ious: Sequence[float]) -> list[tuple[str, int]]:
    """For each of `RANKS` its name and the index of the object there; no object twice."""
    order = np.argsort(np.asarray(ious), kind="stable")
    chosen: dict[int, str] = {}
    for name, share in reversed(RANKS):  # of a few objects, failures are shown first of all
        chosen.setdefault(int(order[round(share * (len(order) - 1))]), name)
    return [(name, index) for index, name in reversed(chosen.items())]


def of_photos(
    items: Sequence[Mapping[str, float]],
    photos: Sequence[AnnotatedImage],
    models: Mapping[str, Predictor],
) -> list[Example]:
    """Examples for the `items` of a result file, segmented again from their true boxes.

    Raises:
        DataError: the items are of other photos.
    """
    known = {one.id: (photo, one) for photo in photos for one in photo.instances}
    examples = []
    for name, index in at_ranks([item["iou"] for item in items]):
        key = int(items[index]["annotation"])
        if key not in known:
            raise DataError(f"annotation {key} is not in these annotations: pass those of `eval`")
        photo, instance = known[key]
        picture, truth = load_image(photo.path), instance.mask()
        examples.append(_example(name, picture, truth, models))
    return examples


def of_sample(models: Mapping[str, Predictor]) -> list[Example]:
    """Examples on the bundled sample picture, by rank of the first network."""
    picture = sample()
    found = [_example(one.name, picture, one.mask, models) for one in sample_objects()]
    first = next(iter(models))
    chosen = at_ranks([iou(example.found[first], example.truth) for example in found])
    return [
        Example(name, picture, found[index].truth, found[index].found) for name, index in chosen
    ]


def _example(name: str, picture: Picture, truth: Mask, models: Mapping[str, Predictor]) -> Example:
    box = true_box(truth)
    size = picture.shape[:2]
    found = {name: model.boxes(picture, [box])[0].mask(*size) for name, model in models.items()}
    return Example(name, picture, truth, found)


def comparison_image(examples: Sequence[Example]) -> bytes:
    """One row an example - photo and prompt, truth, each network, ellipse - as a JPEG."""
    names = list(examples[0].found)
    heads = ["prompt", "truth", *names, "ellipse"]
    width = _MARGIN + len(heads) * (_TILE + _GAP)
    height = 30 + len(examples) * (_TILE + 24 + _GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(14), ImageFont.load_default(12)
    for column, head in enumerate(heads):
        x = _MARGIN + column * (_TILE + _GAP) + _TILE / 2
        draw.text((x, 14), head, _INK, large, anchor="mm")
    for row, example in enumerate(examples):
        y = 30 + row * (_TILE + 24 + _GAP)
        draw.text((4, y + _TILE / 2), example.name, _INK, small, anchor="lm")
        masks: list[tuple[Mask | None, str]] = [(None, _SOFT_HEX), (example.truth, _TRUTH)]
        masks += [(example.found[name], _MASK) for name in names]
        box = true_box(example.truth)
        masks.append((inscribed_ellipse(box, *example.truth.shape), _GUESS))
        for column, (mask, color) in enumerate(masks):
            x = _MARGIN + column * (_TILE + _GAP)
            tile = _tile(example.picture, mask, box, color)
            sheet.paste(tile, (x + (_TILE - tile.width) // 2, y + (_TILE - tile.height) // 2))
            if column >= 2 and mask is not None:
                text = f"IoU {iou(mask, example.truth):.2f}"
                draw.text((x + _TILE / 2, y + _TILE + 11), text, _SOFT, small, anchor="mm")
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=88)
    return stream.getvalue()


_SOFT_HEX = "#ffffff"


def _tile(picture: Picture, mask: Mask | None, box: Box, color: str) -> Image.Image:
    """The object's surroundings with a mask, or with the prompt where there is none."""
    height, width = picture.shape[:2]
    window = geometry.box_window(box, growth=1.5, max_aspect=1.6)
    x0, y0 = max(int(window.x0), 0), max(int(window.y0), 0)
    x1, y1 = min(int(window.x1) + 1, width), min(int(window.y1) + 1, height)
    scale = min(_TILE / (x1 - x0), _TILE / (y1 - y0))
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    shown = np.asarray(
        Image.fromarray(picture[y0:y1, x0:x1]).resize(size, Image.Resampling.BICUBIC)
    )
    corners = [(box.x0 - x0), (box.y0 - y0), (box.x1 - x0), (box.y1 - y0)]
    prompt = Prompt(box=Box(*(value * scale for value in corners)))
    if mask is None:
        empty = np.zeros(shown.shape[:2], np.bool_)
        drawn = Segmentation(mask=empty, score=0.0, prompt=prompt, window=None)
        return overlay(shown, [drawn], colors=[color])
    part = Image.fromarray(mask[y0:y1, x0:x1].astype(np.uint8) * 255)
    enlarged = np.asarray(part.resize(size, Image.Resampling.BILINEAR)) > 127
    # The prompt is drawn in the first picture only: far outside, nothing of it is seen.
    away = Prompt(box=Box(-90.0, -90.0, -80.0, -80.0))
    drawn = Segmentation(mask=enlarged, score=0.0, prompt=away, window=None)
    return overlay(shown, [drawn], colors=[color], alpha=0.45)
