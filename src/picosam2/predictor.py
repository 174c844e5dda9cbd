"""A photo and prompts in, masks out: the path of a pixel from click to `Segmentation`.

A box goes through one window. A click goes through several windows of rising size in one batch; a
small scorer that sees all of them chooses the scale, and then the chosen mask's own box gives a
second, sharper pass (coarse to fine). The network sees no prompt but where its window is, so more
than one point is honoured by arithmetic on candidates: see `Predictor.__call__`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry
from picosam2.errors import PromptError, WeightsError
from picosam2.geometry import Window
from picosam2.images import ImageSource, load_image
from picosam2.masks import Region, stability
from picosam2.prompts import Box, Boxes, Point, Points, Prompt, as_prompts
from picosam2.refine import Correction, correct
from picosam2.results import Segmentation
from picosam2.runtimes.protocol import FlipAverage, Runtime
from picosam2.runtimes.weights import load_runtime
from picosam2.scorer import features

BOX_CHANNEL, CLICK_CHANNEL = 0, 1
"""The logit channels of a two-channel network; a network with one uses it for both."""

MULTIMASKS = 3
"""Masks that `multimask` returns, like SAM."""

_TOGETHER = 10  # prompts whose windows share a batch; what they find is pasted at full size

# What a positive point that a candidate misses takes off its score, and a negative one that it
# covers. Where agreeing with all points came before any score, fragments won: docs/click.md.
_MISSED_POINT, _COVERED_POINT = 0.4, 0.05


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer for a prompt: logits (h, w) on some pixels of the photo, and the predicted IoU."""

    window: Window
    region: Region
    score: float

    def mask(self, height: int, width: int) -> npt.NDArray[np.bool_]:
        """The mask on the whole photo, (height, width) bool."""
        return self.region.on_image(height, width)


