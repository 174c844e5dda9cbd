"""Every object of an image, without being pointed at.

A finder says which boxes hold an object (`tasks.finder`), or a grid of clicks leads to boxes
(`tasks.click_grid`); the segmenter makes each box a mask. Of masks that are alike the best is kept;
parts and wholes are not alike. The names of the settings are those of SAM's automatic mask
generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from picosam2._progress import Progress
from picosam2.errors import ConfigError
from picosam2.images import ImageSource, load_image
from picosam2.predictor import Predictor
from picosam2.results import Segmentation
from picosam2.runtimes.finder import BoxFinder, opened_finder
from picosam2.tasks.answers import different, segmentation
from picosam2.tasks.click_grid import answers_by_clicks
from picosam2.tasks.finder import answers_by_finder

Method: TypeAlias = Literal["finder", "grid"]
METHODS: Final = get_args(Method)

_PRED_IOU: Final[dict[str, float]] = {"finder": 0.4, "grid": 0.7}
_BOX_NMS: Final[dict[str, float]] = {"finder": 0.7, "grid": 0.9}
_MASK_NMS: Final[dict[str, float]] = {"finder": 0.75, "grid": 0.7}
_OF_ONE_METHOD: Final[dict[Method, tuple[str, ...]]] = {
    "finder": ("finder", "max_boxes", "objectness_thresh", "second_looks"),
    "grid": ("points_per_side",),
}


@dataclass(frozen=True, kw_only=True)
class Everything:
    """Settings, named as in SAM's automatic mask generator. `ConfigError` if one is impossible."""

    method: Method = "finder"
    """What finds objects: `finder`, a network that sees the whole image, or `grid`, clicks all over
    the image, each of which the segmenter answers."""
    finder: str = "finder"
    """The weights of the finder: the name of those that ship, or a file."""
    max_boxes: int = 120
    """So many boxes of the finder are looked at, at most, the best ones."""
    objectness_thresh: float = 0.22
    """Of the finder: beyond the best 50, boxes of a lower objectness are not looked at, 0..1. So an
    image with many objects gets more looks than one with few."""
    second_looks: int = 0
    """Of the finder: so many of the best masks are looked at once more, by their own boxes, where
    these differ from the finder's."""
    points_per_side: int = 24
    """Of the grid: clicks along each side of the image; windows of more than the smallest size have
    fewer."""
    points_per_batch: int = 64
    """Clicks or boxes whose windows are cut out and looked at together."""
    pred_iou_thresh: float | None = None
    """Masks with a lower predicted IoU are dropped, 0..1; None is the method's own threshold."""
    stability_score_thresh: float = 0.4
    """Masks that are less stable than this are dropped, 0..1 (`masks.stability`)."""
    stability_score_offset: float = 1.0
    """How far that score moves the threshold, in logits."""
    box_nms_thresh: float | None = None
    """Of boxes with a higher IoU than this, one is looked at; None is the method's own."""
    mask_nms_thresh: float | None = None
    """Of masks with a higher IoU than this, only the best is kept; None is the method's own."""
    crop_n_layers: int = 0
    """For small objects, further layers of smaller parts of the image that the finder looks at, or
    further grids of windows that are half as wide each time."""
    min_mask_region_area: int = 32
    """Pieces and holes of fewer pixels than this are removed, and so are smaller masks."""
    max_masks: int = 300
    """So many masks are kept at most, the best ones."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"there is no method {self.method!r}: use {' or '.join(METHODS)}")
        for name in ("points_per_side", "points_per_batch", "max_boxes", "max_masks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in (
            "objectness_thresh",
            "pred_iou_thresh",
            "stability_score_thresh",
            "box_nms_thresh",
            "mask_nms_thresh",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} must lie within 0 and 1, not {value}")
        if not 0 <= self.stability_score_offset < 32:
            raise ConfigError("stability_score_offset must lie within 0 and 32 logits")
        for name in ("crop_n_layers", "min_mask_region_area", "second_looks"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, not {getattr(self, name)}")

    def refuse_unused(self) -> None:
        """Refuse settings that only the other method uses.

        Raises:
            ConfigError: one of them is not as it is by default.
        """
        usual = type(self)()
        for method, names in _OF_ONE_METHOD.items():
            for name in names:
                if method != self.method and getattr(self, name) != getattr(usual, name):
                    option = "--" + name.replace("_", "-")
                    raise ConfigError(
                        f"the method {self.method} does not use {option}: leave it out, or add "
                        f"--method {method}"
                    )

    @property
    def least_iou(self) -> float:
        """`pred_iou_thresh`, or the method's own."""
        own = _PRED_IOU[self.method]
        return own if self.pred_iou_thresh is None else self.pred_iou_thresh

    @property
    def box_overlap(self) -> float:
        """`box_nms_thresh`, or the method's own."""
        own = _BOX_NMS[self.method]
        return own if self.box_nms_thresh is None else self.box_nms_thresh

    @property
    def mask_overlap(self) -> float:
        """`mask_nms_thresh`, or the method's own."""
        own = _MASK_NMS[self.method]
        return own if self.mask_nms_thresh is None else self.mask_nms_thresh


def everything(
    image: ImageSource,
    predictor: Predictor,
    settings: Everything | None = None,
    *,
    finder: BoxFinder | None = None,
    progress: Progress | None = None,
) -> list[Segmentation]:
    """Masks of all objects of an image, the largest first; none is an answer, too.

    Args:
        image: a path, bytes, a PIL image or an array; see `load_image`.
        predictor: makes the masks; for the grid, with weights that answer clicks.
        settings: how objects are found, and what is kept.
        finder: what finds boxes, for the method `finder`; by default the settings'.
        progress: receives the number of finished windows; a second look adds to the total.

    Each result's prompt is the box through which it was seen, and the click that led to it, if one
    did; its score is the predicted IoU. Masks may lie in one another, as a wheel in a car; none
    equals another by more than the settings allow. They take a bit a pixel of their box.

    Raises:
        ImageError: the image cannot be read.
        WeightsError: the settings' finder cannot be used.

    >>> from picosam2 import Predictor, sample
    >>> settings = Everything(method="grid", points_per_side=4)
    >>> results = everything(sample(), Predictor(), settings)
    >>> all(result.mask.shape == (480, 640) for result in results)
    True
    """
    chosen = settings or Everything()
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    if _one_color(pixels):  # the networks see shapes even there
        return []
    if chosen.method == "grid":
        answers = answers_by_clicks(predictor, pixels, chosen, progress)
    else:
        name = predictor.runtime.info.name
        finder = finder or opened_finder(chosen.finder, runtime=name)
        answers = answers_by_finder(predictor, finder, pixels, chosen, progress)
    answers.sort(key=lambda answer: -answer.score)
    kept = different(
        answers, height, width, threshold=chosen.mask_overlap,
        least=chosen.min_mask_region_area, most=chosen.max_masks,
    )  # fmt: skip
    made = [segmentation(pixels, answer, chosen.min_mask_region_area) for answer in kept]
    results = [result for result in made if result is not None]
    return sorted(results, key=lambda result: -result.area)


def _one_color(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether all pixels of an image (H, W, 3) are alike."""
    first = pixels[0, 0]
    return bool((pixels[0] == first).all() and all((row == first).all() for row in pixels))
