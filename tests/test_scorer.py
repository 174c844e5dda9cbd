"""The scorer: what its features measure, that it is a perceptron, and foreign ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.fakes import fixed_scores, random_scorer

from picosam2 import geometry, masks
from picosam2.errors import WeightsError
from picosam2.geometry import Window
from picosam2.prompts import Point
from picosam2.scorer import FEATURES, PATIENCE, Ladder, Scorer, features

SIZE = 96


def ladder(*halves: float, x: float = 200, y: float = 150) -> list[Window]:
    return [geometry.point_window(Point(x, y), half) for half in halves]


def hill(radius: float, x: float = SIZE / 2, y: float = SIZE / 2, steep: float = 1.0) -> np.ndarray:
    """Logits that are above 0 on a disc of the crop and fall off linearly."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    return ((radius - np.hypot(columns - x, rows - y)) * steep).astype(np.float32)


def named(logits: np.ndarray, windows: list[Window], height: int = 300, width: int = 400) -> Any:
    """The features by name, each (N,)."""
    measured = features(logits, windows, height, width)
    assert measured.shape == (len(windows), len(FEATURES))
    assert measured.dtype == np.float32
    assert np.isfinite(measured).all()
    return dict(zip(FEATURES, measured.T, strict=True))


def test_area_and_spans() -> None:
    by_name = named(hill(20)[None], ladder(60))
    mask = hill(20) > 0
    assert by_name["area"][0] == pytest.approx(mask.mean())
    assert by_name["width"][0] == pytest.approx(40 / 96)
    assert by_name["height"][0] == pytest.approx(40 / 96)
    assert by_name["fill"][0] == pytest.approx(mask.sum() / 40**2)  # about pi / 4


def test_stability_is_that_of_masks() -> None:
    logits = hill(20, steep=0.7)
    by_name = named(logits[None], ladder(60))
    assert by_name["stability"][0] == pytest.approx(masks.stability(logits, 1.0))
    assert by_name["loose_stability"][0] == pytest.approx(masks.stability(logits, 3.0))
    steep = named(hill(20, steep=5)[None], ladder(60))
    assert steep["stability"][0] > by_name["stability"][0]
    assert steep["edge_share"][0] < by_name["edge_share"][0]
    assert steep["inside"][0] > by_name["inside"][0]
    assert steep["outside"][0] > by_name["outside"][0]  # how sure it is that nothing is there


def test_contact_with_each_border() -> None:
    places = {"left": (0, 48), "right": (96, 48), "top": (48, 0), "bottom": (48, 96)}
    for side, place in places.items():
        by_name = named(hill(20, *place)[None], ladder(60))
        for other in places:
            assert (by_name[other][0] > 0) == (other == side), (side, other)
        assert by_name[side][0] == pytest.approx(40 / 96, abs=0.02)


def test_the_center_says_whether_the_click_is_on_the_mask() -> None:
    assert named(hill(20)[None], ladder(60))["centre"][0] > 0.9
    assert named(hill(20, 10, 10)[None], ladder(60))["centre"][0] < -0.9


def test_beyond_is_the_share_outside_the_image() -> None:
    windows = [Window(-50, 10, 50, 110), Window(100, 50, 200, 150), Window(380, 280, 420, 320)]
    for window, share in zip(windows, (0.5, 0.0, 0.75), strict=True):
        assert named(hill(20)[None], [window])["beyond"][0] == pytest.approx(share)
    assert named(hill(20)[None], [Window(-900, 0, -800, 90)])["beyond"][0] == 1


def test_scales_that_see_the_same_object_agree() -> None:
    """A disc of 20 px seen through windows of 40, 80 and 160 px."""
    windows = ladder(20, 40, 80)
    same = np.stack([hill(48 * 10 / w.width * 2) for w in windows])
    by_name = named(same, windows)
    assert by_name["agree_larger"][:2].min() > 0.8
    np.testing.assert_array_equal(by_name["agree_larger"][:2], by_name["agree_smaller"][1:])
    assert by_name["agree_larger"][2] == by_name["agree_smaller"][0] == 0  # there is no other
    # What is measured of the larger window's area is inside the smaller one's.
    np.testing.assert_allclose(by_name["grows"][:2], 1, atol=0.1)
    other = named(np.stack((hill(12), hill(40), hill(10))), windows)
    assert other["agree_larger"][0] < 0.6


def test_empty_and_full_masks_have_features() -> None:
    logits = np.stack((np.full((SIZE, SIZE), -40, np.float32), np.full((SIZE, SIZE), 40.0)))
    by_name = named(logits.astype(np.float32), ladder(20, 40))
    assert by_name["area"].tolist() == [0, 1]
    named(np.full((3, SIZE, SIZE), np.float32(1e30)), ladder(1, 2, 3))


@pytest.mark.parametrize("size", [1, 3])
def test_an_image_of_one_pixel(size: int) -> None:
    windows = geometry.click_windows(Point(0.5, 0.5), 1, 1)[:size]
    named(np.stack([hill(20)] * size), list(windows), 1, 1)


