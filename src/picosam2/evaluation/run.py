"""Measure weights on images with masks, by one protocol, beside baselines on the same objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem, Instance
from picosam2.evaluation import baselines, metrics
from picosam2.evaluation.boundary import boundary_iou
from picosam2.evaluation.loading import load_images
from picosam2.evaluation.models import ModelUnderTest, under_test
from picosam2.evaluation.protocols import Item, count_rivals, make_item
from picosam2.geometry import Window
from picosam2.masks import Region, iou
from picosam2.predictor import Predictor

Mask = npt.NDArray[np.bool_]
RgbImage = npt.NDArray[np.uint8]

GEOMETRIC = ("box", "ellipse", "disc")
"""The baselines that look at no pixel; always measured."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The scores of one object. IoU is between 0 and 1."""

    annotation: int
    image_id: int
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
    boundary: float | None = None
    """Boundary IoU of the mask (Cheng et al. 2021)."""
    rivals: int = 0
    """How many other measured objects share its window."""
    pixels: Mapping[str, float] = field(default_factory=dict)
    """IoU of the baselines that look at the image, by name; empty where they were not measured."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores over many objects; `to_json` gives the result file."""

    protocol: str
    dataset: str
    weights_sha256: str
    jitter: float
    ms_per_prompt: float
    measured: tuple[Measured, ...]
    problems: tuple[EntryProblem, ...]
    weights: Mapping[str, Any] = field(default_factory=dict)
    """Facts of the weights; see `network_facts.describe_weights`."""
    leak: Mapping[str, Any] | None = None
    """The result of the leak check; see `leak_check.Leaks.to_json`."""

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """One field of every object, (N,)."""
        return np.array([getattr(measured, name) for measured in self.measured], float)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the result file of `picosam2 eval`. What is not known is null."""
        ious = self.column("iou")
        low, high = metrics.interval(ious, self._image_ids())
        return {
            "kind": "evaluation",
            "protocol": self.protocol,
            "dataset": self.dataset,
            "n": len(ious),
            "photos": len(set(self._image_ids())),
            "jitter": self.jitter,
            "miou": float(ious.mean()),
            "miou_ci95": [low, high],
            "hit_rate": metrics.hit_rate(ious),
            "boundary_iou": self._mean([measured.boundary for measured in self.measured]),
            "best_candidate": float(self.column("best").mean()),
            "by_size": metrics.by_size(ious, self.column("area")),
            "by_rivals": metrics.by_rivals(ious, self.column("rivals")),
            "baselines": {
                name: float(np.mean([self._baseline(measured, name) for measured in self.measured]))
                for name in self._baseline_names()
            },
            "score": self._score(),
            "ms_per_prompt": self.ms_per_prompt,
            "weights_sha256": self.weights_sha256,
            "weights": dict(self.weights),
            "leak": None if self.leak is None else dict(self.leak),
            "skipped": len(self.problems),
            "items": [self._item(measured) for measured in self.measured],
        }

    def _image_ids(self) -> npt.NDArray[np.int64]:
        return np.array([measured.image_id for measured in self.measured], np.int64)

    def _score(self) -> dict[str, Any]:
        """How well the predicted IoU fits the IoU; nulls where the protocol has no scores."""
        scores, ious = self.column("score"), self.column("iou")
        if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(ious) == 0:
            return {"spearman": None, "calibration_error": None, "reliability": []}
        return {
            "spearman": metrics.spearman(scores, ious),
            "calibration_error": metrics.calibration_error(scores, ious),
            "reliability": [asdict(point) for point in metrics.reliability(scores, ious)],
        }

    def _baseline_names(self) -> list[str]:
        return [*GEOMETRIC, *self.measured[0].pixels]

    @staticmethod
    def _baseline(measured: Measured, name: str) -> float:
        return float(getattr(measured, name) if name in GEOMETRIC else measured.pixels[name])

    @staticmethod
    def _mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def _item(self, measured: Measured) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "annotation": measured.annotation,
            "photo": measured.image_id,
            "area": measured.area,
            "rivals": measured.rivals,
        }
        numbers = {"iou": measured.iou, "score": measured.score, "boundary": measured.boundary}
        numbers |= {name: self._baseline(measured, name) for name in self._baseline_names()}
        return entry | {k: None if v is None else round(v, 5) for k, v in numbers.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """The answers and scores of one image, one entry for each object."""

    image: AnnotatedImage
    pixels: RgbImage
    """(H, W, 3) RGB uint8, the network's input."""
    items: tuple[Item, ...]
    regions: tuple[Region, ...]
    """The answer that was measured; on the crop where the protocol prescribes a window."""
    measured: tuple[Measured, ...]


