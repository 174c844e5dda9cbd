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
"""The examples shown: the share of objects that the first network does worse on."""

_TILE, _GAP, _MARGIN = 172, 8, 118  # pixels; the margin is for what stands at the left
_INK, _SOFT = (28, 35, 48), (91, 102, 120)
_TRUTH, _MASK, _GUESS = "#2a9d5c", "#2f6fde", "#d9822b"

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Example:
    """One object: its image (H, W, 3) uint8, true mask (H, W) bool and each network's mask."""

    name: str
    image: ImageArray
    truth: Mask
    masks: Mapping[str, Mask]


def at_ranks(ious: Sequence[float]) -> list[tuple[str, int]]:
    """For each of `RANKS` its name and the index of the object there; no object twice."""
    order = np.argsort(np.asarray(ious), kind="stable")
    chosen: dict[int, str] = {}
    for name, share in reversed(RANKS):  # of a few objects, failures are shown first of all
        chosen.setdefault(int(order[round(share * (len(order) - 1))]), name)
    return [(name, index) for index, name in reversed(chosen.items())]


def of_images(
    items: Sequence[Mapping[str, float]],
    images: Sequence[AnnotatedImage],
    models: Mapping[str, Predictor],
) -> list[Example]:
    """Examples for the `items` of a result file, segmented again from their true boxes.

    Raises:
        DataError: the items are of other images.
    """
    known = {
        instance.id: (annotated, instance)
        for annotated in images
        for instance in annotated.instances
    }
    examples = []
    for name, index in at_ranks([item["iou"] for item in items]):
        key = int(items[index]["annotation"])
        if key not in known:
            raise DataError(f"annotation {key} is not in these annotations: pass those of `eval`")
        annotated, instance = known[key]
        image, truth = load_image(annotated.path), instance.mask()
        examples.append(_example(name, image, truth, models))
    return examples


def of_sample(models: Mapping[str, Predictor]) -> list[Example]:
    """Examples on the bundled sample image, by rank of the first network."""
    image = sample()
    examples = [_example(known.name, image, known.mask, models) for known in sample_objects()]
    first = next(iter(models))
    chosen = at_ranks([iou(example.masks[first], example.truth) for example in examples])
    return [
        Example(name, image, examples[index].truth, examples[index].masks) for name, index in chosen
    ]


def _example(name: str, image: ImageArray, truth: Mask, models: Mapping[str, Predictor]) -> Example:
    box = true_box(truth)
    size = image.shape[:2]
    masks = {name: model.boxes(image, [box])[0].mask(*size) for name, model in models.items()}
    return Example(name, image, truth, masks)


def comparison_image(examples: Sequence[Example]) -> bytes:
    """One row an example - image and prompt, truth, each network, ellipse - as a JPEG."""
    names = list(examples[0].masks)
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
        masks += [(example.masks[name], _MASK) for name in names]
        box = true_box(example.truth)
        masks.append((inscribed_ellipse(box, *example.truth.shape), _GUESS))
        for column, (mask, color) in enumerate(masks):
            x = _MARGIN + column * (_TILE + _GAP)
            tile = _tile(example.image, mask, box, color)
            sheet.paste(tile, (x + (_TILE - tile.width) // 2, y + (_TILE - tile.height) // 2))
            if column >= 2 and mask is not None:
                text = f"IoU {iou(mask, example.truth):.2f}"
                draw.text((x + _TILE / 2, y + _TILE + 11), text, _SOFT, small, anchor="mm")
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=88)
    return stream.getvalue()


_SOFT_HEX = "#ffffff"


def _tile(image: ImageArray, mask: Mask | None, box: Box, color: str) -> Image.Image:
    """The object's surroundings with a mask, or with the prompt where there is none."""
    height, width = image.shape[:2]
    window = geometry.box_window(box, growth=1.5, max_aspect=1.6)
    x0, y0 = max(int(window.x0), 0), max(int(window.y0), 0)
    x1, y1 = min(int(window.x1) + 1, width), min(int(window.y1) + 1, height)
    scale = min(_TILE / (x1 - x0), _TILE / (y1 - y0))
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    shown = np.asarray(Image.fromarray(image[y0:y1, x0:x1]).resize(size, Image.Resampling.BICUBIC))
    corners = [(box.x0 - x0), (box.y0 - y0), (box.x1 - x0), (box.y1 - y0)]
    prompt = Prompt(box=Box(*(value * scale for value in corners)))
    if mask is None:
        empty = np.zeros(shown.shape[:2], np.bool_)
        drawn = Segmentation(mask=empty, score=0.0, prompt=prompt, window=None)
        return overlay(shown, [drawn], colors=[color])
    part = Image.fromarray(mask[y0:y1, x0:x1].astype(np.uint8) * 255)
    enlarged = np.asarray(part.resize(size, Image.Resampling.BILINEAR)) > 127
    # The prompt is drawn in the first tile only: far outside, nothing of it is seen.
    away = Prompt(box=Box(-90.0, -90.0, -80.0, -80.0))
    drawn = Segmentation(mask=enlarged, score=0.0, prompt=away, window=None)
    return overlay(shown, [drawn], colors=[color], alpha=0.45)