def test_it_is_a_perceptron_with_one_hidden_layer() -> None:
    scorer = random_scorer()
    values = np.random.default_rng(1).normal(0, 1, (5, 3, len(FEATURES))).astype(np.float32)
    scores = scorer(values)
    assert scores.shape == (5, 3)
    for each, got in zip(values, scores, strict=True):
        x = [(v - m) * s for v, m, s in zip(each.ravel(), scorer.mean, scorer.scale, strict=True)]
        hidden = [
            max(sum(a * b for a, b in zip(x, column, strict=True)) + bias, 0)
            for column, bias in zip(scorer.hidden.T, scorer.hidden_bias, strict=True)
        ]
        for column, bias, score in zip(scorer.out.T, scorer.out_bias, got, strict=True):
            raw = sum(a * b for a, b in zip(hidden, column, strict=True)) + bias
            assert score == pytest.approx(1 / (1 + np.exp(-raw)), abs=1e-5)
    np.testing.assert_allclose(scorer(values[0]), scores[0], atol=1e-6)


def test_it_survives_json() -> None:
    scorer = random_scorer()
    copy = Scorer.from_json(json.loads(json.dumps(scorer.to_json(), allow_nan=False)))
    values = np.random.default_rng(1).normal(0, 1, (5, 3, len(FEATURES))).astype(np.float32)
    np.testing.assert_allclose(copy(values), scorer(values), atol=1e-4)
    assert copy.candidates == 3


def test_scores_stay_within_zero_and_one() -> None:
    values = np.full((2, 3, len(FEATURES)), 1e20, np.float32)
    scores = random_scorer()(values)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    "change",
    [
        {"features": ["area"]},
        {"mean": [0.0]},
        {"out": [0.5]},
        {"out": 3},
        {"hidden": [[1.0]]},
        {"out_bias": []},
        {"scale": ["a"]},
        {"scale": None},
        {"mean": [float("nan")] * 36},
        {"hidden_bias": [1e50]},
        {"start": 2},
        {"start": -1},
        {"start": 1.0},
        {"start": "first"},
        {"start": True},
        {"patience": -0.1},
        {"patience": 1.5},
        {"patience": float("nan")},
        {"patience": "much"},
        {"patience": True},
    ],
)
def test_foreign_scorers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="a scorer that cannot be used"):
        Scorer.from_json({**fixed_scores(0.2, 0.7), **change})
    for nothing in (None, [], "text", {}):
        with pytest.raises(WeightsError, match="a scorer that cannot be used"):
            Scorer.from_json(nothing)


def test_features_that_are_not_known_count_as_their_mean() -> None:
    scorer = random_scorer()
    values = np.random.default_rng(1).normal(0, 1, (3, len(FEATURES))).astype(np.float32)
    filled = values.copy()
    values[1, 4:] = np.nan
    filled[1, 4:] = scorer.mean.reshape(3, -1)[1, 4:]
    np.testing.assert_allclose(scorer(values), scorer(filled), atol=1e-6)


def test_a_start_survives_json() -> None:
    scorer = replace(random_scorer(), start=2, patience=0.2)
    written = json.loads(json.dumps(scorer.to_json()))
    read = Scorer.from_json(written)
    assert (read.start, read.patience) == (2, 0.2)
    del written["patience"]  # as files were written before the patience was fitted
    assert Scorer.from_json(written).patience == PATIENCE == 0.05
    assert {"start", "patience"}.isdisjoint(random_scorer().to_json())


def test_a_ladder_that_was_looked_through_has_all_features() -> None:
    windows = ladder(20, 40, 80)
    maps = np.random.default_rng(0).normal(0, 2, (3, SIZE, SIZE)).astype(np.float32)
    scorer = random_scorer()
    expected = scorer(features(maps, windows, 300, 400))
    for order in ([[0, 1, 2]], [[1], [0], [2]], [[0, 2], [1]]):
        climbed = Ladder(windows, 300, 400, scorer)
        for places in order:
            climbed.add(places, maps[places])
        np.testing.assert_allclose(climbed.scores(), expected, atol=1e-5)
        assert climbed.missing() == climbed.wanted() == []


def test_without_a_start_all_windows_are_wanted_at_once() -> None:
    for scorer in (None, random_scorer()):
        climbed = Ladder(ladder(20, 40, 80), 300, 400, scorer)
        assert climbed.wanted() == [0, 1, 2]
        climbed.add([0, 1, 2], np.stack([hill(10), hill(20), hill(30)]))
        assert climbed.wanted() == []
        assert len(climbed.ranked()) == 3


@pytest.mark.parametrize(
    ("patience", "scores", "order"),
    [
        (0.05, (0.88, 0.6, 0.9), [1, 2, 0]),
        (0.05, (0.56, 0.6, 0.62), [1, 2]),
        (0.05, (0.54, 0.6, 0.5), [1]),
        (0.05, (0.58, 0.6, 0.5), [1, 0]),
        (0, (0.58, 0.6, 0.5), [1]),
        (0.15, (0.58, 0.6, 0.5), [1, 0, 2]),
        (1, (0.01, 0.99, 0.02), [1, 2, 0]),
    ],
)
def test_a_window_is_looked_through_if_it_promises_nearly_as_much_as_the_best(
    patience: float, scores: tuple[float, ...], order: list[int]
) -> None:
    scorer = Scorer.from_json({**fixed_scores(*scores), "start": 1, "patience": patience})
    climbed = Ladder(ladder(20, 40, 80), 300, 400, scorer)
    seen = []
    while places := climbed.wanted():
        seen += places
        climbed.add(places, hill(20)[None])
    assert seen == order
    assert climbed.ranked()[0] == (int(np.argmax(scores)), pytest.approx(max(scores)))
