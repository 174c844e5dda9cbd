"""The masks that a teacher is sure of in one image, whether anybody annotated them or not.

A finder proposes boxes, and the teacher answers each in the image and in its mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2.data.detections import Detections, ImageKey
from picosam2.distillation.protocol import Target, Teacher, TeacherAnswer
from picosam2.errors import ConfigError
from picosam2.geometry import Window
from picosam2.masks import Region
from picosam2.masks.ops import iou_of_areas
from picosam2.prompts import Box
from picosam2.runtimes.finder import BoxFinder
from picosam2.tasks.finder import FoundBoxes, combined, find_boxes

_SAME_PLACE = 0.01  # image pixels: windows whose corners are nearer are taken to be equal


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Which masks are looked for and kept. `ConfigError` if a value is impossible."""

    boxes: int = 48
    """So many boxes of the finder are looked at in an image, the best ones."""
    parts_from: float = 1.5
    """Where the image's long side is at least so many times the finder's view, the finder looks at
    parts of the image, too, in which small objects are larger."""
    confidence: float = 0.45
    """Masks of a lower confidence are left out, 0..1; see `DenseMask`."""
    agreement: float = 0.8
    """... and those whose IoU with the mask in the mirror image is lower, 0..1."""
    overlap: float = 0.7
    """Of masks with a higher IoU only the most confident is kept."""
    known: float = 0.5
    """Masks with a higher IoU with an annotated one are left out: the annotation is the truth."""
    inside: float = 0.8
    """A mask is a part of an object if this share of it lies in a larger mask."""
    least_area: int = 64
    """Masks of fewer pixels are left out ..."""
    largest_share: float = 0.95
    """... and those of a larger share of the image: they point at nothing."""
    images_per_part: int = 32
    """Images in a part: so much is lost at most when a run is killed."""

    def __post_init__(self) -> None:
        for name in ("confidence", "agreement", "overlap", "known", "inside", "largest_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be from 0 to 1, not {getattr(self, name):g}")
        if not self.parts_from > 0:
            raise ConfigError(f"`parts_from` must be above 0, not {self.parts_from:g}")
        for name in ("boxes", "least_area", "images_per_part"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class DenseMask:
    """A mask that the teacher is sure of."""

    region: Region
    """The mask on its part of the image."""
    confidence: float
    """0..1: how good the mask is if its box holds an object (the teacher's predicted IoU), times
    the square root of the finder's objectness, which says whether it does."""
    agreement: float
    """IoU of the masks in the image and in its mirror image, 0..1."""
    known: float
    """The highest IoU with an annotated mask, 0..1."""


def propose(
    image: npt.NDArray[np.uint8], finder: BoxFinder | Detections, key: ImageKey, config: DenseConfig
) -> FoundBoxes:
    """The boxes at which a teacher looks in an image (H, W, 3) RGB uint8.

    `finder` finds them, or has another detector's for the image of this `key`.
    """
    if isinstance(finder, Detections):
        detected = finder.of_image(key)[: config.boxes]
        return FoundBoxes(detected[:, :4], detected[:, 4])
    parts = max(image.shape[:2]) >= config.parts_from * finder.input_size
    return find_boxes(image, finder, most=config.boxes, parts=parts)


def dense_masks(
    image: npt.NDArray[np.uint8],
    teacher: Teacher,
    proposed: FoundBoxes,
    config: DenseConfig,
    known: Sequence[Region] = (),
) -> list[DenseMask]:
    """What a teacher sees in an image (H, W, 3) RGB uint8, the most confident first.

    The teacher is shown the image once and its mirror image once, each with all the boxes of
    `proposed` that may have a mask that is confident enough. `known` are
    the masks that are annotated already; they are only compared. Answers with a number that is not
    finite are left out.
    """
    height, width = image.shape[:2]
    proposed = proposed.promising(config.confidence)
    corners = proposed.boxes.astype(float)
    mirrored = corners[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
    answers = teacher(image, _targets(corners))
    mirrors = teacher(np.ascontiguousarray(image[:, ::-1]), _targets(mirrored))
    candidates: list[DenseMask] = []
    for answer, mirror, objectness in zip(
        answers, mirrors, proposed.objectness.tolist(), strict=True
    ):
        mean = _mean(answer, mirror, height, width)
        if mean is None:
            continue
        region, agreement, predicted = mean
        confidence = combined(objectness, predicted)
        if confidence < config.confidence or agreement < config.agreement:
            continue
        if config.least_area <= region.area <= config.largest_share * height * width:
            best = max((_iou(region, other) for other in known), default=0.0)
            candidates.append(DenseMask(region, confidence, agreement, best))
    candidates.sort(key=lambda mask: -mask.confidence)
    kept: list[DenseMask] = []
    for mask in candidates:
        if not any(_iou(mask.region, other.region) > config.overlap for other in kept):
            kept.append(mask)
    return kept


def _targets(corners: npt.NDArray[np.float64]) -> list[Target]:
    boxes = [Box(*box) for box in corners.tolist()]
    return [Target(box=box, point=box.center) for box in boxes]


def _mean(
    answer: TeacherAnswer, mirror: TeacherAnswer, height: int, width: int
) -> tuple[Region, float, float] | None:
    """The mask of the mean of two answers, the IoU of their masks, and their predicted IoU.

    None for an empty mask, and where a number is not finite.
    """
    predicted = (answer.predicted_iou + mirror.predicted_iou) / 2
    numbers = (answer.logits, mirror.logits)
    if not (math.isfinite(predicted) and all(np.isfinite(each).all() for each in numbers)):
        return None
    turned = _turned_back(mirror, answer, width)
    mean = (answer.logits + turned) * np.float32(0.5)
    region = geometry.paste_region(mean, answer.window, height, width).tight()
    if not region.area:
        return None
    return region, masks.iou(answer.logits > 0, turned > 0), min(max(predicted, 0.0), 1.0)


def _turned_back(
    mirror: TeacherAnswer, answer: TeacherAnswer, width: int
) -> npt.NDArray[np.float32]:
    """The logits for the mirror image of an image `width` wide, on the window of `answer`.

    A window around a box is mirrored with it. SAM's square is not: it starts at the left edge, and
    reaches past the right one of an image that is higher than wide. What only `answer` has seen,
    counts as it says.
    """
    logits, there, here = mirror.logits[:, ::-1], mirror.window, answer.window
    seen = Window(width - there.x1, there.y0, width - there.x0, there.y1)
    apart = np.subtract((seen.x0, seen.y0, seen.x1, seen.y1), (here.x0, here.y0, here.x1, here.y1))
    if np.abs(apart).max() < _SAME_PLACE:
        return logits
    resampled = geometry.resample_logits(logits, seen, here, len(answer.logits), outside=math.nan)
    return np.where(np.isnan(resampled), answer.logits, resampled)


def _iou(a: Region, b: Region) -> float:
    return iou_of_areas(a.overlap(b), a.area, b.area)
