"""The interface of a model under test (boxes, clicks, windows), and a `Predictor` behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from picosam2.evaluation.protocols import Item
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Candidate, Predictor
from picosam2.prompts import Box, Point

RgbImage = npt.NDArray[np.uint8]


@runtime_checkable
class ModelUnderTest(Protocol):
    """A model under test. An image is (H, W, 3) RGB uint8; prompts are in its pixels."""

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""

    def boxes(self, image: RgbImage, boxes: Sequence[Box]) -> list[Candidate]:
        """One answer for each box."""

    def clicks(self, image: RgbImage, points: Sequence[Point]) -> list[list[Candidate]]:
        """The answers for each click, best first by the model's own score."""

    def windows(self, image: RgbImage, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """Logits (N, S, S) of the crops that the protocol prescribes: each item's `window`."""


class PredictorUnderTest:
    """A `Predictor` under test."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""
        return self.predictor.runtime.info.weights_sha256

    def boxes(self, image: RgbImage, boxes: Sequence[Box]) -> list[Candidate]:
        """One answer for each box, as a user gets it."""
        return self.predictor.boxes(image, boxes)

    def clicks(self, image: RgbImage, points: Sequence[Point]) -> list[list[Candidate]]:
        """The answers for each click, as a user gets them."""
        return self.predictor.clicks(image, points)

    def windows(self, image: RgbImage, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """The network's bare logits on given windows."""
        windows = [item.window for item in items if item.window is not None]
        channel = BOX_CHANNEL if items[0].prompt.box is not None else CLICK_CHANNEL
        return self.predictor.window_logits(image, windows, channel)


def under_test(model: Predictor | ModelUnderTest) -> ModelUnderTest:
    """`model` itself if it is a `ModelUnderTest`, or the predictor as one."""
    return PredictorUnderTest(model) if isinstance(model, Predictor) else model
