"""Corrective clicks: how fast the mask gets good when a user keeps clicking on what is wrong.

The simulated user starts with a box, with a click at the object's center point, or with a click
somewhere inside the object. Each further click goes to the deepest place of the wrong pixels, where
the largest square of them fits: positive where the object was missed, negative where background was
taken. No pixel is clicked twice (Xu et al. 2016; Sofiiuk et al. 2021 for NoC). NoC@85 is the mean
number of clicks to reach an IoU of 0.85; an object that never does counts as the limit. A box
counts as the first click.

A correction by a network that takes guidance is one window; weights without it answer all clicks
anew, and so do models of the SAM family, from their one encoding of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from picosam2 import masks
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem
from picosam2.errors import ConfigError
from picosam2.evaluation import metrics
from picosam2.evaluation.boundary import deepest
from picosam2.evaluation.loading import load_images
from picosam2.evaluation.peers import Peer
from picosam2.evaluation.protocols import inside_point
from picosam2.guidance import MaskSoFar
from picosam2.masks import Region
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.refine import is_settled

TARGETS = (0.85, 0.90)
"""The IoU to reach, of NoC@85 and NoC@90."""

STARTS = ("click", "inside", "box")
"""How a session begins: at the center point, at a point inside the object, with its box."""

HARM = 0.02
"""A correction that loses more IoU than this is a harmful one."""

Mask = npt.NDArray[np.bool_]
RgbImage = npt.NDArray[np.uint8]


class ClickedModel(Protocol):
    """A model that takes clicks, then corrections of its masks."""

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""

    def first(self, image: RgbImage, prompts: Sequence[Prompt]) -> list[Region]:
        """The mask of each prompt of one image (H, W, 3) RGB uint8: a click or a box."""

    def next(
        self, image: RgbImage, prompts: Sequence[Prompt], regions: Sequence[Region]
    ) -> list[Region]:
        """The mask after the newest click, the last of each prompt's points.

        `regions` are the answers before it.
        """


class ClickedPredictor:
    """A `Predictor` as a `ClickedModel`."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""
        return self._predictor.runtime.info.weights_sha256

    def first(self, image: RgbImage, prompts: Sequence[Prompt]) -> list[Region]:
        """The best candidate of each prompt."""
        return [candidates[0].region for candidates in self._predictor.candidates(image, prompts)]

    def next(
        self, image: RgbImage, prompts: Sequence[Prompt], regions: Sequence[Region]
    ) -> list[Region]:
        """One window a correction with guidance; all clicks anew without it."""
        if not self._predictor.runtime.info.guidance:
            return self.first(image, prompts)
        height, width = image.shape[:2]
        return [
            self._predictor.correct(
                image, MaskSoFar.of_region(region, height, width), prompt.points, box=prompt.box,
                settled=is_settled(prompt.points, prompt.box),
            ).region
            for prompt, region in zip(prompts, regions, strict=True)
        ]  # fmt: skip


class ClickedPeer:
    """A model of the SAM family: its prompt are all clicks of an object and the mask before.

    ONNX models take the mask before; the others are asked by the clicks alone.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    @property
    def weights_sha256(self) -> str:
        """Of the weights, or of the encoder's file."""
        return self._peer.weights_sha256

    def first(self, image: RgbImage, prompts: Sequence[Prompt]) -> list[Region]:
        """The best of several masks of a click, by the model's own score."""
        several = all(prompt.box is None for prompt in prompts)
        answers = self._peer.answers(image, prompts, several=several)
        return [candidates[0].region for candidates in answers]

    def next(
        self, image: RgbImage, prompts: Sequence[Prompt], regions: Sequence[Region]
    ) -> list[Region]:
        """The one mask of all clicks, given the mask before."""
        height, width = image.shape[:2]
        corrected = [
            replace(prompt, mask=_probability(region.logits_on_image(height, width)))
            for prompt, region in zip(prompts, regions, strict=True)
        ]
        answers = self._peer.answers(image, corrected, several=False)
        return [candidates[0].region for candidates in answers]


