"""How good is this mask, and which window was the right one? A few thousand numbers say.

A click knows no scale, so the network answers for several windows around it and the choice is
learned: a small perceptron sees all candidates of a click together - how sure each is, whether it
leaves its window, how far neighboring scales agree - and predicts each one's IoU with the object
that was meant. It runs outside the sensor, in NumPy. Boxes have a scorer of the same kind for their
one mask. `training.scorers` fits them on validation images; they travel in the weights file.
"""

from __future__ import annotations

import math
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

SCORER_LAYERS = ("mean", "scale", "hidden", "hidden_bias", "out", "out_bias")
"""The arrays that a scorer is made of."""

PATIENCE = 0.05
"""The patience of scorers that were fitted before it was fitted, too."""

_ALONE = FEATURES.index("agree_larger")  # so many are measured of each candidate alone
_LARGER, _SMALLER, _GROWS = range(_ALONE, len(FEATURES))
_GRID = 32  # agreement between windows is measured on this many cells a side


def features(
    logits: npt.NDArray[np.float32], windows: Sequence[Window], height: int, width: int
) -> npt.NDArray[np.float32]:
    """The `FEATURES` of one click's candidates, or of a box's one: (N, F) float32.

    Args:
        logits: (N, S, S) float32, one map a window, smallest window first.
        windows: where they are on the image; all have the same center.
        height, width: the image's size.
    """
    out = np.zeros((len(logits), len(FEATURES)), np.float32)
    out[:, :_ALONE] = _alone(logits, windows, height, width)
    for small in range(len(logits) - 1):
        pair = slice(small, small + 2)
        _compare(out[pair], logits[pair], windows[pair])
    return out


def _alone(
    logits: npt.NDArray[np.float32], windows: Sequence[Window], height: int, width: int
) -> npt.NDArray[np.float32]:
    """The features that are measured of each candidate alone: (N, `_ALONE`) float32."""
    rows = [_measure(*pair, height, width) for pair in zip(logits, windows, strict=True)]
    return np.array(rows, np.float32)


def _measure(
    logits: npt.NDArray[np.float32], window: Window, height: int, width: int
) -> tuple[float, ...]:
    """The first features of one candidate's logits (S, S), in the order of `FEATURES`."""
    side, cells = len(logits), logits.size
    # Just after the network, each call into NumPy takes several times as long as usual. So there
    # are few of them here, and products in place of sums over a part, which are slow.
    is_on = (logits > 0).astype(logits.dtype)
    ones = np.ones(side, logits.dtype)
    columns, rows = ones @ is_on, is_on @ ones  # cells on the object in each
    on = float(rows.sum())
    sure = np.abs(logits)
    unsure = int(np.count_nonzero(sure < 1))
    # The probability of each cell's own side: its sums on the mask and off it.
    np.negative(sure, out=sure)
    np.exp(sure, out=sure)
    sure += 1
    np.reciprocal(sure, out=sure)
    inside, outside = float(np.vdot(sure, is_on)), float(np.vdot(sure, 1 - is_on))
    middle = slice(side // 2 - 2, side // 2 + 2)
    center = logits[middle, middle]
    spans = np.count_nonzero(columns) / side, np.count_nonzero(rows) / side
    return (
        on / cells,
        _stability(logits, 1.0),
        _stability(logits, 3.0),
        inside / max(on, 1),
        outside / max(cells - on, 1),
        unsure / math.sqrt(max(on, 1) * side),
        math.tanh(float(center.sum()) / center.size / 4),
        *(float(edge) / side for edge in (columns[0], rows[0], columns[-1], rows[-1])),
        *spans,
        on / cells / max(spans[0] * spans[1], 1e-6),
        _beyond(window, height, width),
    )


def _stability(logits: npt.NDArray[np.float32], offset: float) -> float:
    """IoU of the masks at logits above +offset and above -offset: SAM's stability score."""
    inner, outer = np.count_nonzero(logits > offset), np.count_nonzero(logits > -offset)
    return int(inner) / max(int(outer), 1)


def _beyond(window: Window, height: int, width: int) -> float:
    """The share of a window that lies outside the image."""
    seen_x = max(min(window.x1, width) - max(window.x0, 0), 0)
    seen_y = max(min(window.y1, height) - max(window.y0, 0), 0)
    return 1 - seen_x * seen_y / (window.width * window.height)


def _compare(
    out: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], windows: Sequence[Window]
) -> None:
    """Write what two neighboring candidates say of each other into their features (2, F).

    That is their IoU on what both see, and how much the area grows in the larger window.
    """
    side = logits.shape[1]
    ratio = windows[0].width / windows[1].width
    low, high = side * (1 - ratio) / 2, side * (1 + ratio) / 2
    fine = Image.fromarray(logits[0]).resize((_GRID, _GRID), Image.Resampling.BILINEAR)
    coarse = Image.fromarray(logits[1]).resize(
        (_GRID, _GRID), Image.Resampling.BILINEAR, box=(low, low, high, high)
    )
    a, b = np.asarray(fine) > 0, np.asarray(coarse) > 0
    union = (a | b).sum()
    out[0, _LARGER] = out[1, _SMALLER] = (a & b).sum() / union if union else 1.0
    area = (logits[1] > 0).mean()
    out[0, _GROWS] = min((a.mean() * ratio**2 + 1e-3) / (area + 1e-3), 4)


