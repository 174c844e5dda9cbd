"""Teachers: large models that say what an image's objects are, for the student to learn from.

A teacher sees a whole image at its full size, once, with all of the objects that are asked about,
and answers each with logits on a window of the image. It owns its preprocessing. `open_teacher`
knows the kinds:

    checkpoint:NAME|FILE   weights of this project, through the window around each object's box
    sam2:, sam:, edgetam:, onnx:   models of the SAM family; see `evaluation.sam`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from picosam2.distillation.protocol import (
    Target,
    Teacher,
    TeacherAnswer,
    TeacherConfig,
    fingerprint,
)
from picosam2.errors import ConfigError, WeightsError
from picosam2.models.devices import torch_device
from picosam2.predictor import BOX_CHANNEL, Predictor
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.protocol import Runtime
from picosam2.runtimes.weights import find_weights

_BATCH = 32  # windows that a checkpoint is shown at once


class CheckpointTeacher:
    """Weights of this project, for instance of a wider network with a larger input.

    Each object is seen through the window around its box that the weights were trained on, by the
    logit channel of boxes; the expected IoU is that of their scorer, or else SAM's stability.
    """

    def __init__(self, runtime: Runtime, *, name: str, precision: str = "fp32") -> None:
        """Ask a runtime that is open already; `precision` is what it computes with.

        Raises:
            WeightsError: the weights take no boxes.
        """
        self._predictor = Predictor(runtime)
        self.name = name
        info = runtime.info
        if info.metadata.native:
            raise WeightsError(
                f"{name} was trained on windows of the image's own pixels around clicks, and "
                "cannot teach boxes: choose other weights"
            )
        self.settings = {
            "prompt": "box",
            "input_size": info.input_size,
            "precision": precision,
            "expects": "stability" if "box" not in info.metadata.scorers else "scorer",
        }
        self.fingerprint = fingerprint(weights=info.weights_sha256, **self.settings)

    @classmethod
    def load(cls, weights: str, config: TeacherConfig) -> CheckpointTeacher:
        """Shipped weights by name, or a file. `WeightsError` if they cannot be used."""
        name = f"checkpoint:{weights}"
        if config.prompt != "box":
            raise ConfigError(f"{name} answers boxes: leave --prompt out, or say --prompt box")
        try:
            path = find_weights(weights, "torch")
        except WeightsError:  # weights in 8 bits come for ONNX Runtime only
            path = find_weights(weights, "onnx")
        if path.suffix == ".onnx":
            return cls(OnnxRuntime(path), name=name)
        from picosam2.runtimes.torch import TorchRuntime

        runtime = TorchRuntime.load(
            path, device=torch_device(config.device), precision=config.precision
        )
        return cls(runtime, name=name, precision=config.precision)

    def __call__(
        self, image: npt.NDArray[np.uint8], targets: Sequence[Target]
    ) -> list[TeacherAnswer]:
        """One answer for each target, some windows in a batch."""
        answers: list[TeacherAnswer] = []
        for start in range(0, len(targets), _BATCH):
            answers += self._answers(image, targets[start : start + _BATCH])
        return answers

    def _answers(
        self, image: npt.NDArray[np.uint8], targets: Sequence[Target]
    ) -> list[TeacherAnswer]:
        windows = [self._predictor.box_window(target.box) for target in targets]
        logits = self._predictor.window_logits(image, windows, BOX_CHANNEL)
        scores = self._predictor.box_scores(logits, windows, *image.shape[:2])
        return [
            TeacherAnswer(logits=answer, window=window, predicted_iou=float(score))
            for answer, window, score in zip(logits, windows, scores, strict=True)
        ]


def _sam(kind: str) -> Callable[[str, TeacherConfig], Teacher]:
    def load(where: str, config: TeacherConfig) -> Teacher:
        from picosam2.distillation.sam import SamTeacher

        return SamTeacher.load(f"{kind}:{where}", config)

    return load


TEACHERS: dict[str, Callable[[str, TeacherConfig], Teacher]] = {
    "checkpoint": CheckpointTeacher.load,
    "sam2": _sam("sam2"),
    "sam": _sam("sam"),
    "edgetam": _sam("edgetam"),
    "onnx": _sam("onnx"),
}
"""Opens the teacher that stands behind `KIND:` in a specification, by its kind."""


def open_teacher(spec: str, config: TeacherConfig | None = None) -> Teacher:
    """The teacher that `spec`, "KIND:WHERE", means.

    Raises:
        ConfigError: no such kind, or it cannot be asked like that.
        WeightsError: the model is missing, damaged or of another kind.
        MissingExtraError: what runs it is not installed.
    """
    kind, colon, where = spec.partition(":")
    if not colon or kind not in TEACHERS or not where:
        known = ", ".join(f"{name}:..." for name in TEACHERS)
        raise ConfigError(f"{spec!r} names no teacher: write one of {known}")
    return TEACHERS[kind](where, config or TeacherConfig())
