"""Fitting the scorers: which window of a click was right, and how good a mask is.

Every object of held-out images is clicked (at its center point and at random places on it) and
boxed (exactly and with jitter); the IoU of every candidate's final mask with the truth is what the
scorers learn to predict from the candidates' features. Images that the network was trained on would
raise its scores above those on new images, so the store's validation images are used.

A click's scorer learns from some of the windows what all of them are worth, too: that is how a
prediction looks through few of them (`scorer.Ladder`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from picosam2 import geometry
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage
from picosam2.errors import ConfigError, DataError, PicoSAM2Error
from picosam2.evaluation.metrics import calibration_error, spearman
from picosam2.evaluation.protocols import make_item
from picosam2.images import load_image
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Candidate, Predictor
from picosam2.prompts import Point
from picosam2.scorer import FEATURES, PATIENCE, SCORER_LAYERS, Scorer, features

Floats = npt.NDArray[np.float32]

_FURTHER_RATE = 1e-3  # of a scorer that is fitted further
_MARGIN = 0.002  # of mIoU: candidates that are chosen no worse than this are chosen alike
_MOST_LOST = 0.005  # of mIoU, where one third of the windows is the best


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """How the scorers are fitted."""

    clicks: int = 3
    """Clicks on each object: its center point, then in turn random places near it and anywhere."""
    spread: float = 0.25
    """How far the random clicks are from the center point, as a share of the object's box."""
    box_jitter: float = 0.15
    """Jitter of the second box of each object."""
    hidden: int = 32
    """Width of the hidden layer."""
    epochs: tuple[int, ...] = (30, 80)
    """Passes over the examples; of several, the one that chooses best in cross-validation."""
    weight_decay: float = 3e-3
    """AdamW's weight decay; the examples are few."""
    members: int = 2
    """Perceptrons that a scorer of clicks is the mean of, fitted from different first weights."""
    few_windows: bool = True
    """Fit a scorer of clicks that says which window to look through next and when to stop, which
    takes about half of the windows (docs/click.md)."""
    patiences: tuple[float, ...] = (0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
    """With `few_windows`, the patiences that are tried; see `fit`."""
    whole: float = 0.3
    """With `few_windows`, the share of the clicks, drawn anew in each step, that are seen through
    all of their windows; the others are seen through some."""
    folds: int = 5
    """Parts, by image, of the cross-validation that the report comes from."""
    seed: int = 0
    """Seed of the clicks, the jitter and the weights."""

    def __post_init__(self) -> None:
        if (
            not self.epochs
            or min(self.clicks, self.hidden, self.members, *self.epochs) < 1
            or self.folds < 2
        ):
            raise ConfigError(
                "`clicks`, `hidden`, `members` and `epochs` must be at least 1, `folds` 2"
            )
        if not 0 <= self.whole <= 1 or not all(0 <= patience <= 1 for patience in self.patiences):
            raise ConfigError("`whole` is a share, 0..1, and so is each of `patiences`")


@dataclass(frozen=True, eq=False)
class Examples:
    """The scorers' training data: (E, N, F) features, (E, N) IoU, (E,) image id and weight."""

    features: Floats
    ious: Floats
    images: npt.NDArray[np.int64]
    weights: Floats


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A scorer, and its results in cross-validation by image."""

    scorer: Scorer
    chosen: float
    """Mean IoU of the candidates it chooses, looking through windows as a prediction does."""
    looks: float
    """Mean number of windows that it looks through."""
    best: float
    """Mean IoU of the best candidates by truth."""
    by_window: tuple[float, ...]
    """`chosen` of the clicks whose best window is a small, a middle or a large one; NaN without
    any."""
    spearman: float
    """Rank correlation of the chosen candidate's predicted and true IoU."""
    calibration_error: float

    def report(self) -> dict[str, float | None]:
        """Its numbers; None where one is not defined."""
        names = ("chosen", "looks", "best", "spearman", "calibration_error")
        numbers = {name: float(getattr(self, name)) for name in names}
        return {name: None if math.isnan(x) else x for name, x in numbers.items()}

    def loses_against(self, other: Fitted) -> bool:
        """Whether it chooses worse in all, or more than a little worse in one of `by_window`."""
        parts = zip(self.by_window, other.by_window, strict=True)
        return self.chosen < other.chosen or any(mine < its - _MOST_LOST for mine, its in parts)


def collect(
    predictor: Predictor,
    images: Sequence[AnnotatedImage],
    config: ScorerConfig | None = None,
    *,
    source_weights: dict[str, float] | None = None,
    progress: Progress | None = None,
) -> tuple[Examples, Examples]:
    """Examples of clicks and of boxes from images with masks; `progress(done, total)` in images.

    Raises:
        DataError: no image could be used.
    """
    config = config or ScorerConfig()
    clicks: list[tuple[Floats, list[float], int, float]] = []
    boxes: list[tuple[Floats, list[float], int, float]] = []
    for done, annotated in enumerate(images):
        weight = (source_weights or {}).get(annotated.source, 1.0)
        try:
            image = load_image(annotated.path)
            truths = [instance.mask() for instance in annotated.instances]
        except PicoSAM2Error:
            continue  # named when the store was prepared
        for number, truth in enumerate(truths):
            seed = config.seed + 1000 * annotated.instances[number].id
            for index in range(config.clicks):
                protocol = "click-inside" if index and index % 2 == 0 else "click"
                jitter = config.spread if index % 2 else 0.0
                point = make_item(protocol, truth, jitter=jitter, seed=seed + index).point
                click_features, ious = _click_example(predictor, image, truth, point)
                clicks.append((click_features, ious, annotated.id, weight))
            for index in range(2):
                jitter = config.box_jitter if index else 0.0
                item = make_item("box", truth, jitter=jitter, seed=seed + index)
                window = predictor.box_window(item.box)
                logits = predictor.window_logits(image, [window], BOX_CHANNEL)
                region = geometry.paste_region(logits[0], window, *truth.shape)
                box_features = features(logits, [window], *truth.shape)
                boxes.append((box_features, [region.iou(truth)], annotated.id, weight))
        if progress:
            progress(done + 1, len(images))
    if not clicks:
        raise DataError("no image could be used to fit the scorers: check the store's validation")
    return _examples(clicks), _examples(boxes)


def _click_example(
    predictor: Predictor,
    image: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.bool_],
    point: Point,
) -> tuple[Floats, list[float]]:
    """The features of a click's candidates, and the IoU of each candidate's final mask."""
    height, width = truth.shape
    windows = predictor.click_windows(point, height, width)
    logits = predictor.window_logits(image, windows, CLICK_CHANNEL)
    first = [
        Candidate(window, geometry.paste_region(logits_kss, window, height, width), 0.0)
        for window, logits_kss in zip(windows, logits, strict=True)
    ]
    final = predictor.second_pass(image, first, [point] * len(first))
    return features(logits, windows, height, width), [c.region.iou(truth) for c in final]