def evaluate(
    predictor: Predictor | ModelUnderTest,
    images: Iterable[AnnotatedImage],
    *,
    protocol: str,
    dataset: str = "coco",
    limit: int | None = None,
    jitter: float = 0.0,
    pixel_baselines: bool = False,
    weights: Mapping[str, Any] | None = None,
    leak: Mapping[str, Any] | None = None,
    disturb_image: Callable[[RgbImage, int], RgbImage] | None = None,
    disturb_item: Callable[[Item, int], Item] | None = None,
    look: Callable[[Answered], None] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure `predictor` (or any other `ModelUnderTest`) on the objects of `images`.

    Each image is decoded once and its prompts go through the network together. An image or mask
    that cannot be read is left out and named in `problems`.

    Args:
        predictor: what is measured.
        images: images with their objects.
        protocol: one of `protocols.PROTOCOLS`.
        dataset: its name, for the result file.
        limit: take the first objects only.
        jitter: of the prompt; see `make_item`.
        pixel_baselines: also flood fill and GrabCut, which take longer than the network and need
            the extra `baselines`.
        weights, leak: facts for the result file.
        disturb_image: makes the image worse before it is measured: takes it (H, W, 3) uint8 and
            its id, and returns one of the same size, which pixel baselines see too.
        disturb_item: makes the prompt worse: takes an item and its annotation id.
        look: called with the answers of each image; they are not kept.
        progress: receives the number of measured objects.

    Raises:
        DataError: there was nothing to measure.
        MissingExtraError: `pixel_baselines` without OpenCV.
    """
    subject = under_test(predictor)
    measured: list[Measured] = []
    problems: list[EntryProblem] = []
    seconds = 0.0
    for loaded in load_images(images, problems, max_objects=limit, progress=progress):
        annotated, kept, pixels = loaded.annotated, loaded.instances, loaded.pixels
        items = [
            replace(make_item(protocol, mask, jitter=jitter, seed=instance.id), rivals=rivals)
            for instance, mask, rivals in zip(
                kept, loaded.masks, count_rivals(loaded.masks), strict=True
            )
        ]
        if disturb_image is not None:
            pixels = disturb_image(pixels, annotated.id)
        if disturb_item is not None:
            items = [
                disturb_item(item, instance.id) for instance, item in zip(kept, items, strict=True)
            ]
        started = time.perf_counter()
        answers = _answers(subject, pixels, items, protocol)
        seconds += time.perf_counter() - started
        batch = []
        for instance, item, answer in zip(kept, items, answers, strict=True):
            guesses = _pixel_baselines(pixels, item) if pixel_baselines else {}
            batch.append(_measure(instance, item, answer, guesses))
        measured += batch
        if look:
            look(
                Answered(
                    image=annotated,
                    pixels=pixels,
                    items=tuple(items),
                    regions=tuple(answer.regions[0] for answer in answers),
                    measured=tuple(batch),
                )
            )
    return Evaluation(
        protocol=protocol,
        dataset=dataset,
        weights_sha256=subject.weights_sha256,
        jitter=jitter,
        ms_per_prompt=1000 * seconds / len(measured),
        measured=tuple(measured),
        problems=tuple(problems),
        weights=weights or {},
        leak=leak,
    )


@dataclass(frozen=True, eq=False)
class _Answer:
    """The network's candidates for one item, best first, on the pixels where IoU is measured."""

    regions: Sequence[Region]
    score: float


def _answers(
    subject: ModelUnderTest, image: RgbImage, items: Sequence[Item], protocol: str
) -> list[_Answer]:
    if protocol == "box":
        boxes = subject.boxes(image, [item.box for item in items])
        return [_Answer([candidate.region], candidate.score) for candidate in boxes]
    if protocol in ("click", "click-inside"):
        clicks = subject.clicks(image, [item.point for item in items])
        return [
            _Answer([c.region for c in candidates], candidates[0].score) for candidates in clicks
        ]
    return [_Answer([Region(0, 0, logits)], 0.0) for logits in subject.windows(image, items)]


def _pixel_baselines(image: RgbImage, item: Item) -> dict[str, Mask]:
    """GrabCut from the box, or flood fill and GrabCut from the click: full masks by name."""
    if item.prompt.box is not None:
        return {"grabcut": baselines.grabcut_box(image, item.prompt.box)}
    point = item.point
    return {
        "flood": baselines.flood(image, point),
        "grabcut": baselines.grabcut_disc(image, point),
    }


def _measure(
    instance: Instance, item: Item, answer: _Answer, pixels: Mapping[str, Mask]
) -> Measured:
    if item.window is not None:
        return _measure_on_crop(instance, item, item.window, answer, pixels)
    height, width = item.mask.shape
    area = int(item.mask.sum())
    shapes = {
        "box": baselines.box_region(item.box, height, width),
        "ellipse": baselines.ellipse_region(item.box, height, width),
        "disc": baselines.disc_region(item.point, height, width),
    }
    ious = [region.iou(item.mask, area) for region in answer.regions]
    return Measured(
        annotation=instance.id,
        image_id=instance.image_id,
        area=float(area),
        iou=ious[0],
        score=answer.score,
        best=max(ious),
        boundary=boundary_iou(answer.regions[0].on_image(height, width), item.mask),
        rivals=item.rivals,
        pixels={name: iou(guess, item.mask) for name, guess in pixels.items()},
        **{name: shape.iou(item.mask, area) for name, shape in shapes.items()},
    )


def _measure_on_crop(
    instance: Instance,
    item: Item,
    window: Window,
    answer: _Answer,
    pixels: Mapping[str, Mask],
) -> Measured:
    """The published protocols measure on the crop, so the baselines are cropped too."""
    height, width = item.mask.shape
    logits = answer.regions[0].logits
    guesses = {
        "box": baselines.filled_box(item.box, height, width),
        "ellipse": baselines.inscribed_ellipse(item.box, height, width),
        "disc": baselines.disc(item.point, height, width),
        **pixels,
    }

    def seen(mask: Mask) -> Mask:
        covered: Mask = geometry.crop_mask(mask, window, len(logits)) > 0.5
        return covered

    truth = seen(item.mask)
    achieved = iou(logits > 0, truth)
    ious = {name: iou(seen(guess), truth) for name, guess in guesses.items()}
    return Measured(
        annotation=instance.id,
        image_id=instance.image_id,
        area=float(item.mask.sum()),
        iou=achieved,
        score=answer.score,
        best=achieved,
        boundary=boundary_iou(logits > 0, truth),
        rivals=item.rivals,
        pixels={name: ious[name] for name in pixels},
        **{name: ious[name] for name in GEOMETRIC},
    )
