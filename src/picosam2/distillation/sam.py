"""Teachers of the SAM family: the whole image is encoded once, with all of its prompts.

The logits stay at the resolution that the mask decoder gives, over the part of the image's plane
that the network's square covers: whoever wants them elsewhere resamples them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from picosam2 import geometry
from picosam2.distillation.protocol import Target, TeacherAnswer, TeacherConfig, fingerprint
from picosam2.errors import ConfigError
from picosam2.evaluation.sam import Decoded, RgbImage, SamModel, open_sam
from picosam2.geometry import Window
from picosam2.models.devices import torch_device
from picosam2.prompts import Prompt


class SamTeacher:
    """A model of the SAM family as a teacher."""

    def __init__(self, model: SamModel, config: TeacherConfig) -> None:
        """Ask a model that is open already."""
        self.name, self._model, self._config = model.name, model, config
        hashes = {
            key: model.identity[key] for key in ("weights", "config") if key in model.identity
        }
        more = {key: value for key, value in model.identity.items() if key not in hashes}
        self.settings: dict[str, Any] = {"prompt": config.prompt, "choose": config.choose, **more}
        self.fingerprint = fingerprint(**hashes, **self.settings)

    @classmethod
    def load(cls, spec: str, config: TeacherConfig) -> SamTeacher:
        """Open the model that KIND:WHERE means; it may come from the Hugging Face hub.

        Raises:
            WeightsError: the model is missing, damaged or of another kind.
            MissingExtraError: what runs it is not installed.
        """
        device = "cpu" if spec.startswith("onnx:") else torch_device(config.device)
        model = open_sam(spec, fetch=True, device=device, precision=config.precision)
        return cls(model, config)

    def __call__(self, image: RgbImage, targets: Sequence[Target]) -> list[TeacherAnswer]:
        """One answer for each target; the image is encoded once."""
        if not targets:
            return []
        encoded = self._model.encode(image)
        prompts = [self._prompt(target) for target in targets]
        decoded = self._model.decode(encoded, prompts, several=True)
        window = encoded.prepared.window
        return [
            choose(answer, window, target, self._config.choose, image)
            for answer, target in zip(decoded, targets, strict=True)
        ]

    def _prompt(self, target: Target) -> Prompt:
        """What the model is shown of an object."""
        points = () if self._config.prompt == "box" else (target.point,)
        return Prompt(points, None if self._config.prompt == "point" else target.box)


def choose(
    decoded: Decoded, window: Window, target: Target, by: str, image: RgbImage
) -> TeacherAnswer:
    """The answer among a prompt's masks, `by` their predicted IoU or by the truth's agreement."""
    maps_Mss, scores_M = decoded.maps_Mss, decoded.scores_M
    rank = np.where(np.isnan(scores_M), -np.inf, scores_M)
    if by == "truth":
        if target.mask is None:
            raise ConfigError("a mask cannot be chosen by a truth that is not known")
        height, width = image.shape[:2]
        rank = np.array(
            [
                geometry.paste_region(map_ss, window, height, width).iou(target.mask)
                for map_ss in maps_Mss
            ]
        )
    best = int(rank.argmax())
    return TeacherAnswer(logits=maps_Mss[best], window=window, predicted_iou=float(scores_M[best]))
