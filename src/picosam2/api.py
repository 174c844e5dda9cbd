"""From a picture and a click to masks in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from picosam2.images import ImageSource
from picosam2.predictor import Predictor
from picosam2.prompts import Boxes, Points, Prompt
from picosam2.results import Segmentation


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
        PromptError: a prompt lies outside the picture, or there is none.
        WeightsError: the weights cannot be found or used.
    """
    predictor = _opened(os.fspath(weights))
    return predictor(image, points=points, boxes=boxes, prompts=prompts, multimask=multimask)


@lru_cache(maxsize=2)
def _opened(weights: str) -> Predictor:
    return Predictor(weights)