def _examples(entries: Sequence[tuple[Floats, list[float], int, float]]) -> Examples:
    return Examples(
        features=np.stack([entry[0] for entry in entries]),
        ious=np.array([entry[1] for entry in entries], np.float32),
        images=np.array([entry[2] for entry in entries]),
        weights=np.array([entry[3] for entry in entries], np.float32),
    )


def fit(examples: Examples, config: ScorerConfig | None = None) -> Fitted:
    """A scorer fitted on all examples, with the scores that cross-validation by image gives.

    With `few_windows` each window is tried as the first one with each patience. Of those that lose
    nothing against the scorer that looks through all windows, that one is taken which chooses best
    where a small window is the best: small objects are rarer among validation images than among
    people's. Nothing is lost if the mean IoU is no lower, and by at most `_MOST_LOST` where a
    small, a middle or a large window is the best. If all lose, all windows are looked through.

    Raises:
        DataError: all examples are of one image, so that nothing can be held out.
    """
    config = config or ScorerConfig()
    if len(np.unique(examples.images)) < 2:
        raise DataError(
            "scorers are fitted on objects of two validation images or more, and the store has "
            "them in one: prepare it from more images, or with a larger --validation"
        )
    whole_config = replace(config, few_windows=False)
    tried = {epochs: _cross_validate(examples, whole_config, epochs) for epochs in config.epochs}
    epochs = max(tried, key=lambda epochs: tried[epochs].chosen)
    whole = tried[epochs]
    if not config.few_windows or examples.ious.shape[1] == 1:
        return whole
    tried_few = _cross_validate_few(examples, config, epochs)
    few = [fitted for fitted in tried_few if not fitted.loses_against(whole)]
    return max(few, key=_for_small) if few else whole


