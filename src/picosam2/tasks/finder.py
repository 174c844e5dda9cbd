"""Finding objects by a finder: its boxes in a few views of the image, then the mask of each box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2._progress import Progress
from picosam2.geometry import ImageOrPyramid, Pyramid, Window, pixels_of
from picosam2.models.views import PART, decode, part_windows, thinned, whole_window
from picosam2.predictor import BOX_CHANNEL, Predictor
from picosam2.prompts import Box
from picosam2.runtimes.finder import BoxFinder
from picosam2.tasks.answers import Answer, Image, corners, covers_image, image_box, inside

if TYPE_CHECKING:
    from picosam2.tasks.everything import Everything

_LEAST = 0.02  # boxes of a lower objectness are not worth a look
_COMPARED = 1000  # boxes, the best ones
_ALWAYS = 50  # so many of the best are looked at, whatever their objectness
_VIEWS = 8  # in a batch
_FINER = 0.62  # side of the parts of a further layer, as a share of the one's before
_LESS = 0.8  # what a further layer's objectness counts: it sees less of what is around
_SAME = 0.85  # a second look through a box of a higher IoU with the first would show the same


@dataclass(frozen=True, eq=False)
class FoundBoxes:
    """Boxes that may hold an object, best first."""

    boxes: npt.NDArray[np.float32]
    """(K, 4) x0, y0, x1, y1 in pixels of the image, and inside it."""
    objectness: npt.NDArray[np.float32]
    """(K,) the IoU that each is expected to have with an object, 0..1."""

    def __len__(self) -> int:
        return len(self.boxes)

    def promising(self, least: float) -> FoundBoxes:
        """Those whose masks may have an expected IoU of `least` and more; see `combined`.

        No mask of the others can be good enough, however sure the segmenter is of it.
        """
        enough = [combined(each, 1) >= least for each in self.objectness.tolist()]
        return self._of(np.array(enough, np.bool_))

    def likely(self, least: float) -> FoundBoxes:
        """Those with an objectness of `least` and more, and the best 50 in any case."""
        return self._of((self.objectness >= least) | (np.arange(len(self)) < _ALWAYS))

    def _of(self, kept: npt.NDArray[np.bool_]) -> FoundBoxes:
        return FoundBoxes(self.boxes[kept], self.objectness[kept])


def find_boxes(
    image: ImageOrPyramid,
    finder: BoxFinder,
    *,
    most: int = 150,
    overlap: float = 0.75,
    parts: bool = True,
    layers: int = 0,
) -> FoundBoxes:
    """The boxes of an image that may hold an object.

    Args:
        image: the image, (H, W, 3) RGB uint8, or its pyramid.
        finder: what finds them.
        most: so many at most.
        overlap: of boxes with a higher IoU the best is kept.
        parts: look at parts of the image, too, where small objects are larger.
        layers: further layers of smaller and smaller parts, if any are looked at.
    """
    height, width = pixels_of(image).shape[:2]
    views = [[whole_window(height, width)]]
    if parts:
        views[0] += part_windows(height, width)
        views += [
            part_windows(height, width, PART * _FINER**layer) for layer in range(1, layers + 1)
        ]
    proposed = [_proposed(image, finder, windows) for windows in views]
    boxes = np.concatenate([boxes for boxes, _ in proposed])
    objectness = np.concatenate(
        [each * np.float32(_LESS**layer) for layer, (_, each) in enumerate(proposed)]
    )
    best = np.argsort(-objectness, kind="stable")[:_COMPARED]
    boxes, objectness = boxes[best], objectness[best]
    kept = thinned(boxes, overlap, most)
    return FoundBoxes(boxes[kept], objectness[kept])


def _proposed(
    image: ImageOrPyramid, finder: BoxFinder, windows: Sequence[Window]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The boxes (K, 4) in some views of an image, best first, and their objectness (K,)."""
    if not windows:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    height, width = pixels_of(image).shape[:2]
    size = finder.input_size
    cells = [
        finder(np.stack([geometry.crop(image, w, size) for w in windows[start : start + _VIEWS]]))
        for start in range(0, len(windows), _VIEWS)
    ]
    return decode(np.concatenate(cells), windows, height, width, size, _LEAST)


