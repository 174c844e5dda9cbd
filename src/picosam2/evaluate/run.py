"""Measure weights on photos with masks, by one protocol, beside baselines on the same objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2.data.coco import Instance, Photo, Problem
from picosam2.errors import DataError, PicoSAM2Error
from picosam2.evaluate import baselines, metrics
from picosam2.evaluate.protocols import Item, make_item
from picosam2.geometry import Region
from picosam2.images import load_image
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Predictor

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was seen of one object. IoU is between 0 and 1."""

    annotation: int
    photo: int
    area: float
    iou: float
    score: float
    """The predicted IoU."""
    best: float
    """IoU of the best candidate by truth; of the mask itself where there is only one."""
    box: float
    """IoU of the filled box."""
    ellipse: float
    disc: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores over many objects; `to_json` gives the result file."""

    protocol: str
    dataset: str
    weights_sha256: str
    jitter: float
    ms_per_prompt: float
    measured: tuple[Measured, ...]
    problems: tuple[Problem, ...]

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """One field of every object, (N,)."""
        return np.array([getattr(one, name) for one in self.measured], float)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the result file of `picosam2 eval`."""
        ious, scores = self.column("iou"), self.column("score")
        low, high = metrics.interval(ious, self.column("photo"))
        return {
            "protocol": self.protocol,
            "dataset": self.dataset,
            "n": len(ious),
            "photos": len({one.photo for one in self.measured}),
            "jitter": self.jitter,
            "miou": float(ious.mean()),
            "miou_ci95": [low, high],
            "hit_rate": metrics.hit_rate(ious),
            "best_candidate": float(self.column("best").mean()),
            "by_size": metrics.by_size(ious, self.column("area")),
            "baselines": {
                name: float(self.column(name).mean()) for name in ("box", "ellipse", "disc")
            },
            "score": {
                "spearman": metrics.spearman(scores, ious),
                "calibration_error": metrics.calibration_error(scores, ious),
            },
            "ms_per_prompt": self.ms_per_prompt,
            "weights_sha256": self.weights_sha256,
            "skipped": len(self.problems),
            "items": [
                {
                    "annotation": one.annotation,
                    "photo": one.photo,
                    "area": one.area,
                    "iou": round(one.iou, 5),
                    "score": round(one.score, 5),
                }
                for one in self.measured
            ],
        }


def evaluate(
    predictor: Predictor,
    photos: Iterable[Photo],
    *,
    protocol: str,
    dataset: str = "coco",
    limit: int | None = None,
    jitter: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure `predictor` on the objects of `photos`.

    Each photo is decoded once and its prompts go through the network together. A photo or mask that
    cannot be read is left out and named in `problems`. `limit` takes the first objects only;
    `progress` is told how many objects each photo had.

    Raises:
        DataError: there was nothing to measure.
    """
    measured: list[Measured] = []
    problems: list[Problem] = []
    seconds = 0.0
    for photo in photos:
        room = None if limit is None else limit - len(measured)
        if room is not None and room <= 0:
            break
        try:
            picture = load_image(photo.path)
        except PicoSAM2Error as error:
            problems.append(Problem(where=f"photo {photo.path.name}", what=str(error)))
            continue
        kept, items = _items(photo, picture, protocol, jitter, problems, room)
        if not items:
            continue
        started = time.perf_counter()
        answers = _answers(predictor, picture, items, protocol)
        seconds += time.perf_counter() - started
        measured += [
            _measure(instance, item, found)
            for instance, item, found in zip(kept, items, answers, strict=True)
        ]
        if progress:
            progress(len(items))
    if not measured:
        raise DataError("there was nothing to measure: check the annotations and the photo folder")
    return Evaluation(
        protocol=protocol,
        dataset=dataset,
        weights_sha256=predictor.runtime.info.weights_sha256,
        jitter=jitter,
        ms_per_prompt=1000 * seconds / len(measured),
        measured=tuple(measured),
        problems=tuple(problems),
    )


def _items(
    photo: Photo,
    picture: npt.NDArray[np.uint8],
    protocol: str,
    jitter: float,
    problems: list[Problem],
    room: int | None,
) -> tuple[list[Instance], list[Item]]:
    kept: list[Instance] = []
    items: list[Item] = []
    for instance in photo.instances[:room]:
        try:
            mask = instance.mask()
            if mask.shape != picture.shape[:2]:
                raise DataError("its mask has another size than the photo")
        except PicoSAM2Error as error:
            problems.append(Problem(where=f"annotation {instance.id}", what=str(error)))
            continue
        kept.append(instance)
        items.append(make_item(protocol, mask, jitter=jitter, seed=instance.id))
    return kept, items


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the network says of one item: candidates, best first, on the pixels that count."""

    regions: Sequence[Region]
    score: float


def _answers(
    predictor: Predictor, picture: npt.NDArray[np.uint8], items: Sequence[Item], protocol: str
) -> list[_Answer]:
    if protocol == "box":
        boxes = predictor.boxes(picture, [item.box for item in items])
        return [_Answer([found.region], found.score) for found in boxes]
    if protocol == "click":
        clicks = predictor.clicks(picture, [item.point for item in items])
        return [_Answer([c.region for c in found], found[0].score) for found in clicks]
    channel = CLICK_CHANNEL if protocol == "paper-point" else BOX_CHANNEL
    windows = [item.window for item in items if item.window is not None]
    logits = predictor.window_logits(picture, windows, channel)
    return [_Answer([Region(0, 0, one)], 0.0) for one in logits]


def _measure(instance: Instance, item: Item, answer: _Answer) -> Measured:
    height, width = item.mask.shape
    guesses = {
        "box": baselines.filled_box(item.box, height, width),
        "ellipse": baselines.inscribed_ellipse(item.box, height, width),
        "disc": baselines.disc(item.point, height, width),
    }
    truth = item.mask
    if item.window is not None:  # the published protocols measure on the crop
        side = len(answer.regions[0].logits)
        truth = geometry.crop_mask(truth, item.window, side) > 0.5
        guesses = {
            name: geometry.crop_mask(guess, item.window, side) > 0.5
            for name, guess in guesses.items()
        }
    area = int(truth.sum())
    ious = [_region_iou(region, truth, area) for region in answer.regions]
    return Measured(
        annotation=instance.id,
        photo=instance.image_id,
        area=float(item.mask.sum()),
        iou=ious[0],
        score=answer.score,
        best=max(ious),
        **{name: _iou(guess, truth) for name, guess in guesses.items()},
    )


def _region_iou(region: Region, truth: Mask, area: int) -> float:
    """IoU of a region's mask with a true mask of that area, looking at the region only."""
    mask = region.logits > 0
    both = int((mask & truth[region.rows, region.columns]).sum())
    union = area + int(mask.sum()) - both
    return both / union if union else 1.0


def _iou(a: Mask, b: Mask) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
