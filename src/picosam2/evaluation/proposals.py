"""How many of an image's objects are among the first 100 masks of everything mode: AR@100.

Average recall (Hosang et al., "What makes for effective detection proposals?", 2016) as COCO
measures it, through COCOeval and without classes: the share of objects that a mask meets, averaged
over IoU thresholds .50:.05:.95. Masks are ranked by their predicted IoU. Beside it stand a grid of
boxes that looks at no pixel, and the same boxes as prompts.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem
from picosam2.errors import require
from picosam2.evaluation.baselines import filled_box
from picosam2.evaluation.loading import load_images
from picosam2.predictor import Predictor
from picosam2.prompts import Box
from picosam2.runtimes.finder import BoxFinder
from picosam2.tasks.everything import Everything, everything

GRID_LEVELS = 6
"""The grid of boxes has 1, 4, 9, ... boxes; with six levels 91, as many as fit into 100."""

MAX_MASKS = (1, 10, 100)

NEAR = 0.8
"""Two masks of a higher IoU are near-duplicates."""

_SIZES = ("all", "small", "medium", "large")

RgbImage = npt.NDArray[np.uint8]
Ranked = list[tuple[dict[str, Any], float]]
"""Masks as RLE and their scores, in any order."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Average recall of one method."""

    at: dict[int, float]
    """By the number of masks an image."""
    by_size: dict[str, float | None]
    """AR@100 of small, medium and large objects, in COCO's sense; None if there are none."""
    masks_per_image: float
    seconds_per_image: float
    """Of processor time, on all threads together: other programs on the machine do not count."""
    near_duplicates: float
    """Share of the masks whose IoU with a better one of the same image is above `NEAR`."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            **{f"ar@{count}": value for count, value in self.at.items()},
            "by_size": dict(self.by_size),
            "masks_per_photo": self.masks_per_image,
            "seconds_per_photo": self.seconds_per_image,
            "near_duplicates": self.near_duplicates,
        }


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """The recall of every method; `to_json` gives the result file of `picosam2 proposals`."""

    objects: int
    images: int
    weights_sha256: str
    settings: Everything
    methods: dict[str, Recall]
    problems: tuple[EntryProblem, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "kind": "proposals",
            "n": self.objects,
            "photos": self.images,
            "weights_sha256": self.weights_sha256,
            "settings": vars(self.settings),
            "methods": {name: recall.to_json() for name, recall in self.methods.items()},
            "problems": [f"{problem.where}: {problem.what}" for problem in self.problems],
        }


def measure(
    predictor: Predictor,
    images: Iterable[AnnotatedImage],
    settings: Everything | None = None,
    *,
    limit: int | None = None,
    finder: BoxFinder | None = None,
    beside: Everything | None = None,
    progress: Progress | None = None,
) -> Proposals:
    """Everything mode and both grids of boxes on the objects of `images`.

    Args:
        predictor: what is measured.
        images: images with their objects; those without an object are passed over.
        settings: of everything mode.
        limit: take the first images only.
        finder: what finds boxes, where the settings' method is the finder.
        beside: other settings of everything mode, measured on the same images.
        progress: receives the number of measured images.

    Raises:
        DataError: there was nothing to measure.
        MissingExtraError: pycocotools is not installed.
    """
    require("pycocotools.cocoeval", "train")
    chosen = settings or Everything()
    methods: dict[str, Callable[[RgbImage], Ranked]] = {
        "everything": lambda image: _everything(image, predictor, chosen, finder),
        "grid of boxes": _grid,
        "grid of boxes as prompts": lambda image: _prompted_grid(image, predictor),
    }
    if beside is not None:
        name = f"everything by {beside.method}"
        methods[name] = lambda image: _everything(image, predictor, beside, finder)
    ranked: dict[str, list[Ranked]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    truths: list[list[dict[str, Any]]] = []
    problems: list[EntryProblem] = []
    listed = tuple(images)
    count = len(listed) if limit is None else limit
    for loaded in load_images(listed, problems, max_images=count, progress=progress):
        truths.append(
            [
                {"rle": masks.rle_encode(mask), "area": instance.area}
                for instance, mask in zip(loaded.instances, loaded.masks, strict=True)
            ]
        )
        for name, method in methods.items():
            started = time.process_time()
            ranked[name].append(method(loaded.pixels))
            seconds[name] += time.process_time() - started
    return Proposals(
        objects=sum(map(len, truths)),
        images=len(truths),
        weights_sha256=predictor.runtime.info.weights_sha256,
        settings=chosen,
        methods={
            name: average_recall(truths, proposals, seconds[name] / len(truths))
            for name, proposals in ranked.items()
        },
        problems=tuple(problems),
    )


def average_recall(
    truths: Sequence[Sequence[dict[str, Any]]],
    ranked: Sequence[Ranked],
    seconds_per_image: float = 0.0,
) -> Recall:
    """Average recall over images, as COCOeval of pycocotools computes it with `useCats` off.

    `truths` are the objects of each image, one or more, as {"rle", "area"}.
    """
    evaluated = _cocoeval(truths, ranked)
    recall = evaluated.eval["recall"]  # (thresholds, classes, sizes, numbers of masks)

    def mean(size: int, count: int) -> float | None:
        values = recall[:, :, size, count]
        values = values[values > -1]
        return float(values.mean()) if values.size else None

    return Recall(
        at={count: mean(0, index) or 0.0 for index, count in enumerate(MAX_MASKS)},
        by_size={name: mean(i, len(MAX_MASKS) - 1) for i, name in enumerate(_SIZES) if i},
        masks_per_image=float(np.mean([len(proposals) for proposals in ranked])),
        seconds_per_image=seconds_per_image,
        near_duplicates=near_duplicates(ranked),
    )


def near_duplicates(ranked: Sequence[Ranked]) -> float:
    """The share of the masks whose IoU with a better one of the same image is above `NEAR`."""
    coco_masks = require("pycocotools.mask", "train")
    alike = count = 0
    for entries in ranked:
        rles = [rle for rle, _ in sorted(entries, key=lambda entry: -entry[1])]
        count += len(rles)
        if len(rles) > 1:
            ious = np.tril(coco_masks.iou(rles, rles, [0] * len(rles)), -1)
            alike += int((ious > NEAR).any(1).sum())
    return alike / max(count, 1)


def _cocoeval(truths: Sequence[Sequence[dict[str, Any]]], ranked: Sequence[Ranked]) -> Any:
    coco = require("pycocotools.coco", "train").COCO
    sizes = [some[0]["rle"]["size"] for some in truths]
    images = [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes, 1)]
    objects = [(number, each) for number, some in enumerate(truths, 1) for each in some]
    answers = [(number, each) for number, some in enumerate(ranked, 1) for each in some]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        truth, answer = coco(), coco()
        truth.dataset = {
            "images": images,
            "categories": [{"id": 1, "name": "object"}],
            "annotations": [
                _entry(i, number, each["rle"], each["area"])
                for i, (number, each) in enumerate(objects, 1)
            ],
        }
        answer.dataset = {
            "images": images,
            "categories": truth.dataset["categories"],
            "annotations": [
                _entry(i, number, rle, masks.area(masks.rle_decode(rle))) | {"score": score}
                for i, (number, (rle, score)) in enumerate(answers, 1)
            ],
        }
        truth.createIndex()
        answer.createIndex()
        evaluated = require("pycocotools.cocoeval", "train").COCOeval(truth, answer, "segm")
        evaluated.params.useCats = 0
        evaluated.params.maxDets = list(MAX_MASKS)
        evaluated.evaluate()
        evaluated.accumulate()
    return evaluated


def _entry(number: int, image: int, rle: dict[str, Any], area: float) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "area": float(area),
        "segmentation": rle,
    }


def grid_of_boxes(height: int, width: int) -> list[Box]:
    """Boxes over an image, coarse to fine: on level n, n x n of them, 1.5 / n of its sides long."""
    boxes = []
    for level in range(1, GRID_LEVELS + 1):
        half_w, half_h = 0.75 * width / level, 0.75 * height / level
        middles = (np.arange(level) + 0.5) / level
        for y in (middles * height).tolist():
            for x in (middles * width).tolist():
                boxes.append(
                    Box(
                        max(x - half_w, 0),
                        max(y - half_h, 0),
                        min(x + half_w, width),
                        min(y + half_h, height),
                    )
                )
    return boxes


def _everything(
    image: RgbImage, predictor: Predictor, settings: Everything, finder: BoxFinder | None
) -> Ranked:
    results = everything(image, predictor, settings, finder=finder)
    return [(result.rle(), result.score) for result in results]


def _grid(image: RgbImage) -> Ranked:
    height, width = image.shape[:2]
    boxes = grid_of_boxes(height, width)
    return [
        (masks.rle_encode(filled_box(box, height, width)), 1 / (rank + 1))
        for rank, box in enumerate(boxes)
    ]


def _prompted_grid(image: RgbImage, predictor: Predictor) -> Ranked:
    height, width = image.shape[:2]
    candidates = predictor.boxes(image, grid_of_boxes(height, width))
    return [
        (masks.rle_encode(candidate.mask(height, width)), candidate.score)
        for candidate in candidates
    ]
