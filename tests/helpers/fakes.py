"""Runtimes that are no network: their answers are known, so expectations can be exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from picosam2.runtimes.protocol import RuntimeInfo
from picosam2.scorer import FEATURES, Scorer

Answer = Callable[[np.ndarray, int], np.ndarray]
"""From a crop (S, S, 3) uint8 and its number in the batch to logits (K, S, S)."""


Correct = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a crop (S, S, 3) uint8 and its guidance (3, S, S) float32 to logits (K, S, S)."""


class FakeRuntime:
    """Gives what `answer` says of each crop, and keeps the crops it was asked for.

    With `correct` it takes guidance: `correct` answers the crops that come with some, and the
    planes are kept too.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        size: int = 96,
        channels: int = 1,
        correct: Correct | None = None,
        **facts: Any,
    ) -> None:
        if correct is not None:
            facts["model"] = {"guidance": True}
        self.info = RuntimeInfo(
            name="fake", input_size=size, channels=channels, weights_sha256="0" * 64, facts=facts
        )
        self._answer, self._correct = answer, correct
        self.calls: list[np.ndarray] = []
        self.planes: list[np.ndarray] = []

    def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
        assert crops.dtype == np.uint8
        assert crops.shape[1:] == (self.info.input_size, self.info.input_size, 3)
        self.calls.append(crops)
        if guidance is not None:
            assert self._correct is not None
            assert guidance.shape == (len(crops), 3, *crops.shape[1:3])
            assert guidance.dtype == np.float32
            self.planes += list(guidance)
            answers = [self._correct(*both) for both in zip(crops, guidance, strict=True)]
        else:
            answers = [self._answer(crop, number) for number, crop in enumerate(crops)]
        return np.stack(answers).astype(np.float32)


def reddish(crop: np.ndarray, _number: int = 0) -> np.ndarray:
    """Perfect for images whose objects are bright red, on black: logits -8..8.

    Blue is subtracted so that padding, which is gray, counts as background.
    """
    return ((crop[None, :, :, 0].astype(float) - crop[None, :, :, 2]) / 255 - 0.5) * 16


def fixed_scores(*scores: float) -> dict[str, Any]:
    """A scorer, as a weights file holds it, that gives these scores whatever it sees."""
    count = len(scores)
    inputs = count * len(FEATURES)
    logits = np.log(np.array(scores) / (1 - np.array(scores)))
    return Scorer(
        mean=np.zeros(inputs, np.float32),
        scale=np.ones(inputs, np.float32),
        hidden=np.zeros((inputs, 1), np.float32),
        hidden_bias=np.zeros(1, np.float32),
        out=np.zeros((1, count), np.float32),
        out_bias=logits.astype(np.float32),
    ).to_json()


def random_scorer(candidates: int = 3, hidden: int = 7) -> Scorer:
    """A scorer of random numbers."""
    rng = np.random.default_rng(0)
    inputs = candidates * len(FEATURES)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    return Scorer(
        mean=draw(inputs),
        scale=abs(draw(inputs)) + 1,
        hidden=draw(inputs, hidden),
        hidden_bias=draw(hidden),
        out=draw(hidden, candidates),
        out_bias=draw(candidates),
    )


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    """A disc's mask (H, W) bool."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2