def answers_by_finder(
    predictor: Predictor,
    finder: BoxFinder,
    image: Image,
    chosen: Everything,
    progress: Progress | None,
) -> list[Answer]:
    """What the windows of the finder's boxes show, where it is good enough, in no order.

    The best masks are looked at once more, through the window of their own box, where this is not
    nearly the finder's: it lies closer to the object, and the network is best at such boxes.
    """
    pyramid = Pyramid(image)
    boxes = find_boxes(
        pyramid, finder, most=chosen.max_boxes, overlap=chosen.box_overlap,
        layers=chosen.crop_n_layers,
    )  # fmt: skip
    proposed = boxes.likely(chosen.objectness_thresh).promising(chosen.least_iou)
    places = [
        _Place(Box(*edges), objectness)
        for edges, objectness in zip(
            proposed.boxes.tolist(), proposed.objectness.tolist(), strict=True
        )
    ]
    seen = _look(predictor, pyramid, places, chosen, progress)
    ranked = sorted(seen, key=lambda place: -seen[place].answer.score)
    own_boxes = np.array([corners(seen[place].box) for place in ranked]).reshape(-1, 4)
    best = thinned(own_boxes, chosen.mask_overlap, chosen.second_looks).tolist()
    again = [ranked[i] for i in best if _differ(seen[ranked[i]].box, places[ranked[i]].box)]
    closer = [_Place(seen[place].box, places[place].objectness) for place in again]
    answers = {place: first.answer for place, first in seen.items()}
    for i, second in _look(predictor, pyramid, closer, chosen, progress, done=len(places)).items():
        if second.answer.score > answers[again[i]].score:
            answers[again[i]] = second.answer
    return list(answers.values())


@dataclass(frozen=True, slots=True)
class _Place:
    """A box to look at, and the objectness that the finder gave it."""

    box: Box
    objectness: float


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The answer of a place, and the tight box around its mask."""

    answer: Answer
    box: Box


def _look(
    predictor: Predictor,
    image: Pyramid,
    places: Sequence[_Place],
    chosen: Everything,
    progress: Progress | None,
    *,
    done: int = 0,
) -> dict[int, _Seen]:
    """What the box windows of some places show, where it is good enough, by the place's number.

    `done` is the number of windows that were looked through before.
    """
    height, width = image.image.shape[:2]
    seen: dict[int, _Seen] = {}
    for start in range(0, len(places), chosen.points_per_batch):
        some = places[start : start + chosen.points_per_batch]
        windows = [predictor.box_window(place.box) for place in some]
        maps = predictor.window_logits(image, windows, BOX_CHANNEL)
        predicted = predictor.box_scores(maps, windows, height, width).tolist()
        for number, (place, window, logits, score) in enumerate(
            zip(some, windows, maps, predicted, strict=True), start
        ):
            expected = combined(place.objectness, score)
            if expected < chosen.least_iou:
                continue
            if (
                masks.stability(logits, chosen.stability_score_offset)
                < chosen.stability_score_thresh
            ):
                continue
            mask = inside(logits, window, height, width)
            own = image_box(mask, window, height, width)
            if own is not None and not covers_image(mask, window, height, width):
                answer = Answer(place.box, window, logits.copy(), expected)
                seen[number] = _Seen(answer, own)
        if progress:
            progress(done + min(start + len(some), len(places)), done + len(places))
    return seen


def _differ(box: Box, other: Box) -> bool:
    """Whether two boxes are so unlike that their windows show the object differently."""
    return bool(masks.box_iou(np.array(corners(box)), np.array([corners(other)]))[0] < _SAME)


def combined(objectness: float, predicted: float) -> float:
    """The expected IoU of a mask, from the objectness of its box and its predicted IoU.

    The one knows whether the box holds an object, and the other how good the mask is if it does.
    Of the products of powers of both this one ranked held-out images best.
    """
    return float(objectness**0.5 * predicted)
