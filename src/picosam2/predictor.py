"""An image and prompts in, masks out: the path of a pixel from click to `Segmentation`.

A box goes through one window. A click goes through several windows of rising size in one batch; a
small scorer that sees all of them chooses the scale, and then the chosen mask's own box gives a
second, sharper pass (coarse to fine). Every further click corrects the answer so far, by a window
of a network that takes guidance; networks without it see no prompt but where the window is, and
honor further points by arithmetic on candidates: see `Predictor.__call__`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2 import geometry
from picosam2._words import counted
from picosam2.errors import PromptError, WeightsError
from picosam2.geometry import ImageOrPyramid, Pyramid, Window, pixels_of
from picosam2.guidance import CERTAIN, MaskSoFar
from picosam2.images import ImageSource, load_image
from picosam2.masks import Region, bbox, stability
from picosam2.prompts import Box, Boxes, Point, Points, Prompt, as_array, as_prompts, given_prompts
from picosam2.refine import Correction, Known, correct, is_settled, obeyed
from picosam2.results import Segmentation
from picosam2.runtimes.protocol import FlipAverage, Runtime
from picosam2.runtimes.weights import load_runtime
from picosam2.scorer import Ladder, features, rule_scores

BOX_CHANNEL, CLICK_CHANNEL = 0, 1
"""The logit channels of a two-channel network; a network with one uses it for both."""

MULTIMASKS = 3
"""Masks that `multimask` returns, like SAM."""

# Prompts whose windows share a batch, at most, and the pixels of the images that they stand for
# together: what they find is pasted at full size.
_TOGETHER, _MAX_PIXELS_TOGETHER = 10, 4_000_000

# Cells along a window's long side, at most, on which a second pass is told the first mask. The
# network's own logits are several times coarser.
_CELLS = 1280

# What a positive point that a candidate misses takes off its score, and a negative one that it
# covers. Where agreeing with all points came before any score, fragments won: docs/click.md.
_MISSED_POINT, _COVERED_POINT = 0.4, 0.05


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer for a prompt: logits (h, w) on some pixels of the image, and the predicted IoU."""

    window: Window
    pasted: Region | None
    """The logits; None if `make` makes them when they are needed."""
    score: float
    make: Callable[[], Region] | None = None
    """Makes the logits anew from the network's own, which are small."""

    @cached_property
    def region(self) -> Region:
        """The logits on the image's pixels."""
        return self.remake() if self.pasted is None else self.pasted

    @property
    def remake(self) -> Callable[[], Region]:
        """`make`, or what gives the region itself."""
        return self.make or partial(_same, self.region)

    @cached_property
    def box(self) -> Box | None:
        """The tight box around the mask, in pixels of the image; None if the mask is empty."""
        if self.pasted is None and isinstance(self.make, _Paste):
            return self.make.box
        return self.region.box

    @property
    def is_empty(self) -> bool:
        """Whether no pixel is on the object."""
        return self.box is None if self.pasted is None else not self.pasted.mask.any()

    @property
    def lean(self) -> Candidate:
        """The candidate without its logits, if it can make them anew."""
        return self if self.make is None else replace(self, pasted=None)

    def part(self, columns: slice) -> Region:
        """The logits on some columns of the image at least."""
        if self.pasted is None and isinstance(self.make, _Paste):
            return self.make.part(columns)
        return self.region

    def mask(self, height: int, width: int) -> npt.NDArray[np.bool_]:
        """The mask on the whole image, (height, width) bool."""
        return self.region.on_image(height, width)

    def mask_so_far(self, height: int, width: int) -> MaskSoFar:
        """What the next window is told of the mask."""
        if isinstance(self.make, _Paste):
            return self.make.mask_so_far
        return MaskSoFar.of_region(self.region, height, width)


