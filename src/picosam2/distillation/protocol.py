"""What a teacher is asked and what it answers, whatever kind of model it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from picosam2.errors import ConfigError
from picosam2.geometry import Window
from picosam2.masks import Mask
from picosam2.prompts import Box, Point

PROMPTS = ("box", "point", "both")
CHOICES = ("predicted", "truth")


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """One object that a teacher is asked about, in pixels of the image."""

    box: Box
    point: Point
    """Its center point."""
    mask: Mask | None = None
    """The true mask (H, W) bool, if it is known."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TeacherAnswer:
    """A teacher's answer: logits (h, w) float32 over `window`, and the IoU it expects of them.

    What is outside the window, the teacher has not seen. Nothing vouches for finite numbers.
    """

    logits: npt.NDArray[np.float32]
    window: Window
    predicted_iou: float


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How a teacher is asked."""

    prompt: str = "box"
    """What the teacher is shown of an object: its box, its center point, or both."""
    choose: str = "predicted"
    """Which of several masks counts: the one with the highest predicted IoU, or by the truth."""
    device: str = "auto"
    """Where it runs: auto, cpu or cuda."""
    precision: str = "bf16"
    """Numbers it computes with: fp32, or bf16 by autocast."""

    def __post_init__(self) -> None:
        for name, known in (
            ("prompt", PROMPTS),
            ("choose", CHOICES),
            ("precision", ("fp32", "bf16")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}")


class Teacher(Protocol):
    """Answers for all objects of one image at a time."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that its answers depend on: weights, configuration, how it is asked."""

    @property
    def settings(self) -> dict[str, Any]:
        """How it is asked, for people; in JSON's types."""

    def __call__(
        self, image: npt.NDArray[np.uint8], targets: Sequence[Target]
    ) -> list[TeacherAnswer]:
        """One answer for each target of `image` (H, W, 3) RGB uint8, in order."""


def fingerprint(**facts: Any) -> str:
    """SHA-256 of facts in JSON's types, in hexadecimal."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
