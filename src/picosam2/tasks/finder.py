"""Finding objects by a finder: its boxes in a few views of the image, then the mask of each box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from picosam2 import geometry, masks
from picosam2._progress import Progress
from picosam2.models.views import decode, part_windows, thinned, whole_window
from picosam2.predictor import BOX_CHANNEL, Predictor
from picosam2.prompts import Box
from picosam2.runtimes.finder import BoxFinder
from picosam2.tasks.answers import Answer, Image, image_box, inside

if TYPE_CHECKING:
    from picosam2.tasks.everything import Everything

_LEAST = 0.02  # boxes of a lower objectness are not worth a look
_COMPARED = 1000  # boxes, the best ones
_VIEWS = 8  # in a batch


@dataclass(frozen=True, eq=False)
class FoundBoxes:
    """Boxes that may hold an object, best first."""

    boxes: npt.NDArray[np.float32]
    """(K, 4) x0, y0, x1, y1 in pixels of the image, and inside it."""
    objectness: npt.NDArray[np.float32]
    """(K,) the IoU that each is expected to have with an object, 0..1."""

    def __len__(self) -> int:
        return len(self.boxes)


def find_boxes(
    image: Image,
    finder: BoxFinder,
    *,
    most: int = 150,
    overlap: float = 0.75,
    parts: bool = True,
) -> FoundBoxes:
    """The boxes of an image (H, W, 3) RGB uint8 that may hold an object.

    Args:
        image: the image.
        finder: what finds them.
        most: so many at most.
        overlap: of boxes with a higher IoU the best is kept.
        parts: look at parts of the image, too, where small objects are larger.
    """
    height, width = image.shape[:2]
    windows = [whole_window(height, width), *(part_windows(height, width) if parts else ())]
    size = finder.input_size
    cells = [
        finder(np.stack([geometry.crop(image, w, size) for w in windows[start : start + _VIEWS]]))
        for start in range(0, len(windows), _VIEWS)
    ]
    boxes, objectness = decode(np.concatenate(cells), windows, height, width, size, _LEAST)
    boxes, objectness = boxes[:_COMPARED], objectness[:_COMPARED]
    kept = thinned(boxes, overlap, most)
    return FoundBoxes(boxes[kept], objectness[kept])


def answers_by_finder(
    predictor: Predictor,
    finder: BoxFinder,
    image: Image,
    chosen: Everything,
    progress: Progress | None,
) -> list[Answer]:
    """What the windows of the finder's boxes show, where it is good enough, in no order."""
    height, width = image.shape[:2]
    proposed = find_boxes(image, finder, most=chosen.max_boxes, overlap=chosen.box_overlap)
    answers: list[Answer] = []
    for start in range(0, len(proposed), chosen.points_per_batch):
        some = slice(start, start + chosen.points_per_batch)
        boxes = [Box(*corners) for corners in proposed.boxes[some].tolist()]
        windows = [predictor.box_window(box) for box in boxes]
        maps = predictor.window_logits(image, windows, BOX_CHANNEL)
        predicted = predictor.box_scores(maps, windows, height, width)
        for box, window, logits, objectness, score in zip(
            boxes,
            windows,
            maps,
            proposed.objectness[some].tolist(),
            predicted.tolist(),
            strict=True,
        ):
            expected = combined(objectness, score)
            if expected < chosen.least_iou:
                continue
            stability = masks.stability(logits, chosen.stability_score_offset)
            if stability < chosen.stability_score_thresh:
                continue
            if image_box(inside(logits, window, height, width), window, height, width) is None:
                continue
            answers.append(Answer(box, window, logits.copy(), expected))
        if progress:
            progress(min(some.stop, len(proposed)), len(proposed))
    return answers


def combined(objectness: float, predicted: float) -> float:
    """The expected IoU of a mask, from the objectness of its box and its predicted IoU.

    The one knows whether the box holds an object, and the other how good the mask is if it does.
    Of the products of powers of both this one ranked held-out images best.
    """
    return float(objectness**0.5 * predicted)
