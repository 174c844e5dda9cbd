"""Fitting scorers: what they learn, what they report, and where their examples come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.progress import Recorded

pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("pycocotools", reason="the extra `train` is not installed")

from PIL import Image

from picosam2.data.coco import AnnotatedImage, Instance
from picosam2.errors import ConfigError, DataError
from picosam2.geometry import CLICK_HALVES, click_windows
from picosam2.masks import rle_encode
from picosam2.predictor import Predictor
from picosam2.prompts import Point
from picosam2.scorer import FEATURES, Ladder, Scorer, features
from picosam2.training.scorers import Examples, ScorerConfig, adapt, choose, collect, fit
from tests.helpers.fakes import FakeRuntime, disc, random_scorer, reddish

QUICK = ScorerConfig(epochs=(20, 60), clicks=2, members=1, few_windows=False)
FEW = replace(QUICK, few_windows=True)


def examples(count: int, candidates: int, seed: int = 0) -> Examples:
    """Candidates whose IoU is their first feature, and noise beside it."""
    rng = np.random.default_rng(seed)
    values = rng.random((count, candidates, len(FEATURES))).astype(np.float32)
    return Examples(
        features=values,
        ious=values[:, :, 0].copy(),
        images=np.repeat(np.arange(count // 4), 4),
        weights=np.ones(count, np.float32),
    )


def test_learns_to_choose_and_to_predict():
    some = examples(800, 3)
    fitted = fit(some, FEW)
    chance = 0.5
    assert fitted.best == pytest.approx(0.75, abs=0.03)  # the mean of the largest of three
    assert fitted.best - 0.05 < fitted.chosen < fitted.best
    assert fitted.chosen > chance + 0.1
    # One window says nothing of another here, so nearly all are needed to lose nothing.
    assert fitted.looks > 2
    assert fitted.spearman > 0.7
    assert fitted.calibration_error < 0.1
    assert fitted.scorer.candidates == 3


def test_the_first_look_is_through_the_best_window_and_few_follow() -> None:
    """All windows of a click give the same, and the middle one a little more."""
    same = examples(800, 3)
    ious = np.repeat(same.features[:, :1, 0], 3, 1) * np.float32(0.7) + np.float32([0, 0.2, 0])
    same.features[:, :, 0] = ious
    fitted = fit(Examples(same.features, ious, same.images, same.weights), FEW)
    assert fitted.scorer.start == 1
    assert fitted.looks < 1.2
    assert fitted.chosen == pytest.approx(fitted.best, abs=0.01)
    assert fitted.report()["looks"] == fitted.looks


def test_small_objects_decide_with_which_window_to_begin() -> None:
    """The middle window says how good it is and whether the first is better, which it seldom is."""
    rng = np.random.default_rng(0)
    count = 1600
    values = rng.normal(0, 0.1, (count, 3, len(FEATURES))).astype(np.float32)
    small = rng.random(count) < 0.2
    ious = np.where(small[:, None], [0.9, 0.3, 0.1], [0.2, 0.7, 0.1]).astype(np.float32)
    values[:, 0, 0] = small  # what the smallest window shows without doubt, the others do not
    values[:, 1, 1] = small & (rng.random(count) < 0.5)
    fitted = fit(
        Examples(values, ious, np.repeat(np.arange(count // 4), 4), np.ones(count, np.float32)), FEW
    )
    assert fitted.scorer.start == 0
    assert fitted.by_window[0] == pytest.approx(0.9, abs=0.02)
    assert fitted.chosen == pytest.approx(fitted.best, abs=0.02)
    assert fitted.looks < 2


def test_a_scorer_of_clicks_is_the_mean_of_several() -> None:
    some = examples(200, 3)
    first, second, both = (
        fit(some, replace(QUICK, epochs=(20,), members=members, seed=seed)).scorer
        for members, seed in ((1, 0), (1, 1), (2, 0))
    )

    def raw(scorer: Scorer) -> np.ndarray:
        scores = scorer(some.features)
        return np.log(scores / (1 - scores))

    np.testing.assert_allclose(raw(both), (raw(first) + raw(second)) / 2, atol=1e-3)
    assert fit(examples(80, 1), replace(QUICK, members=2)).scorer.hidden.shape[1] == QUICK.hidden


def test_all_windows_are_looked_through_unless_few_are_wanted() -> None:
    fitted = fit(examples(200, 3), QUICK)
    assert fitted.scorer.start is None
    assert fitted.looks == 3


def test_boxes_have_one_window_and_no_first_one() -> None:
    fitted = fit(examples(80, 1), FEW)
    assert fitted.scorer.start is None
    assert fitted.looks == 1


@pytest.mark.parametrize(
    ("start", "patience"), [(None, 0.05), (0, 0.05), (3, 0.0), (3, 0.2), (5, 0.05), (2, 1)]
)
def test_the_report_looks_through_windows_as_a_prediction_does(
    start: int | None, patience: float
) -> None:
    rng = np.random.default_rng(0)
    count, side = len(CLICK_HALVES), 32
    scorer = replace(random_scorer(count), start=start, patience=patience)
    windows = click_windows(Point(50.5, 40.5), 100, 120)
    coarse = rng.normal(0, 4, (20, count, 4, 4)).astype(np.float32)
    maps = np.kron(coarse, np.ones((side // 4, side // 4), np.float32))
    measured = np.stack([features(some, windows, 100, 120) for some in maps])
    choice, scores, looks = choose(scorer, measured)
    for number, some in enumerate(maps):
        ladder = Ladder(windows, 100, 120, scorer)
        while places := ladder.wanted():
            ladder.add(places, some[places])
        best, score = ladder.ranked()[0]
        assert choice[number] == best
        assert scores[number] == pytest.approx(score, abs=1e-5)
        assert looks[number] == len(ladder.logits)


def test_the_same_seed_gives_the_same_scorer():
    once, again = (fit(examples(80, 2), QUICK).scorer.to_json() for _ in range(2))
    assert once == again


def test_a_scorer_that_chooses_well_is_kept_or_stays_as_good():
    known = fit(examples(800, 3), QUICK)
    adapted = adapt(examples(60, 3, seed=1), known.scorer, QUICK)
    alone = fit(examples(60, 3, seed=1), QUICK)
    assert adapted.chosen > alone.chosen
    fresh = examples(400, 3, seed=2)
    choice = adapted.scorer(fresh.features).argmax(1)
    assert fresh.ious[np.arange(400), choice].mean() > known.best - 0.06


def test_a_scorer_learns_what_is_different_here():
    """Here it is the second feature that says how good a candidate is."""
    known = fit(examples(800, 3), QUICK).scorer
    few = examples(120, 3, seed=1)
    other = Examples(few.features, few.features[:, :, 1].copy(), few.images, few.weights)
    adapted = adapt(other, known, ScorerConfig(epochs=(60, 400)))
    as_it_was = other.ious[np.arange(120), known(other.features).argmax(1)].mean()
    assert adapted.chosen > as_it_was + 0.05
    assert adapted.scorer is not known
    half = adapt(other, known, ScorerConfig(epochs=(400,)), averaging=0.5).scorer
    whole = adapt(other, known, ScorerConfig(epochs=(400,))).scorer
    assert half.hidden == pytest.approx((known.hidden + whole.hidden) / 2, abs=1e-6)
    assert half.out_bias == pytest.approx((known.out_bias + whole.out_bias) / 2, abs=1e-6)


def test_what_cannot_be_learned_is_not_claimed():
    lost = examples(400, 3)
    shuffled = np.random.default_rng(1).random(lost.ious.shape).astype(np.float32)
    fitted = fit(Examples(lost.features, shuffled, lost.images, lost.weights), QUICK)
    assert fitted.chosen < 0.58  # by chance one half; cross-validated, so noise does not help
    assert abs(fitted.spearman) < 0.25


def image(folder: Path, number: int, x: float, y: float) -> AnnotatedImage:
    """A red disc on black."""
    mask = disc(90, 120, x, y, 17)
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[mask] = (255, 0, 0)
    path = folder / f"{number}.png"
    Image.fromarray(pixels).save(path)
    instance = Instance(
        id=number,
        image_id=number,
        category_id=1,
        segmentation=rle_encode(mask)["counts"].encode(),
        height=90,
        width=120,
        area=float(mask.sum()),
    )
    return AnnotatedImage(
        id=number, path=path, height=90, width=120, source="made", instances=(instance,)
    )


def test_examples_come_from_clicks_and_boxes(tmp_path):
    images = [image(tmp_path, number, 50 + 5 * number, 40) for number in range(3)]
    progress = Recorded()
    clicks, boxes = collect(
        Predictor(FakeRuntime(reddish)),
        images,
        QUICK,
        source_weights={"made": 2.0},
        progress=progress,
    )
    assert clicks.features.shape == (3 * QUICK.clicks, len(CLICK_HALVES), len(FEATURES))
    assert boxes.features.shape == (3 * 2, 1, len(FEATURES))
    assert clicks.images.tolist() == [0, 0, 1, 1, 2, 2]
    assert set(clicks.weights.tolist()) == {2.0}
    # The network is perfect, so a window that holds the whole object gives it back ...
    assert clicks.ious[:, -2:].min() > 0.9
    assert boxes.ious.min() > 0.9
    # ... and the smallest sees a part of it only.
    assert clicks.ious[::2, 0].max() < 0.5
    assert progress.counts[-1] == (3, 3)


def test_nothing_to_learn_from(tmp_path):
    gone = image(tmp_path, 0, 60, 40)
    gone.path.unlink()
    with pytest.raises(DataError, match="no image could be used"):
        collect(Predictor(FakeRuntime(reddish)), [gone], QUICK)


def test_one_example_in_an_image_of_its_own_is_enough_to_hold_the_others_out() -> None:
    some = examples(12, 3)
    fitted = fit(replace(some, images=np.array([0] + [1] * 11)), QUICK)
    assert np.isfinite(fitted.chosen)
    assert np.isfinite(fitted.calibration_error)
    assert all(np.isfinite(layer).all() for layer in (fitted.scorer.hidden, fitted.scorer.out))


def test_examples_of_one_image_are_refused() -> None:
    with pytest.raises(DataError, match="two validation images or more"):
        fit(replace(examples(12, 3), images=np.zeros(12, int)), QUICK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": ()},
        {"clicks": 0},
        {"hidden": 0},
        {"folds": 1},
        {"whole": 2},
        {"members": 0},
        {"patiences": (0.1, -1)},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(ConfigError):
        ScorerConfig(**wrong)