def _for_small(fitted: Fitted) -> tuple[float, float, float]:
    """What is best for small objects comes last in order, then for all, then with few windows."""
    small = fitted.by_window[0]
    return 0.0 if math.isnan(small) else small, fitted.chosen, -fitted.looks


def adapt(
    examples: Examples,
    scorer: Scorer,
    config: ScorerConfig | None = None,
    *,
    averaging: float = 1.0,
) -> Fitted:
    """`scorer` as it is, or fitted further on a few examples: what cross-validation finds better.

    Better is to choose better candidates, by more than `_MARGIN`; of those that choose alike, to be
    nearer to the true IoU.

    Args:
        averaging: share of the new numbers in a scorer that is fitted further; the rest are those
            of `scorer`, so that it goes on choosing well elsewhere.
    """
    config = config or ScorerConfig()
    tried = [
        _cross_validate(examples, config, epochs, scorer, averaging)
        for epochs in (0, *config.epochs)
    ]
    chosen = max(fitted.chosen for fitted in tried)
    alike = [fitted for fitted in tried if fitted.chosen >= chosen - _MARGIN]
    return min(alike, key=lambda fitted: fitted.calibration_error)


def _cross_validate(
    examples: Examples,
    config: ScorerConfig,
    epochs: int,
    further: Scorer | None = None,
    averaging: float = 1.0,
) -> Fitted:
    scorer, held_out = _fit_folds(examples, config, epochs, further, averaging)
    climbs = [(held, _climb(other, examples.features[held])) for held, other in held_out]
    return _judged(examples, scorer, climbs)


def _cross_validate_few(examples: Examples, config: ScorerConfig, epochs: int) -> Iterator[Fitted]:
    """A scorer with each of its windows as the first one and each patience."""
    scorer, held_out = _fit_folds(examples, config, epochs)
    for start in range(scorer.candidates):
        climbs = [
            (held, _climb(replace(other, start=start), examples.features[held]))
            for held, other in held_out
        ]
        for patience in config.patiences:
            yield _judged(examples, replace(scorer, start=start, patience=patience), climbs)


def _fit_folds(
    examples: Examples,
    config: ScorerConfig,
    epochs: int,
    further: Scorer | None = None,
    averaging: float = 1.0,
) -> tuple[Scorer, list[tuple[npt.NDArray[np.bool_], Scorer]]]:
    """A scorer fitted on all examples, and for each part (E,) of them one fitted on the others."""
    images = np.unique(examples.images)
    folds = np.random.default_rng(config.seed).permutation(len(images)) % config.folds
    fold = folds[np.searchsorted(images, examples.images)]
    parts = [fold == index for index in range(config.folds)]

    def fitted(rows: npt.NDArray[np.bool_]) -> Scorer:
        return _mean(further, _fit(examples, rows, config, epochs, further), averaging)

    held_out = [(held, fitted(~held)) for held in parts if held.any() and not held.all()]
    return fitted(np.ones(len(fold), bool)), held_out


def _judged(
    examples: Examples,
    scorer: Scorer,
    climbs: Sequence[tuple[npt.NDArray[np.bool_], Sequence[_Step]]],
) -> Fitted:
    """`scorer` with what is chosen with its patience of the clicks that were held out."""
    count, windows = examples.ious.shape
    choice = np.zeros(count, int)
    score, looks = np.zeros((2, count), np.float32)
    for held, steps in climbs:
        choice[held], score[held], looks[held] = _stopped(steps, scorer.patience)
    iou = examples.ious[np.arange(count), choice]
    third = examples.ious.argmax(1) * 3 // windows
    return Fitted(
        scorer=scorer,
        chosen=float(np.average(iou, weights=examples.weights)),
        looks=float(np.average(looks, weights=examples.weights)),
        best=float(np.average(examples.ious.max(1), weights=examples.weights)),
        by_window=tuple(_average(iou, examples.weights, third == part) for part in range(3)),
        spearman=spearman(score, iou),
        calibration_error=calibration_error(score, iou),
    )