class Predictor:
    """Point at a thing, get its mask.

    >>> from picosam2 import Predictor, sample
    >>> masks = Predictor()(sample(), points=[(353, 349)])
    >>> masks[0].mask.shape
    (480, 640)
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | Runtime = "default",
        *,
        runtime: str = "onnx",
        threads: int | None = None,
        flip: bool = False,
    ) -> None:
        """Open weights by shipped name or path, or use a runtime that is open already.

        With `flip` the network sees every crop mirrored, too, and the mean of both answers counts:
        a little better, for twice the time.

        Raises:
            WeightsError: they cannot be found or used.
        """
        if isinstance(weights, str | os.PathLike):
            weights = load_runtime(weights, runtime, threads)
        self.runtime: Runtime = FlipAverage(weights) if flip else weights
        metadata = self.runtime.info.metadata
        self._click_scorer = metadata.scorers.get("click")
        self._box_scorer = metadata.scorers.get("box")
        self._native = metadata.native
        self._rules = metadata.windows
        windows = 1 if self._native else len(self._rules.click_halves)
        for scorer, count in ((self._click_scorer, windows), (self._box_scorer, 1)):
            if scorer is not None and scorer.candidates != count:
                raise WeightsError(
                    f"the weights' scorer compares {scorer.candidates} windows where there are "
                    f"{count}: run `picosam2 calibrate` on them again"
                )
        self._image: npt.NDArray[np.uint8] | None = None

    # -- the Python way ----------------------------------------------------------------------

    def __call__(
        self,
        image: ImageSource,
        *,
        points: Any = None,
        boxes: Any = None,
        prompts: Sequence[Prompt] | None = None,
        multimask: bool = False,
    ) -> list[Segmentation]:
        """Masks of one photo, one for each prompt, in order: points first, then boxes.

        Args:
            image: a path, bytes, a PIL image or an array; see `images.load_image`.
            points: (N, 2) of x, y pixels, one object each.
            boxes: (N, 4) of x0, y0, x1, y1 pixels, one object each.
            prompts: objects that need more than one point, or a box with points.
            multimask: three masks of different scale for each prompt that has points and no box,
                best first, instead of one.

        Several points of one prompt: the windows of every positive point are tried, and so is a box
        window around all of them; each positive point that a candidate misses takes much off its
        score, and each negative one that it covers a little. To the best one, the best mask of each
        positive point that it still misses is added. Then, for each negative point still covered,
        the largest of its own masks that spares the positive points is cut out.

        Raises:
            ImageError: the photo cannot be read.
            PromptError: a prompt lies outside the photo, or there is none.
        """
        picture = load_image(image)
        asked = list(prompts or ())
        if points is not None or boxes is not None or not asked:
            asked += as_prompts(points, boxes)
        height, width = picture.shape[:2]
        asked = [prompt.within(height, width) for prompt in asked]
        found: list[Segmentation] = []
        for start in range(0, len(asked), _TOGETHER):
            some = asked[start : start + _TOGETHER]
            for prompt, answers in zip(some, self.candidates(picture, some), strict=True):
                wanted = answers[:MULTIMASKS] if multimask and prompt.box is None else answers[:1]
                found += [_segmentation(picture, prompt, candidate) for candidate in wanted]
        return found

    # -- SAM 2's way -------------------------------------------------------------------------

    def set_image(self, image: ImageSource) -> None:
        """Keep a photo for the `predict` calls to come. `ImageError` if it cannot be read."""
        self._image = load_image(image)

    def reset_image(self) -> None:
        """Forget the photo."""
        self._image = None

    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """One object of the kept photo, with the arguments and shapes of `SAM2ImagePredictor`.

        Args:
            point_coords: (N, 2) x, y in pixels, all of one object.
            point_labels: (N,) 1 for on the object, 0 for off it.
            box: (4,) x0, y0, x1, y1 in pixels.
            multimask_output: three masks of different scale for points without a box, else one.
            return_logits: logits instead of booleans.

        Returns:
            masks (M, H, W) bool (float32 logits with `return_logits`), scores (M,) float32, and
            low-resolution logits (M, 256, 256) float32 of the whole photo.

        Raises:
            PromptError: no photo is set, labels do not fit the points, or there is no prompt.
        """
        if self._image is None:
            raise PromptError("there is no picture: call set_image first")
        prompt = _sam_prompt(point_coords, point_labels, box)
        found = self(self._image, prompts=[prompt], multimask=multimask_output)
        if multimask_output and prompt.box is None:
            found += found[-1:] * (MULTIMASKS - len(found))
        logits = np.stack([one.logits for one in found if one.logits is not None])
        low = [
            np.asarray(Image.fromarray(one).resize((256, 256), Image.Resampling.BILINEAR))
            for one in logits
        ]
        scores = np.array([one.score for one in found], np.float32)
        return (logits if return_logits else logits > 0), scores, np.stack(low)

    # -- how it is done ----------------------------------------------------------------------

    def candidates(
        self, picture: npt.NDArray[np.uint8], prompts: Sequence[Prompt]
    ) -> list[list[Candidate]]:
        """All answers for each prompt, best first. Windows of all prompts share their batches.

        `picture` is (H, W, 3) RGB uint8; the prompts lie inside it.
        """
        height, width = picture.shape[:2]
        boxes = self.boxes(picture, [p.box for p in prompts if p.box is not None])
        clicked = [point for prompt in prompts for point in prompt.points]
        spans = [_span(p) for p in prompts]
        around = self.boxes(picture, [span for span in spans if span is not None])
        clicks = self.clicks(picture, clicked)
        answers = []
        for prompt, span in zip(prompts, spans, strict=True):
            first = [boxes.pop(0)] if prompt.box is not None else []
            by_point = {point: clicks.pop(0) for point in prompt.points}
            if span is not None:
                first.append(around.pop(0))
            if prompt.box is None:
                first += [c for point, found in by_point.items() if point.positive for c in found]
            answers.append(_combine(prompt, first, by_point, height, width))
        return answers

    def boxes(self, picture: npt.NDArray[np.uint8], boxes: Sequence[Box]) -> list[Candidate]:
        """One candidate for each box, from its window, in one batch."""
        if not boxes:
            return []
        height, width = picture.shape[:2]
        windows = [self.box_window(box) for box in boxes]
        logits = self.window_logits(picture, windows, BOX_CHANNEL)
        scores = self.box_scores(logits, windows, height, width)
        return [
            Candidate(window, geometry.paste_region(one, window, height, width), float(score))
            for window, one, score in zip(windows, logits, scores, strict=True)
        ]

    def clicks(
        self, picture: npt.NDArray[np.uint8], points: Sequence[Point], *, refine: int = 1
    ) -> list[list[Candidate]]:
        """The candidates of each click, best first: one of each scale.

        All windows of all clicks are one batch. The best `refine` of each click (all, if negative)
        get the second pass, through the box window of their mask.
        """
        if not points:
            return []
        height, width = picture.shape[:2]
        ladders = [self.click_windows(point, height, width) for point in points]
        windows = [window for ladder in ladders for window in ladder]
        maps = iter(self.window_logits(picture, windows, CLICK_CHANNEL))
        found = []
        for ladder in ladders:
            logits = np.stack([next(maps) for _ in ladder])
            scores = self.click_scores(logits, ladder, height, width)
            order = np.argsort(-scores, kind="stable")
            found.append(
                [
                    Candidate(
                        ladder[i],
                        geometry.paste_region(logits[i], ladder[i], height, width),
                        float(scores[i]),
                    )
                    for i in order
                ]
            )
        chosen = [c for one in found for c in (one if refine < 0 else one[:refine])]
        refined = iter(self.second_pass(picture, chosen))
        return [
            [next(refined) if refine < 0 or i < refine else c for i, c in enumerate(one)]
            for one in found
        ]

    def box_window(self, box: Box) -> Window:
        """The window around a box that these weights were trained on."""
        return geometry.box_window(
            box, growth=self._rules.box_growth, max_aspect=self._rules.box_max_aspect
        )

    def click_windows(self, point: Point, height: int, width: int) -> tuple[Window, ...]:
        """The windows that these weights try for a click, smallest first."""
        if self._native:
            return (geometry.point_window(point, self.runtime.info.input_size / 2),)
        return geometry.click_windows(point, height, width, self._rules.click_halves)

    def box_scores(
        self,
        logits: npt.NDArray[np.float32],
        windows: Sequence[Window],
        height: int,
        width: int,
    ) -> npt.NDArray[np.float32]:
        """The predicted IoU (N,) of the logits (N, S, S) of N box windows, each judged alone."""
        if self._box_scorer is None:
            return np.array([stability(one) for one in logits], np.float32)
        measured = [
            features(one[None], [window], height, width)
            for one, window in zip(logits, windows, strict=True)
        ]
        return self._box_scorer(np.stack(measured))[:, 0]

    def click_scores(
        self,
        logits: npt.NDArray[np.float32],
        windows: Sequence[Window],
        height: int,
        width: int,
    ) -> npt.NDArray[np.float32]:
        """The predicted IoU (N,) of a click's candidates, from all of them together."""
        measured = features(logits, windows, height, width)
        if self._click_scorer is not None:
            return self._click_scorer(measured)
        # Without a learned scorer: sure, and not running out of its window.
        contact = measured[:, 7:11].max(1)
        scores: npt.NDArray[np.float32] = measured[:, 1] * (1 - contact) * (measured[:, 0] > 0)
        return scores

    def second_pass(
        self, picture: npt.NDArray[np.uint8], chosen: Sequence[Candidate]
    ) -> list[Candidate]:
        """Each candidate again, through the box window of its mask, averaged with the first."""
        height, width = picture.shape[:2]
        boxes = [None if self._native else c.region.box for c in chosen]
        again = iter(self.boxes(picture, [box for box in boxes if box is not None]))
        return [
            c if box is None else _blend(c, next(again), height, width)
            for c, box in zip(chosen, boxes, strict=True)
        ]

    def correct(
        self,
        image: npt.NDArray[np.uint8],
        mask: npt.NDArray[np.uint8] | None,
        points: Sequence[Point],
        *,
        box: Box | None = None,
    ) -> Correction:
        """The next mask of an object from the mask so far and its clicks; see `refine.correct`.

        Raises:
            WeightsError: the weights take no guidance.
            PromptError: there is no mask, box or positive click to lay a window around.
        """
        return correct(
            self.runtime, image, mask, points, box=box,
            growth=self._rules.box_growth, max_aspect=self._rules.box_max_aspect,
        )  # fmt: skip

    def window_logits(
        self, picture: npt.NDArray[np.uint8], windows: Sequence[Window], channel: int
    ) -> npt.NDArray[np.float32]:
        """Logits (N, S, S) float32 of any windows of a photo, in one batch."""
        info = self.runtime.info
        crops = np.stack([geometry.crop(picture, window, info.input_size) for window in windows])
        logits = self.runtime(crops)
        return logits[:, min(channel, info.channels - 1)]


