"""How good is this mask, and which window was the right one? A few thousand numbers say.

A click knows no scale, so the network answers for several windows around it and the choice is
learned: a small perceptron sees all candidates of a click together - how sure each is, whether it
leaves its window, how far neighbouring scales agree - and predicts each one's IoU with the object
that was meant. It runs outside the sensor, in NumPy. Boxes have a scorer of the same kind for their
one mask. `training.scorers` fits them on validation images; they travel in the weights file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2.errors import WeightsError
from picosam2.geometry import Window

FEATURES = (
    "area", "stability", "loose_stability", "inside", "outside", "edge_share", "centre",
    "left", "top", "right", "bottom", "width", "height", "fill", "beyond",
    "agree_larger", "agree_smaller", "grows",
)  # fmt: skip
"""What is measured of each candidate."""

_GRID = 32  # agreement between windows is measured on this many cells a side


def features(
    logits: npt.NDArray[np.float32], windows: Sequence[Window], height: int, width: int
) -> npt.NDArray[np.float32]:
    """The `FEATURES` of one click's candidates, or of a box's one: (N, F) float32.

    Args:
        logits: (N, S, S) float32, one map a window, smallest window first.
        windows: where they are on the image; all have the same centre.
        height, width: the image's size.
    """
    count, side, _ = logits.shape
    mask = logits > 0
    probability = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    area = mask.mean((1, 2))
    found = np.maximum(mask.sum((1, 2)), 1)
    empty = np.maximum((~mask).sum((1, 2)), 1)
    middle = slice(side // 2 - 2, side // 2 + 2)
    columns, rows = mask.any(1), mask.any(2)
    spans = columns.mean(1), rows.mean(1)
    out = np.empty((count, len(FEATURES)), np.float32)
    out[:, 0] = area
    out[:, 1] = _stability(logits, 1.0)
    out[:, 2] = _stability(logits, 3.0)
    out[:, 3] = (probability * mask).sum((1, 2)) / found
    out[:, 4] = ((1 - probability) * ~mask).sum((1, 2)) / empty
    out[:, 5] = (np.abs(logits) < 1).sum((1, 2)) / np.sqrt(found * side)
    out[:, 6] = np.tanh(logits[:, middle, middle].mean((1, 2)) / 4)
    out[:, 7], out[:, 9] = mask[:, :, 0].mean(1), mask[:, :, -1].mean(1)
    out[:, 8], out[:, 10] = mask[:, 0, :].mean(1), mask[:, -1, :].mean(1)
    out[:, 11], out[:, 12] = spans
    out[:, 13] = area / np.maximum(spans[0] * spans[1], 1e-6)
    out[:, 14] = [_beyond(window, height, width) for window in windows]
    out[:, 15:] = _agreement(logits, windows)
    return out


def _stability(logits: npt.NDArray[np.float32], offset: float) -> npt.NDArray[np.float64]:
    """IoU of the masks at logits above +offset and above -offset (N,): SAM's stability score."""
    inner, outer = (logits > offset).sum((1, 2)), (logits > -offset).sum((1, 2))
    share: npt.NDArray[np.float64] = inner / np.maximum(outer, 1)
    return share


def _beyond(window: Window, height: int, width: int) -> float:
    """The share of a window that lies outside the image."""
    seen_x = max(min(window.x1, width) - max(window.x0, 0), 0)
    seen_y = max(min(window.y1, height) - max(window.y0, 0), 0)
    return 1 - seen_x * seen_y / (window.width * window.height)


def _agreement(
    logits: npt.NDArray[np.float32], windows: Sequence[Window]
) -> npt.NDArray[np.float32]:
    """IoU with the next larger and next smaller window on what both see, and the area's growth."""
    count, side = logits.shape[:2]
    out = np.zeros((count, 3), np.float32)
    for small in range(count - 1):
        large = small + 1
        ratio = windows[small].width / windows[large].width
        low, high = side * (1 - ratio) / 2, side * (1 + ratio) / 2
        fine = Image.fromarray(logits[small]).resize((_GRID, _GRID), Image.Resampling.BILINEAR)
        coarse = Image.fromarray(logits[large]).resize(
            (_GRID, _GRID), Image.Resampling.BILINEAR, box=(low, low, high, high)
        )
        a, b = np.asarray(fine) > 0, np.asarray(coarse) > 0
        union = (a | b).sum()
        agree = (a & b).sum() / union if union else 1.0
        out[small, 0] = out[large, 1] = agree
        area = (logits[large] > 0).mean()
        out[small, 2] = (a.mean() * ratio**2 + 1e-3) / (area + 1e-3)
    return np.clip(out, 0, 4)


@dataclass(frozen=True, eq=False)
class Scorer:
    """A perceptron with one hidden layer over the features of all candidates at once.

    `mean` and `scale` (N*F,) standardise, `hidden` (N*F, H) and `out` (H, N) are the layers with
    their biases. The sigmoid of the output is the predicted IoU.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]
    hidden_bias: npt.NDArray[np.float32]
    out: npt.NDArray[np.float32]
    out_bias: npt.NDArray[np.float32]

    @property
    def candidates(self) -> int:
        """How many candidates it compares."""
        return int(self.out.shape[1])

    def __call__(self, found: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Features (..., N, F) of candidates to their predicted IoU (..., N), 0..1."""
        x = (found.reshape(*found.shape[:-2], -1) - self.mean) * self.scale
        raw = np.maximum(x @ self.hidden + self.hidden_bias, 0) @ self.out + self.out_bias
        scores: npt.NDArray[np.float32] = 1 / (1 + np.exp(-np.clip(raw, -30, 30)))
        return scores

    def to_json(self) -> dict[str, Any]:
        """Plain lists, rounded to six digits."""
        return {
            name: np.round(getattr(self, name).astype(float), 6).tolist()
            for name in Scorer.__dataclass_fields__
        } | {"features": list(FEATURES)}

    @classmethod
    def from_json(cls, found: Any) -> Scorer:
        """What `to_json` gave. `WeightsError` if it is not that."""
        try:
            if found["features"] != list(FEATURES):
                raise ValueError("it measures other features")
            with np.errstate(over="ignore"):  # it is infinite then, and refused below
                scorer = cls(
                    **{n: np.array(found[n], np.float32) for n in cls.__dataclass_fields__}
                )
            inputs = len(scorer.mean)
            if (
                inputs != scorer.candidates * len(FEATURES)
                or scorer.scale.shape != (inputs,)
                or scorer.hidden.shape != (inputs, len(scorer.out))
                or scorer.hidden_bias.shape != (len(scorer.out),)
                or scorer.out_bias.shape != (scorer.candidates,)
            ):
                raise ValueError("its shapes do not fit")
            if not all(np.isfinite(getattr(scorer, n)).all() for n in cls.__dataclass_fields__):
                raise ValueError("it holds numbers that are not finite")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WeightsError(
                f"the weights file holds a scorer that cannot be used: {error}"
            ) from error
        return scorer
