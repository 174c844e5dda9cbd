"""Corrective clicks: how fast the mask gets good when a user keeps clicking on what is wrong.

The simulated user starts at the object's centre point. Each further click goes to the deepest place
of the wrong pixels, where the largest square of them fits: positive where the object was missed,
negative where background was taken (Xu et al. 2016; Sofiiuk et al. 2021 for NoC). NoC@85 is the
mean number of clicks to reach an IoU of 0.85; an object that never does counts as the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem
from picosam2.errors import ConfigError
from picosam2.evaluation import metrics
from picosam2.evaluation.boundary import deepest
from picosam2.evaluation.loading import load_images
from picosam2.predictor import Predictor
from picosam2.prompts import Point, Prompt

TARGETS = (0.85, 0.90)
"""IoU that the number of clicks is counted to."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Clicked:
    """IoU of one object after each click, (clicks,)."""

    annotation: int
    photo: int
    ious: tuple[float, ...]

    def clicks_to(self, target: float) -> int | None:
        """How many clicks it took, or None if it never got there."""
        reached = [count for count, iou in enumerate(self.ious, start=1) if iou >= target]
        return reached[0] if reached else None


@dataclass(frozen=True, kw_only=True)
class ClickCurve:
    """Many objects clicked at; `to_json` gives the result file."""

    dataset: str
    weights_sha256: str
    clicks: int
    objects: tuple[Clicked, ...]
    problems: tuple[EntryProblem, ...]
    weights: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the result file of `picosam2 clicks`."""
        table = np.array([one.ious for one in self.objects])
        photos = np.array([one.photo for one in self.objects], np.int64)
        intervals = [metrics.interval(column, photos) for column in table.T]
        return {
            "kind": "clicks",
            "dataset": self.dataset,
            "n": len(self.objects),
            "photos": len(set(photos)),
            "clicks": self.clicks,
            "miou": [float(value) for value in table.mean(0)],
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
            "noc": {f"{round(target * 100)}": self._noc(target) for target in TARGETS},
            "weights_sha256": self.weights_sha256,
            "weights": dict(self.weights),
            "skipped": len(self.problems),
        }

    def _noc(self, target: float) -> dict[str, float]:
        counts = [one.clicks_to(target) for one in self.objects]
        return {
            "clicks": float(np.mean([self.clicks if c is None else c for c in counts])),
            "failed": float(np.mean([c is None for c in counts])),
        }


def next_click(truth: Mask, found: Mask) -> Point | None:
    """Where the simulated user clicks next, given masks (H, W) bool; None if nothing is wrong."""
    missed, extra = deepest(truth & ~found), deepest(found & ~truth)
    if missed is None and extra is None:
        return None
    positive = extra is None or (missed is not None and missed[2] >= extra[2])
    place = missed if positive else extra
    assert place is not None
    return Point(place[0] + 0.5, place[1] + 0.5, positive)


def measure_clicks(
    predictor: Predictor,
    photos: Iterable[AnnotatedImage],
    *,
    dataset: str = "coco",
    clicks: int = 6,
    limit: int | None = None,
    weights: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ClickCurve:
    """Click `clicks` times at each object of `photos` (the first `limit` of them).

    A photo or mask that cannot be read is left out and named in `problems`. `progress` receives
    the number of objects that are done.

    Raises:
        ConfigError: `clicks` is less than 1.
        DataError: there was nothing to measure.
    """
    if clicks < 1:
        raise ConfigError("`clicks` must be at least 1")
    objects: list[Clicked] = []
    problems: list[EntryProblem] = []
    for loaded in load_images(photos, problems, max_objects=limit, progress=progress):
        curves = _click_through(predictor, loaded.pixels, list(loaded.masks), clicks)
        objects += [
            Clicked(annotation=instance.id, photo=loaded.annotated.id, ious=tuple(ious))
            for instance, ious in zip(loaded.instances, curves, strict=True)
        ]
    return ClickCurve(
        dataset=dataset,
        weights_sha256=predictor.runtime.info.weights_sha256,
        clicks=clicks,
        objects=tuple(objects),
        problems=tuple(problems),
        weights=weights or {},
    )


def _click_through(
    predictor: Predictor, picture: npt.NDArray[np.uint8], truths: list[Mask], clicks: int
) -> list[list[float]]:
    """The IoU after each click, for each object of one photo; a round of clicks is one batch."""
    points: list[tuple[Point, ...]] = [(masks.centre_point(mask),) for mask in truths]
    curves: list[list[float]] = [[] for _ in truths]
    waiting = list(range(len(truths)))  # objects with something left to correct
    for count in range(clicks):
        answers = predictor.candidates(picture, [Prompt(points=points[i]) for i in waiting])
        going_on = []
        for index, found in zip(waiting, answers, strict=True):
            mask = found[0].mask(*picture.shape[:2])
            curves[index].append(masks.iou(mask, truths[index]))
            place = next_click(truths[index], mask) if count + 1 < clicks else None
            if place is None or place in points[index]:
                # Right, or the same click again, which would change nothing: it stays as it is.
                curves[index] += curves[index][-1:] * (clicks - count - 1)
                continue
            points[index] = (*points[index], place)
            going_on.append(index)
        waiting = going_on
        if not waiting:
            break
    return curves
