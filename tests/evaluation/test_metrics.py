"""Metrics against the same numbers worked out one object at a time, and against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pycocotools.mask as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2 import masks
from picosam2.evaluation import metrics

shares = st.lists(st.floats(0, 1), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(shares)
def test_hit_rate_is_a_mean_over_objects_and_thresholds(ious: list[float]) -> None:
    hits = checks = 0
    for iou in ious:
        for hundredths in range(50, 100, 5):
            hits += iou >= hundredths / 100
            checks += 1
    assert metrics.hit_rate(np.array(ious)) == pytest.approx(hits / checks)


def test_hit_rate_counts_the_threshold_itself() -> None:
    assert metrics.hit_rate(np.array([0.5])) == pytest.approx(0.1)
    assert metrics.hit_rate(np.array([0.95])) == 1
    assert metrics.hit_rate(np.array([0.55, 0.4999])) == pytest.approx(0.1)
    assert math.isnan(metrics.hit_rate(np.array([])))


def test_iou_is_that_of_pycocotools_and_of_plain_loops() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 9, 13)) < rng.uniform(0.05, 0.9)
        both = either = 0
        for row_a, row_b in zip(a.tolist(), b.tolist(), strict=True):
            for first, second in zip(row_a, row_b, strict=True):
                both += first and second
                either += first or second
        measured = masks.iou(a, b)
        assert measured == pytest.approx(both / either if either else 0)
        codes = [reference.encode(np.asfortranarray(m, np.uint8)) for m in (a, b)]
        assert measured == pytest.approx(
            float(reference.iou([codes[0]], [codes[1]], [False])[0, 0])
        )


def test_the_interval_holds_the_mean_nineteen_times_in_twenty() -> None:
    """Images whose objects are alike: resampling objects would be far too sure of itself."""
    rng = np.random.default_rng(1)
    inside = naive = 0
    trials = 150
    for _ in range(trials):
        counts = rng.integers(1, 15, 50)
        image_ids = np.repeat(np.arange(50), counts)
        ious = np.clip(
            rng.normal(0.6, 0.15, 50)[image_ids] + rng.normal(0, 0.05, len(image_ids)), 0, 1
        )
        low, high = metrics.interval(ious, image_ids, draws=300)
        inside += low <= 0.6 <= high
        half = 1.96 * ious.std() / math.sqrt(len(ious))
        naive += abs(ious.mean() - 0.6) <= half
    assert 0.88 <= inside / trials <= 0.99
    assert naive / trials < inside / trials - 0.1


def test_the_interval_is_around_the_mean_and_repeatable() -> None:
    rng = np.random.default_rng(2)
    ious, image_ids = rng.random(80), rng.integers(0, 30, 80)
    low, high = metrics.interval(ious, image_ids)
    assert low < ious.mean() < high
    assert metrics.interval(ious, image_ids) == (low, high)
    names = np.array([f"image {n}" for n in image_ids])  # any label will do for an image
    order = rng.permutation(80)
    assert metrics.interval(ious[order], image_ids[order])[0] == pytest.approx(low, abs=0.01)
    assert metrics.interval(ious, names)[1] == pytest.approx(high, abs=0.02)


def test_the_interval_of_one_image_or_of_nothing() -> None:
    assert metrics.interval(np.array([0.2, 0.4]), np.array([5, 5])) == pytest.approx((0.3, 0.3))
    assert all(map(math.isnan, metrics.interval(np.array([]), np.array([]))))


def test_size_classes_are_cocos() -> None:
    areas = np.array([1, 32**2 - 1, 32**2, 96**2 - 1, 96**2, 1e7])
    ious = np.array([0.1, 0.3, 0.2, 0.4, 0.6, 0.8])
    assert metrics.by_size(ious, areas) == pytest.approx(
        {"small": 0.2, "medium": 0.3, "large": 0.7}
    )
    assert metrics.by_size(ious[:2], areas[:2]) == {
        "small": pytest.approx(0.2), "medium": None, "large": None,
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30))
def test_spearman_is_scipys_ties_and_all(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is only a second opinion")
    a, b = zip(*pairs, strict=True)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def test_spearman_by_hand() -> None:
    assert metrics.spearman([1, 2, 3, 4], [10, 20, 30, 1000]) == pytest.approx(1)
    assert metrics.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5 / sqrt(4.5 * 5).
    assert metrics.spearman([1, 2, 2, 4], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(22.5))
    assert math.isnan(metrics.spearman([1.0], [2.0]))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_calibration_error_bin_by_bin(pairs: list[tuple[float, float]]) -> None:
    bins: dict[int, list[tuple[float, float]]] = {}
    for score, iou in pairs:
        bins.setdefault(min(int(score * 10), 9), []).append((score, iou))
    expected = 0.0
    for members in bins.values():
        mean_score = sum(score for score, _ in members) / len(members)
        mean_iou = sum(iou for _, iou in members) / len(members)
        expected += len(members) / len(pairs) * abs(mean_score - mean_iou)
    scores, ious = np.array(pairs).T
    assert metrics.calibration_error(scores, ious) == pytest.approx(expected, abs=1e-9)