def segment(
    image: ImageSource,
    *,
    points: Points | None = None,
    boxes: Boxes | None = None,
    prompts: Sequence[Prompt] | None = None,
    multimask: bool = False,
    weights: str | os.PathLike[str] = "default",
) -> list[Segmentation]:
    """Masks of one picture: `Predictor(weights)(image, ...)`, the weights kept for the next call.

    Args:
        image: a path, bytes, a PIL image or an array; see `load_image`.
        points: (N, 2) of x, y pixels, one object each.
        boxes: (N, 4) of x0, y0, x1, y1 pixels, one object each.
        prompts: objects that need more than one point, or a box with points.
        multimask: three masks of different scale for each point instead of one.
        weights: a shipped name or a path. A file that was replaced after its first use is not
            read again: make a new `Predictor` then.

    Raises:
        ImageError: the picture cannot be read.
        PromptError: a prompt lies outside the image, or there is none.
        WeightsError: the weights cannot be found or used.
    """
    predictor = _opened(os.fspath(weights))
    return predictor(image, points=points, boxes=boxes, prompts=prompts, multimask=multimask)


@lru_cache(maxsize=2)
def _opened(weights: str) -> Predictor:
    return Predictor(weights)


def _span(prompt: Prompt) -> Box | None:
    """The box around several positive points, if it has an area and no box says better."""
    places = [(p.x, p.y) for p in prompt.points if p.positive]
    if prompt.box is not None or len(places) < 2:
        return None
    (x0, y0), (x1, y1) = np.min(places, axis=0), np.max(places, axis=0)
    # The points lie inside the object, not on its outline.
    grow = 0.25 * max(x1 - x0, y1 - y0)
    return Box(x0 - grow, y0 - grow, x1 + grow, y1 + grow) if grow > 0 else None


