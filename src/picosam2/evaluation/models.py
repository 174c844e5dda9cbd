"""What can be measured: our predictor, or any other model that answers the same three questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from picosam2.evaluation.protocols import Item
from picosam2.predictor import BOX_CHANNEL, CLICK_CHANNEL, Candidate, Predictor
from picosam2.prompts import Box, Point

Picture = npt.NDArray[np.uint8]


@runtime_checkable
class ModelUnderTest(Protocol):
    """A model under test. A picture is (H, W, 3) RGB uint8; prompts are in its pixels."""

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""

    def boxes(self, picture: Picture, boxes: Sequence[Box]) -> list[Candidate]:
        """One answer for each box."""

    def clicks(self, picture: Picture, points: Sequence[Point]) -> list[list[Candidate]]:
        """The answers for each click, best first by the model's own score."""

    def windows(self, picture: Picture, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """Logits (N, S, S) of the crops that the protocol prescribes: each item's `window`."""


class PredictorUnderTest:
    """A `Predictor` under test."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def weights_sha256(self) -> str:
        """Of the weights file."""
        return self.predictor.runtime.info.weights_sha256

    def boxes(self, picture: Picture, boxes: Sequence[Box]) -> list[Candidate]:
        """One answer for each box, as a user gets it."""
        return self.predictor.boxes(picture, boxes)

    def clicks(self, picture: Picture, points: Sequence[Point]) -> list[list[Candidate]]:
        """The answers for each click, as a user gets them."""
        return self.predictor.clicks(picture, points)

    def windows(self, picture: Picture, items: Sequence[Item]) -> npt.NDArray[np.float32]:
        """The network's bare logits on given windows."""
        found = [item.window for item in items if item.window is not None]
        channel = BOX_CHANNEL if items[0].prompt.box is not None else CLICK_CHANNEL
        return self.predictor.window_logits(picture, found, channel)


def under_test(model: Predictor | ModelUnderTest) -> ModelUnderTest:
    """`model` itself if it is a subject, or the predictor as one."""
    return PredictorUnderTest(model) if isinstance(model, Predictor) else model