@dataclass(frozen=True, eq=False)
class Scorer:
    """A perceptron with one hidden layer over the features of all candidates at once.

    `mean` and `scale` (N*F,) standardise, `hidden` (N*F, H) and `out` (H, N) are the layers with
    their biases. The sigmoid of the output is the predicted IoU. Features that are not known are
    NaN, and count as their mean.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]
    hidden_bias: npt.NDArray[np.float32]
    out: npt.NDArray[np.float32]
    out_bias: npt.NDArray[np.float32]
    start: int | None = None
    """The window that a click is looked at first, if the scorer was fitted to predict from some of
    the windows what others will give; see `Ladder`."""
    patience: float = PATIENCE
    """With a `start`: a window is worth a look if the IoU expected of it is above the best one's
    less this, 0..1."""

    @property
    def candidates(self) -> int:
        """How many candidates it compares."""
        return int(self.out.shape[1])

    def __call__(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Features (..., N, F) of candidates to their predicted IoU (..., N), 0..1."""
        x = features.reshape(*features.shape[:-2], -1)
        if self.candidates > 1:  # a box's features are all known
            x = np.where(np.isnan(x), self.mean, x)
        raw = np.maximum((x - self.mean) * self.scale @ self.hidden + self.hidden_bias, 0)
        raw = raw @ self.out + self.out_bias
        # `np.clip` takes as long as all the rest for so few numbers.
        limited = np.minimum(np.maximum(raw, -30), 30)
        scores: npt.NDArray[np.float32] = 1 / (1 + np.exp(-limited))
        return scores

    def to_json(self) -> dict[str, Any]:
        """Plain lists, rounded to six digits."""
        layers = {
            name: np.round(getattr(self, name).astype(float), 6).tolist() for name in SCORER_LAYERS
        }
        few = {} if self.start is None else {"start": self.start, "patience": self.patience}
        return {**layers, **few, "features": list(FEATURES)}

    @classmethod
    def from_json(cls, table: Any) -> Scorer:
        """What `to_json` gave. `WeightsError` if it is not that."""
        try:
            if table["features"] != list(FEATURES):
                raise ValueError("it measures other features")
            with np.errstate(over="ignore"):  # it is infinite then, and refused below
                layers = {name: np.array(table[name], np.float32) for name in SCORER_LAYERS}
            scorer = cls(
                **layers, start=table.get("start"), patience=table.get("patience", PATIENCE)
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
            if not all(np.isfinite(layer).all() for layer in layers.values()):
                raise ValueError("it holds numbers that are not finite")
            if scorer.start is not None and (
                type(scorer.start) is not int or not 0 <= scorer.start < scorer.candidates
            ):
                raise ValueError("it starts with a window that it does not know")
            if type(scorer.patience) not in (int, float) or not 0 <= scorer.patience <= 1:
                raise ValueError("its patience is not within 0..1")
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise WeightsError(
                f"the weights file holds a scorer that cannot be used: {error}"
            ) from error
        return scorer


class Ladder:
    """A click's windows, and what those that the network has looked through say of all of them.

    With a scorer that has a `start`, that window comes first. Then comes the one that the scorer
    expects most of, as long as this is more than the best one's predicted IoU less its patience.
    Otherwise all windows are looked through at once.
    """

    def __init__(
        self, windows: Sequence[Window], height: int, width: int, scorer: Scorer | None
    ) -> None:
        """Of a click's windows, smallest first, on an image of that size."""
        self.windows = windows
        self.logits: dict[int, npt.NDArray[np.float32]] = {}
        """Of the windows that were looked through, by their place: (S, S) float32."""
        self._height, self._width, self._scorer = height, width, scorer
        self._features = np.full((len(windows), len(FEATURES)), np.nan, np.float32)
        # Beyond the smallest and the largest there is nothing to agree with.
        self._features[0, _SMALLER] = self._features[-1, [_LARGER, _GROWS]] = 0

    def add(self, places: Sequence[int], logits: npt.NDArray[np.float32]) -> None:
        """Take in the logits (n, S, S) of the windows at some places, in rising order."""
        self.logits.update(zip(places, logits, strict=True))
        windows = [self.windows[place] for place in places]
        own = _alone(logits, windows, self._height, self._width)
        self._features[list(places), :_ALONE] = own
        for small in sorted({max(place - step, 0) for place in places for step in (0, 1)}):
            pair = small, small + 1
            if all(place in self.logits for place in pair):
                maps = np.stack([self.logits[place] for place in pair])
                _compare(self._features[small : small + 2], maps, self.windows[small : small + 2])

    def wanted(self) -> list[int]:
        """The places of the windows to look through next; none when the best one is found."""
        if self._scorer is None or self._scorer.start is None:
            return [] if self.logits else self.missing()
        if not self.logits:
            return [self._scorer.start]
        missing = self.missing()
        if not missing:
            return []
        scores = self.scores()
        next_place = max(missing, key=lambda place: scores[place])
        best = max(scores[place] for place in self.logits)
        return [next_place] if scores[next_place] > best - self._scorer.patience else []

    def missing(self) -> list[int]:
        """The places of the windows that were not looked through."""
        return [place for place in range(len(self.windows)) if place not in self.logits]

    def scores(self) -> npt.NDArray[np.float32]:
        """The predicted IoU of each window (N,); of those not looked through what is expected."""
        if self._scorer is not None:
            return self._scorer(self._features)
        return rule_scores(self._features)

    def ranked(self) -> list[tuple[int, float]]:
        """The places that were looked through, best first, with their predicted IoU."""
        scores = self.scores()
        order = sorted(self.logits, key=lambda place: (-scores[place], place))
        return [(place, float(scores[place])) for place in order]


def rule_scores(measured: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores (N,) of candidates by their features (N, F), without a learned scorer.

    A good candidate is sure, and does not run out of its window.
    """
    contact = measured[:, 7:11].max(1)
    scores: npt.NDArray[np.float32] = measured[:, 1] * (1 - contact) * (measured[:, 0] > 0)
    return scores