def _blend(first: Candidate, second: Candidate, height: int, width: int) -> Candidate:
    """The mean of both passes' logits where both see; the first's score, which knows the scale."""
    a, b = first.region, second.region
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.columns.stop, b.columns.stop)
    y1 = min(a.rows.stop, b.rows.stop)
    logits = b.logits.copy()
    here = np.s_[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]
    logits[here] = (logits[here] + a.logits[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]) / 2
    return Candidate(second.window, Region(b.x, b.y, logits), first.score)


def _combine(
    prompt: Prompt,
    found: Sequence[Candidate],
    by_point: Mapping[Point, Sequence[Candidate]],
    height: int,
    width: int,
) -> list[Candidate]:
    """Candidates by score and by points; the best one mended where it does not agree with one."""
    if len(prompt.points) + (prompt.box is not None) == 1:
        return list(found)

    def wrong(candidate: Candidate) -> list[Point]:
        return [p for p in prompt.points if p.positive != candidate.region.covers(p)]

    def worth(candidate: Candidate) -> float:
        return candidate.score - sum(
            _MISSED_POINT if p.positive else _COVERED_POINT for p in wrong(candidate)
        )

    ordered = sorted(found, key=worth, reverse=True)
    best = ordered[0]
    if not wrong(best):
        return ordered
    full = best.region.logits_on_image(height, width)
    on = [point for point in prompt.points if point.positive]
    off = [point for point in prompt.points if not point.positive]
    for point in on:
        own = [c.region for c in by_point[point] if c.region.covers(point)]
        if own and not full[int(point.y), int(point.x)] > 0:
            part = full[own[0].rows, own[0].columns]
            np.maximum(part, own[0].logits, out=part)
    for point in off:
        own = [
            c.region
            for c in by_point[point]
            if c.region.covers(point) and not any(c.region.covers(kept) for kept in on)
        ]
        if own and full[int(point.y), int(point.x)] > 0:
            region = max(own, key=lambda region: region.area)
            part = full[region.rows, region.columns]
            np.minimum(part, -region.logits, out=part)
    return [Candidate(best.window, Region(0, 0, full), best.score), *ordered[1:]]


def _segmentation(
    picture: npt.NDArray[np.uint8], prompt: Prompt, candidate: Candidate
) -> Segmentation:
    logits = candidate.region.logits_on_image(*picture.shape[:2])
    return Segmentation(
        mask=logits > 0,
        score=candidate.score,
        prompt=prompt,
        window=candidate.window,
        image=picture,
        logits=logits,
    )


def _sam_prompt(
    point_coords: npt.ArrayLike | None,
    point_labels: npt.ArrayLike | None,
    box: npt.ArrayLike | None,
) -> Prompt:
    places = _numbers(point_coords, 2, "point_coords must be an array (N, 2) of x, y")
    labels = np.ones(len(places)) if point_labels is None else np.ravel(np.asarray(point_labels))
    if len(labels) != len(places):
        raise PromptError(f"{len(places)} points need as many labels, not {len(labels)}")
    points = [Point(x, y, label) for (x, y), label in zip(places, labels, strict=True)]
    corners = _numbers(box, 4, "box must be an array (4,) of x0, y0, x1, y1")
    if len(corners) > 1:
        raise PromptError("a prompt has one box: call predict once for each")
    return Prompt(tuple(points), Box(*corners[0]) if corners else None)


def _numbers(value: npt.ArrayLike | None, columns: int, wanted: str) -> list[list[float]]:
    """The rows of an array of that many columns, which may also be one row, or None."""
    if value is None:
        return []
    try:
        array = np.asarray(value, float)
        rows: list[list[float]] = array.reshape(-1, array.shape[-1]).tolist()
    except (TypeError, ValueError, IndexError) as error:
        raise PromptError(wanted) from error
    if array.size and array.shape[-1] != columns:
        raise PromptError(f"{wanted}, not of shape {array.shape}")
    return rows if array.size else []
