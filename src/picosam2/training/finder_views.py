"""Views of whole images, and what a finder should say of each of its cells.

A view is a square window of an image: the whole image letterboxed, or a part of it, as everything
mode looks at both. The objects in it are boxes; where the annotations name all objects, the rest is
background, and elsewhere it counts little.

Shape suffixes: B batch, N cells, M objects, S the view's side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from picosam2 import geometry
from picosam2.data.augment import AugmentConfig, Draws, _normalise, _photometric, _Uniforms
from picosam2.data.detections import Detections
from picosam2.data.image_store import ImageStore
from picosam2.errors import ConfigError
from picosam2.geometry import Window
from picosam2.masks import box_iou
from picosam2.models.views import STRIDES, cell_centers, whole_window

_Floats = npt.NDArray[np.float32]

_SIZES = ((0.0, 8.0), (2.5, 8.0), (2.5, 8.0), (2.5, math.inf))
"""Of each level: the longest sides of the boxes that its cells answer for, in its strides."""

_CENTER = 1.5  # cells up to so many strides from a box's middle answer for it
_SEEN = 0.5  # an object of which a smaller share of its box is in view is ignored
_SMALLEST = 5.0  # so is one with a shorter side, in pixels of the view
_LIKELY = 0.5  # what is less certain to be an object is background where it is cut off
_SAME = 0.6  # a detector's box with this IoU with an annotated one is the same object


@dataclass(frozen=True, kw_only=True)
class FinderTraining:
    """What a finder is shown, and what counts."""

    whole: float = 0.4
    """Share of the views that show the whole image."""
    smallest: float = 0.45
    """Side of the smallest view as a share of the image's long side; the largest is 1.1."""
    background: dict[str, float] = field(default_factory=dict)
    """By source: how much a cell without a labeled object counts as background, 0 to 1."""
    elsewhere: float = 0.1
    """The same for the sources not named."""
    least: float = 0.15
    """A detector's boxes with a lower score are left out."""
    sure: float = 0.6
    """The score from which on they count as much as annotated ones; below, in proportion."""
    boxes: float = 2.0
    """Weight of the boxes' loss (GIoU) against that of objectness."""
    rate: float = 0.4
    """Learning rate of the encoder, as a share of the others'."""
    frozen: int = 2
    """The first stages of the encoder, so many of five, stay as they are."""

    def __post_init__(self) -> None:
        for name in ("whole", "elsewhere"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must be from 0 to 1")
        if not 0.1 <= self.smallest <= 1:
            raise ConfigError("`smallest` must be from 0.1 to 1")
        if not all(0 <= share <= 1 for share in self.background.values()):
            raise ConfigError("the shares in `background` must be from 0 to 1")
        if not 0 <= self.least <= self.sure <= 1 or self.sure == 0:
            raise ConfigError("`least` must be from 0 to `sure`, and `sure` above 0 and up to 1")
        if min(self.boxes, self.rate) < 0:
            raise ConfigError("`boxes` and `rate` must not be negative")
        if not 0 <= self.frozen <= 5:
            raise ConfigError("`frozen` must be from 0 to 5, the stages of the encoder")


@dataclass(frozen=True, kw_only=True, eq=False)
class FinderBatch:
    """What one training step sees."""

    image_B3SS: Tensor
    """Normalized views, float32."""
    boxes_BN4: Tensor
    """x0, y0, x1, y1 of the object that a cell answers for, pixels of the view, float32."""
    positive_BN: Tensor
    """Whether there is one, bool."""
    certainty_BN: Tensor
    """How sure it is that this is an object, float32, 0..1: 1 where it was annotated."""
    weight_BN: Tensor
    """How much the cell counts in the loss of objectness, float32, 0..1."""

    def to(self, device: torch.device) -> FinderBatch:
        """The same on a device."""
        names = (each.name for each in fields(self))
        return FinderBatch(**{name: getattr(self, name).to(device) for name in names})


def targets(
    boxes_M4: _Floats, certainty_M: _Floats, ignored_K4: _Floats, size: int, background: float
) -> tuple[_Floats, npt.NDArray[np.bool_], _Floats, _Floats]:
    """What each cell of a view should say.

    Args:
        boxes_M4: the objects, x0, y0, x1, y1 in pixels of the view.
        certainty_M: how sure it is that each is an object, above 0 and up to 1.
        ignored_K4: objects that are not to be learned, neither as such nor as background.
        size: the view's side.
        background: weight of a cell without an object.

    Returns:
        boxes (N, 4), whether there is an object (N,), its certainty (N,), and the weight (N,); of
        `FinderBatch`.
    """
    centers_N2, stride_N = cell_centers(size)
    weight_N = np.full(len(centers_N2), background, np.float32)
    weight_N[_within(centers_N2, ignored_K4).any(1)] = 0
    boxes_N4 = np.zeros((len(centers_N2), 4), np.float32)
    positive_N = np.zeros(len(centers_N2), np.bool_)
    sure_N = np.zeros(len(centers_N2), np.float32)
    if len(boxes_M4):
        longest_M = (boxes_M4[:, 2:] - boxes_M4[:, :2]).max(1)
        low_N, high_N = np.array(_SIZES)[np.searchsorted(STRIDES, stride_N)].T
        ratio_NM = longest_M / stride_N[:, None]
        middle_M2 = (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2
        off_NM = (
            np.maximum(
                np.abs(centers_N2[:, :1] - middle_M2[:, 0]),
                np.abs(centers_N2[:, 1:] - middle_M2[:, 1]),
            )
            / stride_N[:, None]
        )
        answers_NM = (
            (ratio_NM >= low_N[:, None])
            & (ratio_NM < high_N[:, None])
            & (off_NM < _CENTER)
            & _within(centers_N2, boxes_M4)
        )
        area_M = (boxes_M4[:, 2:] - boxes_M4[:, :2]).prod(1)
        # Of several objects the smallest: the large ones have further cells. What may be no object
        # yields to what is one.
        cost_M = area_M / certainty_M**2
        choice_N = np.where(answers_NM, cost_M, np.inf).argmin(1)
        positive_N = answers_NM.any(1)
        boxes_N4 = np.where(positive_N[:, None], boxes_M4[choice_N], 0).astype(np.float32)
        sure_N = np.where(positive_N, certainty_M[choice_N], 0).astype(np.float32)
        weight_N[positive_N] = 1
    return boxes_N4, positive_N, sure_N, weight_N


def _within(points_N2: _Floats, boxes_M4: _Floats) -> npt.NDArray[np.bool_]:
    """Which points lie in which boxes, (N, M)."""
    x_N1, y_N1 = points_N2[:, :1], points_N2[:, 1:]
    x0_M, y0_M, x1_M, y1_M = boxes_M4.T
    inside: npt.NDArray[np.bool_] = (x_N1 > x0_M) & (x_N1 < x1_M) & (y_N1 > y0_M) & (y_N1 < y1_M)
    return inside


def view_boxes(
    boxes_M4: _Floats, window: Window, height: int, width: int, size: int
) -> tuple[_Floats, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """An image's boxes (M, 4) in pixels of a view of `window`, cut at its edges.

    Returns:
        the boxes (M, 4), which of them are to be learned (M,), and which to be ignored (M,).
    """
    seen = max(window.x0, 0.0), max(window.y0, 0.0), min(window.x1, width), min(window.y1, height)
    clipped = np.concatenate(
        [np.maximum(boxes_M4[:, :2], seen[:2]), np.minimum(boxes_M4[:, 2:], seen[2:])], 1
    )
    sides = clipped[:, 2:] - clipped[:, :2]
    visible = (sides > 0).all(1)
    share = sides.prod(1) / np.maximum((boxes_M4[:, 2:] - boxes_M4[:, :2]).prod(1), 1e-6)
    scale = size / window.width
    placed = (clipped - (window.x0, window.y0, window.x0, window.y0)) * scale
    good = visible & (share >= _SEEN) & (sides.min(1) * scale >= _SMALLEST)
    return placed.astype(np.float32), good, visible & ~good


class FinderViews:
    """Draws views from the training part of an image store."""

    def __init__(
        self,
        store: ImageStore,
        config: FinderTraining,
        augment: AugmentConfig,
        *,
        size: int,
        batch: int,
        seed: int,
        sources: dict[str, float] | None = None,
        detections: Detections | None = None,
    ) -> None:
        """Prepare drawing.

        Args:
            size: side of the views; `batch` views at once.
            sources: how often an image of a source is drawn, against 1 for those not named.
            detections: a detector's boxes, learned beside the annotated ones.

        Raises:
            ConfigError: an unknown source, nothing to draw, or boxes of images that are not there.
        """
        known = store.source_names
        if unknown := (set(sources or {}) | set(config.background)) - set(known):
            raise ConfigError(
                f"the store has no source {min(unknown)!r}: it has {', '.join(known)}"
            )
        self._boxes = boxes_by_image(store)
        self._certainty = [np.ones(len(boxes), np.float32) for boxes in self._boxes]
        if detections is not None:
            for row, detected in enumerate(detections.of_store(store)):
                self._boxes[row], self._certainty[row] = _with_detected(
                    self._boxes[row], detected, config
                )
        source = store.images["source"]
        weights = np.array([(sources or {}).get(name, 1.0) for name in known])[source]
        has_objects = np.array([len(boxes) > 0 for boxes in self._boxes])
        weights = weights * (~store.images["validation"] & has_objects)
        self._rows = np.flatnonzero(weights > 0)
        if not len(self._rows):
            raise ConfigError("there is nothing in the store to train on: check `sources`")
        self._cumulative = np.cumsum(weights[self._rows])
        self._background = np.array(
            [config.background.get(name, config.elsewhere) for name in known]
        )[source]
        self._store, self._config, self._augment = store, config, augment
        self._size, self._batch, self._seed = size, batch, seed

    def batch(self, step: int) -> FinderBatch:
        """The views of a step: a pure function of the seed and the step."""
        size = self._size
        pixels = np.empty((self._batch, size, size, 3), np.uint8)
        answers = []
        for slot in range(self._batch):
            rng = np.random.default_rng((self._seed, step, slot))
            place = np.searchsorted(self._cumulative, rng.random() * self._cumulative[-1], "right")
            index = int(self._rows[min(int(place), len(self._rows) - 1)])
            height, width = (int(self._store.images[index][name]) for name in ("height", "width"))
            window = self._window(rng, height, width)
            view = geometry.crop(self._store.image(index), window, size)
            boxes, learned, ignored = view_boxes(self._boxes[index], window, height, width, size)
            if rng.random() < self._augment.flip:
                view, boxes = view[:, ::-1], _mirrored(boxes, size)
            pixels[slot] = view
            certainty = self._certainty[index]
            ignored &= certainty >= _LIKELY
            answers.append(
                targets(
                    boxes[learned], certainty[learned], boxes[ignored], size,
                    float(self._background[index]),
                )
            )  # fmt: skip
        draws = Draws.of(self._batch, torch.Generator().manual_seed(self._seed * 1_000_003 + step))
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        image = image.to(torch.float32, memory_format=torch.contiguous_format)
        image = _photometric(image, _Uniforms(draws), draws.tile_3TT, self._augment)
        boxes_BN4, positive_BN, certainty_BN, weight_BN = (
            torch.from_numpy(np.stack(part)) for part in zip(*answers, strict=True)
        )
        return FinderBatch(
            image_B3SS=_normalise(image), boxes_BN4=boxes_BN4, positive_BN=positive_BN,
            certainty_BN=certainty_BN, weight_BN=weight_BN,
        )  # fmt: skip

    def _window(self, rng: np.random.Generator, height: int, width: int) -> Window:
        """The whole image, or a part of it that may reach a little past it."""
        long_side = max(height, width)
        if rng.random() < self._config.whole:
            return whole_window(height, width)
        side = long_side * math.exp(rng.uniform(math.log(self._config.smallest), math.log(1.1)))
        x, y = (
            rng.uniform(min(0.0, (limit - side) / 2), max(limit - side, (limit - side) / 2))
            for limit in (width, height)
        )
        return Window(x, y, x + side, y + side)


def boxes_by_image(store: ImageStore) -> list[_Floats]:
    """The boxes (M, 4) of every image of a store."""
    order = np.argsort(store.objects["image"], kind="stable")
    ends = np.cumsum(np.bincount(store.objects["image"], minlength=len(store.images)))
    boxes = store.objects["box"][order].astype(np.float32)
    return np.split(boxes, ends[:-1])


def _with_detected(
    annotated_M4: _Floats, detected_K5: _Floats, config: FinderTraining
) -> tuple[_Floats, _Floats]:
    """The boxes of an image with a detector's further ones, and how certain each is."""
    kept = detected_K5[detected_K5[:, 4] >= max(config.least, 1e-3)]
    new = np.array([not (box_iou(box[:4], annotated_M4) >= _SAME).any() for box in kept], np.bool_)
    kept = kept[new]
    certainty = np.minimum(kept[:, 4] / config.sure, 1)
    return (
        np.concatenate([annotated_M4, kept[:, :4]]),
        np.concatenate([np.ones(len(annotated_M4), np.float32), certainty]).astype(np.float32),
    )


def _mirrored(boxes: _Floats, size: int) -> _Floats:
    return np.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], 1)