def _probability(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    share = 1 / (1 + np.exp(-np.clip(logits, -16, 16)))
    return share.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Clicked:
    """The session of one object."""

    annotation: int
    image_id: int
    ious: tuple[float, ...]
    """IoU after each click, (clicks,)."""
    corrections: int
    """How many corrections were made before nothing was wrong, or the limit."""
    obeyed: int
    """How many corrections the next mask obeyed: their pixel is set where the click is positive."""

    def clicks_to(self, target: float) -> int | None:
        """How many clicks it took to reach the IoU `target`, or None if it was never reached."""
        reached = [count for count, iou in enumerate(self.ious, start=1) if iou >= target]
        return reached[0] if reached else None

    @property
    def harmful(self) -> int:
        """Corrections that lost more than `HARM` of IoU."""
        return int(np.count_nonzero(np.diff(self.ious) < -HARM))


@dataclass(frozen=True, kw_only=True)
class ClickCurve:
    """The sessions of many objects; `to_json` gives the result file."""

    dataset: str
    weights_sha256: str
    start: str
    clicks: int
    objects: tuple[Clicked, ...]
    problems: tuple[EntryProblem, ...]
    weights: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the result file of `picosam2 clicks`."""
        table = np.array([clicked.ious for clicked in self.objects])
        image_ids = np.array([clicked.image_id for clicked in self.objects], np.int64)
        intervals = [metrics.interval(column, image_ids) for column in table.T]
        corrections = sum(clicked.corrections for clicked in self.objects)
        return {
            "kind": "clicks",
            "dataset": self.dataset,
            "start": self.start,
            "n": len(self.objects),
            "photos": len(set(image_ids)),
            "clicks": self.clicks,
            "miou": [float(value) for value in table.mean(0)],
            "low": [low for low, _ in intervals],
            "high": [high for _, high in intervals],
            "noc": {f"{round(target * 100)}": self._noc(target) for target in TARGETS},
            "corrections": corrections,
            "harmful": sum(clicked.harmful for clicked in self.objects) / max(corrections, 1),
            "obeyed": sum(clicked.obeyed for clicked in self.objects) / max(corrections, 1),
            "objects": [
                {"annotation": clicked.annotation, "photo": clicked.image_id,
                 "ious": [round(iou, 4) for iou in clicked.ious]}
                for clicked in self.objects
            ],
            "weights_sha256": self.weights_sha256,
            "weights": dict(self.weights),
            "skipped": len(self.problems),
        }  # fmt: skip

    def _noc(self, target: float) -> dict[str, float]:
        counts = [clicked.clicks_to(target) for clicked in self.objects]
        return {
            "clicks": float(np.mean([self.clicks if c is None else c for c in counts])),
            "failed": float(np.mean([c is None for c in counts])),
        }


def next_click(truth: Mask, mask: Mask, before: Iterable[Point] = ()) -> Point | None:
    """Where the simulated user clicks next, given masks (H, W) bool; None if nothing is wrong.

    The pixels of the clicks `before` are not clicked again.
    """
    clicked = [(int(point.x), int(point.y)) for point in before]
    missed, extra = deepest(truth & ~mask, clicked), deepest(mask & ~truth, clicked)
    if missed is None and extra is None:
        return None
    positive = extra is None or (missed is not None and missed[2] >= extra[2])
    place = missed if positive else extra
    assert place is not None
    return Point(place[0] + 0.5, place[1] + 0.5, positive)


def measure_clicks(
    model: Predictor | ClickedModel,
    images: Iterable[AnnotatedImage],
    *,
    dataset: str = "coco",
    start: str = "click",
    clicks: int = 10,
    limit: int | None = None,
    weights: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> ClickCurve:
    """Click `clicks` times at each object of `images` (the first `limit` of them).

    An image or mask that cannot be read is left out and named in `problems`. `progress` receives
    the number of objects that are done.

    Args:
        start: one of `STARTS`; a box counts as the first click.

    Raises:
        ConfigError: `clicks` is less than 1, or there is no such start.
        DataError: there was nothing to measure.
    """
    if clicks < 1:
        raise ConfigError("`clicks` must be at least 1")
    if start not in STARTS:
        raise ConfigError(f"`start` must be one of {', '.join(STARTS)}, not {start!r}")
    clicked = ClickedPredictor(model) if isinstance(model, Predictor) else model
    objects: list[Clicked] = []
    problems: list[EntryProblem] = []
    for loaded in load_images(images, problems, max_objects=limit, progress=progress):
        prompts = [
            _first_prompt(start, mask, instance.id)
            for instance, mask in zip(loaded.instances, loaded.masks, strict=True)
        ]
        sessions = _click_through(clicked, loaded.pixels, list(loaded.masks), prompts, clicks)
        objects += [
            Clicked(
                annotation=instance.id, image_id=loaded.annotated.id, ious=tuple(session.ious),
                corrections=session.corrections, obeyed=session.obeyed,
            )
            for instance, session in zip(loaded.instances, sessions, strict=True)
        ]  # fmt: skip
    return ClickCurve(
        dataset=dataset,
        weights_sha256=clicked.weights_sha256,
        start=start,
        clicks=clicks,
        objects=tuple(objects),
        problems=tuple(problems),
        weights=weights or {},
    )


def _first_prompt(start: str, truth: Mask, annotation: int) -> Prompt:
    if start == "box":
        bounds = masks.bbox(truth)
        assert bounds is not None, "an empty mask is not measured"
        return Prompt(box=Box(*bounds))
    if start == "inside":
        return Prompt((inside_point(truth, seed=annotation),))
    return Prompt((masks.center_point(truth),))


class _Session:
    """One object while it is clicked at."""

    def __init__(self, truth: Mask, prompt: Prompt) -> None:
        self.truth, self.prompt = truth, prompt
        self.region: Region | None = None
        self.ious: list[float] = []
        self.corrections = self.obeyed = 0

    def take(self, region: Region) -> None:
        """The model's answer to the newest click."""
        mask = region.on_image(*self.truth.shape)
        if self.region is not None:
            newest = self.prompt.points[-1]
            self.corrections += 1
            self.obeyed += mask[int(newest.y), int(newest.x)] == newest.positive
        self.region = region
        self.ious.append(masks.iou(mask, self.truth))

    def click(self) -> bool:
        """Click at the largest error; False if nothing is wrong that was not clicked at."""
        assert self.region is not None
        mask = self.region.on_image(*self.truth.shape)
        place = next_click(self.truth, mask, self.prompt.points)
        if place is None:
            return False
        self.prompt = Prompt((*self.prompt.points, place), self.prompt.box)
        return True


def _click_through(
    model: ClickedModel,
    image: RgbImage,
    truths: list[Mask],
    prompts: list[Prompt],
    clicks: int,
) -> list[_Session]:
    """The sessions of the objects of one image; a round of clicks is given together."""
    sessions = [_Session(truth, prompt) for truth, prompt in zip(truths, prompts, strict=True)]
    for session, region in zip(sessions, model.first(image, prompts), strict=True):
        session.take(region)
    waiting = sessions
    for _ in range(clicks - 1):
        waiting = [session for session in waiting if session.click()]
        if not waiting:
            break
        regions = [session.region for session in waiting if session.region is not None]
        answers = model.next(image, [session.prompt for session in waiting], regions)
        for session, region in zip(waiting, answers, strict=True):
            session.take(region)
    for session in sessions:  # right: it stays as it is
        session.ious += session.ious[-1:] * (clicks - len(session.ious))
    return sessions