@dataclass(frozen=True, eq=False)
class _Paste:
    """Pastes the logits (S, S) of a window on an image of (height, width) when it is called."""

    logits: npt.NDArray[np.float32]
    window: Window
    height: int
    width: int

    def __call__(self) -> Region:
        """All of the window's logits."""
        return geometry.paste_region(self.logits, self.window, self.height, self.width)

    def part(self, columns: slice) -> Region:
        """The logits on some columns of the image."""
        return geometry.paste_region(self.logits, self.window, self.height, self.width, columns)

    @property
    def mask_so_far(self) -> MaskSoFar:
        """The probabilities, on cells of several pixels if the window is large."""
        step = max(math.ceil(max(self.window.width, self.window.height) / _CELLS), 1)
        height, width = math.ceil(self.height / step), math.ceil(self.width / step)
        region = geometry.paste_region(self.logits, self.window.in_cells(step), height, width)
        return replace(MaskSoFar.of_region(region, height, width), step=step)

    @property
    def box(self) -> Box | None:
        """The tight box around the mask, in pixels of the image; None if it is empty."""
        columns = geometry.positive_columns(self.logits, self.window, self.width)
        return None if columns is None else self.part(columns).box


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
        self._image: Pyramid | None = None

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        runtime: str = "onnx",
        quantized: bool = False,
        threads: int | None = None,
        flip: bool = False,
    ) -> Predictor:
        """Open weights of the Hugging Face Hub, or of a folder that `picosam2 export hub` wrote.

        Args:
            source: a model's name, "org/name", which needs the extra `hub`, or a folder.
            revision: of a model on the hub: a commit's hash, which never changes, a tag or a
                branch.
            runtime: what runs the network: onnx, openvino or torch.
            quantized: the weights in 8 bits.
            threads, flip: as for the class.

        Raises:
            WeightsError: there is no such model, or it is damaged, or not of this project.
            MissingExtraError: huggingface_hub is not installed.
        """
        from picosam2.runtimes.hub import pretrained  # few need it, and importing takes time

        path = pretrained(source, revision=revision, runtime=runtime, quantized=quantized)
        return cls(path, runtime=runtime, threads=threads, flip=flip)

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
        """Masks of one image, one for each prompt, in order: prompts, then points, then boxes.

        Args:
            image: a path, bytes, a PIL image or an array; see `images.load_image`.
            points: (N, 2) of x, y pixels, one object each.
            boxes: (N, 4) of x0, y0, x1, y1 pixels, one object each.
            prompts: objects that need more than one point, a box with points, or a mask so far.
            multimask: three masks of different scale for each prompt that has points and neither a
                box nor a mask, best first, instead of one.

        Several clicks of one prompt, by weights with guidance: the mask, the box or the first
        positive click is answered first, and every further click corrects the answer so far, in the
        order of the points. Of the clicks with a given mask, those that it agrees with already are
        taken as known, up to the first that it contradicts, or the last. A mask with no click is
        answered anew by its box.

        By weights without guidance: a mask counts as its box. The windows of every positive point
        are tried, and so is a box window around all of them; each positive point that a candidate
        misses takes much off its score, and each negative one that it covers a little. To the best
        one, the best mask of each positive point that it still misses is added. Then, for each
        negative point still covered, the smallest of its own masks that spares the positive points
        is cut out.

        The score of an empty mask is 0.

        Raises:
            ImageError: the image cannot be read.
            PromptError: a prompt lies outside the image, its mask has another size, or there is no
                prompt.
        """
        pixels = load_image(image)
        listed = given_prompts(prompts)
        if points is not None or boxes is not None or prompts is None:
            listed += as_prompts(points, boxes)
        groups = self._answers(Pyramid(pixels), listed, multimask)
        return [answer for group in groups for answer in group]

    def _answers(
        self, image: Pyramid, prompts: Sequence[Prompt], multimask: bool
    ) -> list[list[Segmentation]]:
        """The masks of each prompt: one, or up to `MULTIMASKS`; see `__call__`."""
        height, width = image.image.shape[:2]
        prompts = [prompt.within(height, width) for prompt in prompts]
        groups: list[list[Segmentation]] = []
        together = min(max(_MAX_PIXELS_TOGETHER // (height * width), 1), _TOGETHER)
        for start in range(0, len(prompts), together):
            some = prompts[start : start + together]
            answers = self.candidates(image, some, several=multimask)
            for prompt in some:
                several = multimask and prompt.box is None and prompt.mask is None
                chosen = answers.pop(0)[: MULTIMASKS if several else 1]
                groups.append(
                    [_segmentation(image.image, prompt, candidate) for candidate in chosen]
                )
        return groups

    # -- SAM 2's way -------------------------------------------------------------------------

    def set_image(self, image: ImageSource) -> None:
        """Keep an image for the `predict` calls to come. `ImageError` if it cannot be read."""
        self._image = Pyramid(load_image(image))

    def reset_image(self) -> None:
        """Forget the image."""
        self._image = None

    def predict(
        self,
        point_coords: npt.ArrayLike | None = None,
        point_labels: npt.ArrayLike | None = None,
        box: npt.ArrayLike | None = None,
        mask_input: npt.ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Masks of the kept image, with the arguments and shapes of `SAM2ImagePredictor`.

        Args:
            point_coords: (N, 2) x, y in pixels, all of one object; (B, N, 2) for B objects.
            point_labels: (N,) 1 for on the object, 0 for off it; (B, N) for B objects.
            box: (4,) x0, y0, x1, y1 in pixels; (B, 4) for B objects.
            mask_input: (1, S, S) or (S, S) logits of the whole image, as the third result of a call
                before, one for each of B objects: the points correct that mask.
            multimask_output: three masks of different scale for points without a box and without a
                mask, else one.
            return_logits: logits instead of booleans.
            normalize_coords: False if points and boxes are given as shares of the image, 0..1.

        Returns:
            masks (M, H, W) bool (float32 logits with `return_logits`), scores (M,) float32, and
            low-resolution logits (M, 256, 256) float32 of the whole image. For B > 1 objects all
            three have a first axis of B more.

        Raises:
            PromptError: no image is set, shapes do not fit each other, or there is no prompt.
        """
        if self._image is None:
            raise PromptError("there is no image: call set_image first")
        height, width = self._image.image.shape[:2]
        scale = (1, 1) if normalize_coords else (width, height)
        prompts = _sam_prompts(point_coords, point_labels, box, mask_input, (height, width), scale)
        answers = self._answers(self._image, prompts, multimask_output)
        for prompt, group in zip(prompts, answers, strict=True):
            if multimask_output and prompt.box is None and prompt.mask is None:
                group += group[-1:] * (MULTIMASKS - len(group))
        logits = np.stack([np.stack([_logits(answer) for answer in group]) for group in answers])
        low = np.stack([[_low_resolution(part) for part in parts] for parts in logits])
        scores = np.array([[answer.score for answer in group] for group in answers], np.float32)
        masks = logits if return_logits else logits > 0
        return (masks, scores, low) if len(prompts) > 1 else (masks[0], scores[0], low[0])

    # -- how it is done ----------------------------------------------------------------------

    def candidates(
        self,
        image: ImageOrPyramid,
        prompts: Sequence[Prompt],
        *,
        several: bool = False,
    ) -> list[list[Candidate]]:
        """The answers for each prompt, best first. Windows of all prompts share their batches.

        `image` is (H, W, 3) RGB uint8, or its pyramid; the prompts lie inside it. With `several` a
        first click has an answer of each scale, and a corrected one up to `MULTIMASKS`; otherwise
        it has the best one at least.
        """
        size = pixels_of(image).shape[:2]
        starts = [self._start(prompt) for prompt in prompts]
        firsts = [start.prompt for start in starts if start.prompt is not None]
        answered = iter(self._first_answers(image, firsts, several))
        answers = []
        for prompt, start in zip(prompts, starts, strict=True):
            if start.prompt is None:
                assert prompt.mask is not None
                mask = MaskSoFar.of_mask(prompt.mask)
                answers.append([self._corrected(image, prompt, mask, start)])
                continue
            first = next(answered)
            if start.clicks:
                first = [
                    self._corrected(image, prompt, MaskSoFar.of_region(c.region, *size), start)
                    for c in first[: MULTIMASKS if several else 1]
                ]
            answers.append(first)
        return answers

    def _start(self, prompt: Prompt) -> _Start:
        """How a prompt is taken apart into a first prompt and clicks that correct its answer."""
        if prompt.mask is not None and not prompt.has_mask:
            prompt = replace(prompt, mask=None)
        if prompt.mask is not None and not (self.runtime.info.guidance and prompt.points):
            prompt = replace(prompt, mask=None, box=prompt.box or _bounds(prompt))
        if not self.runtime.info.guidance:
            return _Start(prompt)
        if prompt.mask is not None:
            return _Start(None, *_known(prompt))
        if prompt.box is not None:
            return _Start(Prompt(box=prompt.box), (), prompt.points)
        first = next(i for i, point in enumerate(prompt.points) if point.positive)
        click = prompt.points[first]
        others = prompt.points[:first] + prompt.points[first + 1 :]
        return _Start(Prompt((click,)), (click,), others)

    def _first_answers(
        self, image: ImageOrPyramid, prompts: Sequence[Prompt], several: bool
    ) -> list[list[Candidate]]:
        """The answers for each prompt of points and boxes, without guidance.

        Of a click it is the best one at least, with `several` one of each scale.
        """
        height, width = pixels_of(image).shape[:2]
        boxes = self.boxes(image, [p.box for p in prompts if p.box is not None])
        clicked = [point for prompt in prompts for point in prompt.points]
        spans = [_span(p) for p in prompts]
        around = self.boxes(image, [span for span in spans if span is not None])
        # Arithmetic on candidates needs all of them.
        combined = any(len(p.points) + (p.box is not None) > 1 for p in prompts)
        clicks = self.clicks(image, clicked, every=several or combined)
        answers = []
        for prompt, span in zip(prompts, spans, strict=True):
            first = [boxes.pop(0)] if prompt.box is not None else []
            by_point = {point: clicks.pop(0) for point in prompt.points}
            if span is not None:
                first.append(around.pop(0))
            if prompt.box is None:
                for point, candidates in by_point.items():
                    first += candidates if point.positive else []
            answers.append(_combine(prompt, first, by_point, height, width))
        return answers

    def _corrected(
        self,
        image: ImageOrPyramid,
        prompt: Prompt,
        mask: MaskSoFar,
        start: _Start,
    ) -> Candidate:
        """The answer after the clicks that follow a start, one window each.

        `mask` is the start's answer.
        """
        height, width = mask.shape
        known = list(start.known)
        box = prompt.box
        is_given = start.prompt is None
        for click in start.clicks:
            known.append(click)
            if is_given and mask.box is None:
                # Clicks have emptied the given mask: go on where it was.
                box = prompt.box or _bounds(prompt)
            settled = is_given or is_settled(known, box)
            correction = self.correct(image, mask, known, box=box, settled=settled)
            mask = MaskSoFar.of_region(correction.region, height, width)
        (score,) = self.box_scores(correction.answer[None], [correction.window], height, width)
        return _of_correction(correction, known, float(score), height, width)

    def boxes(self, image: ImageOrPyramid, boxes: Sequence[Box]) -> list[Candidate]:
        """One candidate for each box, from its window, in one batch."""
        if not boxes:
            return []
        height, width = pixels_of(image).shape[:2]
        windows = [self.box_window(box) for box in boxes]
        logits = self.window_logits(image, windows, BOX_CHANNEL)
        scores = self.box_scores(logits, windows, height, width)
        return [
            _pasted(mask_logits, window, float(score), height, width)
            for window, mask_logits, score in zip(windows, logits, scores, strict=True)
        ]

    def clicks(
        self,
        image: ImageOrPyramid,
        points: Sequence[Point],
        *,
        refine: int = 1,
        every: bool = True,
    ) -> list[list[Candidate]]:
        """The candidates of each click, best first: one of each scale, or at least the best.

        The best one comes from the windows that `Ladder` looks through. With `every` the others
        are looked through after it, for the candidates of the other scales; their order is that of
        the scores that all windows give. The windows of all clicks share their batches. The best
        `refine` of each click (all, if negative) get the second pass, through the box window of
        their mask.
        """
        if not points:
            return []
        height, width = pixels_of(image).shape[:2]
        scorer = self._click_scorer
        every = every or scorer is None or scorer.start is None
        ladders = [
            Ladder(self.click_windows(point, height, width), height, width, scorer)
            for point in points
        ]
        while any(self._look(image, ladders, [ladder.wanted() for ladder in ladders])):
            pass
        orders = [ladder.ranked()[:1] for ladder in ladders]
        if every:
            self._look(image, ladders, [ladder.missing() for ladder in ladders])
            for ladder, order in zip(ladders, orders, strict=True):
                order += [pair for pair in ladder.ranked() if pair[0] != order[0][0]]
        paste = _pasted if every or not refine or self._native else _seen_first
        answers = [
            _empty_last(
                paste(ladder.logits[place], ladder.windows[place], score, height, width)
                for place, score in order
            )
            for ladder, order in zip(ladders, orders, strict=True)
        ]
        heads = [candidates if refine < 0 else candidates[:refine] for candidates in answers]
        chosen = [c for head in heads for c in head]
        clicked = [point for point, head in zip(points, heads, strict=True) for _ in head]
        refined = iter(self.second_pass(image, chosen, clicked))
        for number, (candidates, head) in enumerate(zip(answers, heads, strict=True)):
            candidates[: len(head)] = [next(refined) for _ in head]
            if every or candidates[0].score:
                answers[number] = _empty_last(candidates)
            else:  # then one of the other windows may hold something
                answers[number] = self.clicks(image, [points[number]], refine=refine)[0]
        return answers

    def _look(
        self,
        image: ImageOrPyramid,
        ladders: Sequence[Ladder],
        places: Sequence[Sequence[int]],
    ) -> Sequence[Sequence[int]]:
        """Look through the windows at those places of each click, in one batch; give the places."""
        windows = [
            ladder.windows[at] for ladder, some in zip(ladders, places, strict=True) for at in some
        ]
        if windows:
            maps = self.window_logits(image, windows, CLICK_CHANNEL)
            parts = np.split(maps, np.cumsum([len(some) for some in places])[:-1])
            for ladder, some, part in zip(ladders, places, parts, strict=True):
                if some:
                    ladder.add(some, part)
        return places

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
            return np.array([stability(mask_logits) for mask_logits in logits], np.float32)
        measured = [
            features(mask_logits[None], [window], height, width)
            for mask_logits, window in zip(logits, windows, strict=True)
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
        return rule_scores(measured) if self._click_scorer is None else self._click_scorer(measured)

    def second_pass(
        self, image: ImageOrPyramid, chosen: Sequence[Candidate], points: Sequence[Point]
    ) -> list[Candidate]:
        """Each click's candidate again, through the box window of its mask.

        Weights with guidance are told the first mask and the click. Without it, the logits of both
        passes are averaged where the two windows overlap.
        """
        if self.runtime.info.guidance:
            return self._guided_pass(image, chosen, points)
        boxes = [None if self._native else c.box for c in chosen]
        again = iter(self.boxes(image, [box for box in boxes if box is not None]))
        return [
            c if box is None else _blend(c, next(again))
            for c, box in zip(chosen, boxes, strict=True)
        ]

    def _guided_pass(
        self, image: ImageOrPyramid, chosen: Sequence[Candidate], points: Sequence[Point]
    ) -> list[Candidate]:
        """`second_pass` by weights with guidance; the first pass's score, which knows the scale."""
        height, width = pixels_of(image).shape[:2]
        known = [
            Known(c.mask_so_far(height, width), [point], c.box, settled=False)
            for c, point in zip(chosen, points, strict=True)
            if c.box is not None
        ]
        corrections = iter(self._correct(image, known))
        return [
            c
            if c.box is None
            else _of_correction(next(corrections), [point], c.score, height, width)
            for c, point in zip(chosen, points, strict=True)
        ]

    def correct(
        self,
        image: ImageOrPyramid,
        mask: npt.NDArray[np.uint8] | MaskSoFar | None,
        points: Sequence[Point],
        *,
        box: Box | None = None,
        settled: bool = True,
    ) -> Correction:
        """The next mask of an object from the mask so far and its clicks; see `refine.correct`.

        Args:
            image: (H, W, 3) RGB uint8, or its pyramid.
            mask: the mask so far; an array is (H, W) uint8, 255 times its probability.
            points: all clicks, in the order they were given.
            box: the box that the object was given with, if it was.
            settled: whether the mask counts in the answer away from the newest click; the first
                mask of a click alone should not, since its scale is a guess.

        Raises:
            WeightsError: the weights take no guidance.
            PromptError: there is no mask, box or positive click to lay a window around.
        """
        return self._correct(image, [Known(mask, points, box, settled)])[0]

    def _correct(self, image: ImageOrPyramid, known: Sequence[Known]) -> list[Correction]:
        return correct(
            self.runtime, image, known,
            growth=self._rules.box_growth, max_aspect=self._rules.box_max_aspect,
        )  # fmt: skip

    def window_logits(
        self, image: ImageOrPyramid, windows: Sequence[Window], channel: int
    ) -> npt.NDArray[np.float32]:
        """Logits (N, S, S) float32 of any windows of an image, in one batch."""
        info = self.runtime.info
        crops = [geometry.crop(image, window, info.input_size) for window in windows]
        logits = self.runtime(crops[0][None] if len(crops) == 1 else np.stack(crops))
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
    """Masks of one image: `Predictor(weights)(image, ...)`, the weights kept for the next call.

    Args:
        image: a path, bytes, a PIL image or an array; see `load_image`.
        points: (N, 2) of x, y pixels, one object each.
        boxes: (N, 4) of x0, y0, x1, y1 pixels, one object each.
        prompts: objects that need more than one point, or a box with points.
        multimask: three masks of different scale for each point instead of one.
        weights: a shipped name or a path. A file that was replaced after its first use is not
            read again: make a new `Predictor` then.

    Raises:
        ImageError: the image cannot be read.
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


def _empty_last(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates in their order, but those with a mask first."""
    return sorted(candidates, key=lambda candidate: candidate.score == 0)


def _same(region: Region) -> Region:
    return region


def _pasted(
    logits: npt.NDArray[np.float32], window: Window, score: float, height: int, width: int
) -> Candidate:
    """The candidate of one window's logits (S, S); its score is 0 if its mask is empty."""
    make = _Paste(logits.copy(), window, height, width)
    small = window.width * window.height < geometry.MAX_AT_ONCE
    candidate = Candidate(window, make() if small else None, score, make)
    return replace(candidate, score=0.0) if candidate.is_empty else candidate


def _seen_first(
    logits: npt.NDArray[np.float32], window: Window, score: float, height: int, width: int
) -> Candidate:
    """Like `_pasted`, for a candidate that gets a second pass: few of its pixels will be needed."""
    candidate = Candidate(window, None, score, _Paste(logits.copy(), window, height, width))
    return candidate if candidate.box is not None else replace(candidate, score=0.0)


def _blend(first: Candidate, second: Candidate) -> Candidate:
    """The mean of both passes; the first's score, which knows the scale."""
    region = _mean(first, second)
    score = first.score if region.mask.any() else 0.0
    return Candidate(second.window, region, score, partial(_remade_mean, first.lean, second.lean))


def _remade_mean(first: Candidate, second: Candidate) -> Region:
    """`_mean` of two candidates that hold no logits, and still hold none after it."""
    return _mean(first.lean, second.lean)


def _mean(first: Candidate, second: Candidate) -> Region:
    """The second region's logits, and their mean with the first's where both see."""
    b = second.region
    a = first.part(b.columns)
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1 = min(a.columns.stop, b.columns.stop)
    y1 = min(a.rows.stop, b.rows.stop)
    logits = b.logits
    if second.pasted is not None or not logits.flags.writeable:
        logits = logits.copy()
    here = np.s_[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]
    logits[here] += a.logits[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]
    logits[here] /= 2
    return Region(b.x, b.y, logits)


def _of_correction(
    correction: Correction, points: Sequence[Point], score: float, height: int, width: int
) -> Candidate:
    """The candidate of a correction that knew some clicks; its score is 0 if its mask is empty."""
    return Candidate(
        correction.window,
        correction.region,
        score if correction.region.mask.any() else 0.0,
        partial(_obeyed, correction.logits, correction.window, height, width, tuple(points)),
    )


def _obeyed(
    logits: npt.NDArray[np.float32],
    window: Window,
    height: int,
    width: int,
    points: tuple[Point, ...],
) -> Region:
    """What `refine.correct` makes of a window's logits (S, S)."""
    return obeyed(geometry.paste_region(logits, window, height, width), window, points)


@dataclass(frozen=True)
class _Start:
    """A prompt taken apart."""

    prompt: Prompt | None
    """What is answered first; None if the answer so far is given, as a mask."""
    known: tuple[Point, ...] = ()
    """Clicks that the first answer knows."""
    clicks: tuple[Point, ...] = ()
    """The clicks that correct it, one after the other."""


def _known(prompt: Prompt) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """The clicks that a given mask knows already, and those that correct it: at least the last."""
    assert prompt.mask is not None
    agree = [(prompt.mask[int(p.y), int(p.x)] > 0.5) == p.positive for p in prompt.points]
    count = next((i for i, same in enumerate(agree) if not same), len(agree) - 1)
    return prompt.points[:count], prompt.points[count:]


def _bounds(prompt: Prompt) -> Box | None:
    """The box of a prompt's mask, if it has one that is not empty."""
    bounds = None if prompt.mask is None else bbox(prompt.mask > 0.5)
    return None if bounds is None else Box(*bounds)


def _combine(
    prompt: Prompt,
    candidates: Sequence[Candidate],
    by_point: Mapping[Point, Sequence[Candidate]],
    height: int,
    width: int,
) -> list[Candidate]:
    """Candidates by score and by points; the best one mended where it does not agree with one."""
    if len(prompt.points) + (prompt.box is not None) == 1:
        return list(candidates)

    def wrong(candidate: Candidate) -> list[Point]:
        return [p for p in prompt.points if p.positive != candidate.region.covers(p)]

    def worth(candidate: Candidate) -> float:
        return candidate.score - sum(
            _MISSED_POINT if p.positive else _COVERED_POINT for p in wrong(candidate)
        )

    ordered = sorted(candidates, key=worth, reverse=True)
    best = ordered[0]
    if not wrong(best):
        return ordered
    full = best.region.logits_on_image(height, width)
    on = [point for point in prompt.points if point.positive]
    off = [point for point in prompt.points if not point.positive]
    changes: list[tuple[Candidate, bool]] = []
    for point in on:
        own = [c for c in by_point[point] if c.region.covers(point)]
        if own and not full[int(point.y), int(point.x)] > 0:
            _change(full, own[0].region, True)
            changes.append((own[0], True))
    for point in off:
        own = [
            c
            for c in by_point[point]
            if c.region.covers(point) and not any(c.region.covers(kept) for kept in on)
        ]
        if own and full[int(point.y), int(point.x)] > 0:
            smallest = min(own, key=lambda c: c.region.area)
            _change(full, smallest.region, False)
            changes.append((smallest, False))
    remake = partial(
        _changed, best.remake, tuple((c.remake, add) for c, add in changes), height, width
    )
    score = best.score if (full > 0).any() else 0.0
    return [Candidate(best.window, Region(0, 0, full), score, remake), *ordered[1:]]


def _change(full: npt.NDArray[np.float32], region: Region, add: bool) -> None:
    """Join a region to the logits (H, W) of the whole image, or cut it out of them."""
    part = full[region.rows, region.columns]
    if add:
        np.maximum(part, region.logits, out=part)
    else:
        np.minimum(part, -region.logits, out=part)


def _changed(
    best: Callable[[], Region],
    changes: Sequence[tuple[Callable[[], Region], bool]],
    height: int,
    width: int,
) -> Region:
    """The logits of a region on the whole image, with others joined or cut out."""
    full = best().logits_on_image(height, width)
    for remake, add in changes:
        _change(full, remake(), add)
    return Region(0, 0, full)


def _segmentation(
    image: npt.NDArray[np.uint8], prompt: Prompt, candidate: Candidate
) -> Segmentation:
    height, width = image.shape[:2]
    return Segmentation.of_region(
        candidate.region,
        (height, width),
        score=candidate.score,
        prompt=prompt,
        window=candidate.window,
        image=image,
        logits=candidate.remake,
    )


def _sam_prompts(
    point_coords: npt.ArrayLike | None,
    point_labels: npt.ArrayLike | None,
    box: npt.ArrayLike | None,
    mask_input: npt.ArrayLike | None,
    size: tuple[int, int],
    scale: tuple[float, float],
) -> list[Prompt]:
    """The prompts that the arguments of `predict` mean, one for each object.

    `size` is that of the image, (H, W); x and y are multiplied by `scale`.
    """
    points_BN2 = _numbers(point_coords, 3, 2, "point_coords must be an array (N, 2) or (B, N, 2)")
    boxes_B4 = _numbers(box, 2, 4, "box must be an array (4,) or (B, 4) of x0, y0, x1, y1")
    logits_BSS = _numbers(mask_input, 3, None, "mask_input must be an array (S, S) or (B, S, S)")
    arrays = [array for array in (points_BN2, boxes_B4, logits_BSS) if array is not None]
    counts = {len(array) for array in arrays} or {1}
    if len(counts) > 1:
        raise PromptError(
            "points, boxes and masks must be of equally many objects, not of "
            + " and ".join(str(count) for count in sorted(counts))
        )
    count = counts.pop()
    points_BN2 = np.zeros((count, 0, 2)) if points_BN2 is None else points_BN2 * scale
    expected = points_BN2.shape[:2]
    labels_BN = np.ones(expected) if point_labels is None else as_array(point_labels)
    if labels_BN.size != math.prod(expected):
        labels = counted(labels_BN.size, "label")
        raise PromptError(
            f"{counted(math.prod(expected), 'point')} with {labels}: give one for each"
        )
    labels_BN = labels_BN.reshape(expected)
    prompts = []
    for index in range(count):
        rows = zip(points_BN2[index].tolist(), labels_BN[index].tolist(), strict=True)
        points = tuple(Point(x, y, label) for (x, y), label in rows)
        corners = None if boxes_B4 is None else (boxes_B4[index] * (*scale, *scale)).tolist()
        mask = None
        if logits_BSS is not None:
            logits = np.clip(_resized(logits_BSS[index], *size), -16, 16)
            mask = (1 / (1 + np.exp(-logits))).astype(np.float32)
        prompts.append(Prompt(points, None if corners is None else Box(*corners), mask))
    return prompts


def _numbers(
    value: npt.ArrayLike | None, axes: int, columns: int | None, wanted: str
) -> npt.NDArray[np.float64] | None:
    """An array of that many axes, the first of which may be left out; None if nothing is in it.

    The last axis has `columns` places, if that is a number.
    """
    if value is None:
        return None
    try:
        array = as_array(value).astype(float)
    except (TypeError, ValueError) as error:
        raise PromptError(wanted) from error
    if not array.size:
        return None
    if columns is not None and array.ndim == 1:
        array = array[None]
    if array.ndim == axes - 1:
        array = array[None]
    if array.ndim != axes or columns not in (None, array.shape[-1]):
        raise PromptError(f"{wanted}, not of shape {np.shape(value)}")
    return array


def _logits(answer: Segmentation) -> npt.NDArray[np.float32]:
    logits = answer.logits
    assert logits is not None  # every answer of a predictor has some
    return logits


def _low_resolution(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits of the whole image, 256 x 256.

    They are clipped alike on both sides first: what lies outside of the network's window is so far
    below zero that it would eat into small objects.
    """
    return _resized(np.clip(logits, -CERTAIN, CERTAIN), 256, 256)


def _resized(
    logits: npt.NDArray[np.floating[Any]], height: int, width: int
) -> npt.NDArray[np.float32]:
    """Logits of the whole image, in another size."""
    image = Image.fromarray(logits.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
