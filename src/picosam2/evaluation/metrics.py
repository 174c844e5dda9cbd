"""Metrics over many objects: mIoU with its interval, hit rate, mIoU by size.

Also the calibration of the network's own scores. `boundary.py` compares outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

THRESHOLDS = np.round(np.arange(0.50, 1.0, 0.05), 2)
"""IoU thresholds .50:.05:.95 of the hit rate."""

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""COCO's size classes, by mask area in pixels: from the first (inclusive) to the second."""

RIVALS = {"0": (0.0, 1.0), "1-2": (1.0, 3.0), "3+": (3.0, np.inf)}
"""Classes of how many other objects share an object's window."""

Floats = npt.NDArray[np.floating]


def hit_rate(ious: Floats) -> float:
    """The share of (object, threshold) pairs that pass, over `THRESHOLDS`: the paper's "mAP"."""
    return float((ious[:, None] >= THRESHOLDS).mean()) if len(ious) else float("nan")


def interval(
    ious: Floats, image_ids: npt.NDArray[Any], *, draws: int = 2000
) -> tuple[float, float]:
    """A 95 % bootstrap interval of the mean of `ious` (N,), resampling whole images (N,).

    Objects of one image are alike, so images are drawn, not objects (Efron and Tibshirani 1993).
    """
    if not len(ious):
        return float("nan"), float("nan")
    _, index = np.unique(image_ids, return_inverse=True)
    sums, counts = np.bincount(index, ious), np.bincount(index)
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(sums), (draws, len(sums)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def interval_of_means(
    sets: Sequence[tuple[Floats, npt.NDArray[Any]]], *, draws: int = 2000
) -> tuple[float, float]:
    """A 95 % bootstrap interval of the mean over sets of their mean IoU.

    Args:
        sets: of each set the IoU (N,) and the image (N,) of its objects.
        draws: how often whole images are drawn, within each set.
    """
    rng = np.random.default_rng(0)
    means = np.zeros(draws)
    for ious, image_ids in sets:
        _, index = np.unique(image_ids, return_inverse=True)
        sums, counts = np.bincount(index, ious), np.bincount(index)
        chosen = rng.integers(0, len(sums), (draws, len(sums)))
        means += sums[chosen].sum(1) / counts[chosen].sum(1) / len(sets)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def by_size(ious: Floats, areas: Floats) -> dict[str, float | None]:
    """mIoU of each of `SIZES`; None where there is no object."""
    means: dict[str, float | None] = {}
    for name, (low, high) in SIZES.items():
        chosen = ious[(areas >= low) & (areas < high)]
        means[name] = float(chosen.mean()) if len(chosen) else None
    return means


def spearman(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank. NaN where all are equal."""
    if len(a) < 2:
        return float("nan")
    ranks = [_ranks(np.asarray(values, float)) for values in (a, b)]
    if not all(np.ptp(values) for values in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[index]


def calibration_error(scores: Floats, ious: Floats, *, bins: int = 10) -> float:
    """Expected calibration error: |mean score - mean IoU| of equal score bins, by their count."""
    index = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    gaps = [
        abs(float(scores[index == b].mean() - ious[index == b].mean())) * float((index == b).mean())
        for b in range(bins)
        if (index == b).any()
    ]
    return float(sum(gaps))


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The objects whose score falls between two bounds: their count and two means."""

    count: int
    score: float
    iou: float


def reliability(scores: Floats, ious: Floats, *, bins: int = 10) -> list[Bin]:
    """The reliability diagram's points (Niculescu-Mizil and Caruana 2005): bins that hold objects.

    `scores` and `ious` (N,) are between 0 and 1; the bins are those of `calibration_error`.
    """
    index = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    return [
        Bin(
            count=int((index == b).sum()),
            score=float(scores[index == b].mean()),
            iou=float(ious[index == b].mean()),
        )
        for b in range(bins)
        if (index == b).any()
    ]


def by_rivals(ious: Floats, rivals: Floats) -> dict[str, dict[str, float | int | None]]:
    """Count and mIoU by how many other objects share the window; see `RIVALS`."""
    table: dict[str, dict[str, float | int | None]] = {}
    for name, (low, high) in RIVALS.items():
        chosen = ious[(rivals >= low) & (rivals < high)]
        table[name] = {"n": len(chosen), "miou": float(chosen.mean()) if len(chosen) else None}
    return table