def _average(values: Floats, weights: Floats, where: npt.NDArray[np.bool_]) -> float:
    """The weighted mean of some values; NaN if there are none."""
    return float(np.average(values[where], weights=weights[where])) if where.any() else math.nan


class _Step(NamedTuple):
    """What is known of each click (E,) after so many windows."""

    looks: int
    choice: npt.NDArray[np.int64]
    score: Floats
    """Of the choice."""
    expected: Floats
    """The highest score of a window that was not looked through; below 0 if there is none."""


def choose(scorer: Scorer, features_ENF: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """The window that a prediction chooses for each click, its score, and how many it looks at.

    The same as `scorer.Ladder` for all clicks at once, from the features (E, N, F) of all windows.
    """
    return _stopped(_climb(scorer, features_ENF), scorer.patience)


def _climb(scorer: Scorer, features_ENF: Floats) -> list[_Step]:
    """What a prediction would know after each window, were its patience endless."""
    count, windows = features_ENF.shape[:2]
    rows = np.arange(count)
    seen_EN = np.full((count, windows), scorer.start is None)
    if scorer.start is not None:
        seen_EN[:, scorer.start] = True
    steps = []
    while True:
        scores_EN = scorer(np.where(known(seen_EN), features_ENF, np.float32(np.nan)))
        choice_E = np.where(seen_EN, scores_EN, -1).argmax(1)
        missing_EN = np.where(seen_EN, -1, scores_EN)
        looks = int(seen_EN[0].sum())
        steps.append(_Step(looks, choice_E, scores_EN[rows, choice_E], missing_EN.max(1)))
        if looks == windows:
            return steps
        seen_EN[rows, missing_EN.argmax(1)] = True


def _stopped(
    steps: Sequence[_Step], patience: float
) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """The choice of each click, its score and the windows looked through, at the first step whose
    missing windows promise too little."""
    going_E = np.ones(len(steps[0].choice), bool)
    choice_E, score_E = steps[0].choice.copy(), steps[0].score.copy()
    looks_E = np.zeros(len(choice_E), np.float32)
    for step in steps:
        choice_E[going_E], score_E[going_E] = step.choice[going_E], step.score[going_E]
        looks_E[going_E] = step.looks
        going_E &= step.expected > step.score - patience
    return choice_E, score_E, looks_E


def known(seen_EN: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which features (E, N, F) are known of clicks whose windows (E, N) were looked through.

    Neighbors are compared where both were; at the ends there is nothing to compare with.
    """
    end_E1 = np.ones((len(seen_EN), 1), bool)
    larger_EN, smaller_EN = (
        np.hstack((seen_EN[:, 1:], end_E1)),
        np.hstack((end_E1, seen_EN[:, :-1])),
    )
    known_ENF = np.repeat(seen_EN[:, :, None], len(FEATURES), 2)
    for name, other_EN in (
        ("agree_larger", larger_EN),
        ("grows", larger_EN),
        ("agree_smaller", smaller_EN),
    ):
        known_ENF[:, :, FEATURES.index(name)] &= other_EN
    known_ENF[:, -1, FEATURES.index("agree_larger")] = True
    known_ENF[:, -1, FEATURES.index("grows")] = True
    known_ENF[:, 0, FEATURES.index("agree_smaller")] = True
    return known_ENF


def _fit(
    examples: Examples,
    rows: npt.NDArray[np.bool_],
    config: ScorerConfig,
    epochs: int,
    further: Scorer | None = None,
) -> Scorer:
    """A scorer fitted on some rows: of clicks the mean of several perceptrons, which is one, too.

    `further` is fitted on as it is.
    """
    if further is not None and epochs == 0:
        return further
    clicks = examples.ious.shape[1] > 1
    members = config.members if clicks and further is None else 1
    fits = [
        _fit_one(examples, rows, replace(config, seed=config.seed + member), epochs, further)
        for member in range(members)
    ]
    return replace(
        fits[0],
        hidden=np.hstack([each.hidden for each in fits]),
        hidden_bias=np.hstack([each.hidden_bias for each in fits]),
        out=np.vstack([each.out for each in fits]) / np.float32(members),
        out_bias=np.mean([each.out_bias for each in fits], 0, np.float32),
    )


def _fit_one(
    examples: Examples,
    rows: npt.NDArray[np.bool_],
    config: ScorerConfig,
    epochs: int,
    further: Scorer | None = None,
) -> Scorer:
    """One perceptron: cross-entropy of the predicted with the true IoU, which calibrates it.

    With `further` it begins as that one, learns more slowly and keeps its standardization; it looks
    at some windows only if that one did.
    """
    torch.manual_seed(config.seed)
    x_EI = torch.from_numpy(examples.features[rows]).flatten(1)
    iou_EN = torch.from_numpy(examples.ious[rows])
    weight_E1 = torch.from_numpy(examples.weights[rows])[:, None]
    spread_I = x_EI.std(0) if len(x_EI) > 1 else torch.zeros(x_EI.shape[1])
    mean_I, scale_I = x_EI.mean(0), 1 / spread_I.clamp_min(0.05)
    if further is not None:
        mean_I, scale_I = torch.from_numpy(further.mean), torch.from_numpy(further.scale)
    x_EI = (x_EI - mean_I) * scale_I
    candidates = iou_EN.shape[1]
    few = config.few_windows if further is None else further.start is not None
    partly = candidates > 1 and few
    width = config.hidden if further is None else len(further.hidden_bias)
    net = nn.Sequential(nn.Linear(x_EI.shape[1], width), nn.ReLU(), nn.Linear(width, candidates))
    if further is not None:
        _set(net[0], further.hidden, further.hidden_bias)
        _set(net[2], further.out, further.out_bias)
    rate = 3e-3 if further is None else _FURTHER_RATE
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=config.weight_decay)
    batch = 256
    steps = epochs * max(len(x_EI) // batch, 1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(steps):
        chosen = torch.randint(len(x_EI), (batch,), generator=generator)
        inputs_EI = x_EI[chosen]
        if partly:
            share_E1 = 0.3 + 0.7 * torch.rand((batch, 1), generator=generator)
            seen_EN = torch.rand((batch, candidates), generator=generator) < share_E1
            seen_EN[: round(config.whole * batch)] = True
            # A feature that is not known counts as its mean, which is 0 here.
            inputs_EI = inputs_EI * torch.from_numpy(known(seen_EN.numpy())).flatten(1)
        raw_EN = net(inputs_EI)
        loss = F.binary_cross_entropy_with_logits(raw_EN, iou_EN[chosen], weight_E1[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    first, last = net[0], net[2]
    arrays: dict[str, Any] = {
        "mean": mean_I,
        "scale": scale_I,
        "hidden": first.weight.T,
        "hidden_bias": first.bias,
        "out": last.weight.T,
        "out_bias": last.bias,
    }
    layers = {name: value.detach().numpy().copy() for name, value in arrays.items()}
    # The first look is through the window that is the best one on average.
    start = int((iou_EN * weight_E1).mean(0).argmax()) if partly else None
    patience = PATIENCE if further is None else further.patience
    scorer = Scorer(**layers, start=start, patience=patience)
    assert scorer.out.shape == (width, candidates)
    assert x_EI.shape[1] == candidates * len(FEATURES)
    return scorer


def _mean(before: Scorer | None, after: Scorer, share: float) -> Scorer:
    """`share` of the numbers of `after` and the rest of those that it was fitted further from."""
    if before is None or before is after or share == 1:
        return after
    numbers = {
        name: ((1 - share) * getattr(before, name) + share * getattr(after, name)).astype(
            np.float32
        )
        for name in SCORER_LAYERS
    }
    return replace(after, **numbers)


def _set(layer: nn.Module, weight_IO: Floats, bias_O: Floats) -> None:
    """Fill a linear layer with a scorer's numbers."""
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight_IO).T)
        layer.bias.copy_(torch.from_numpy(bias_O))
