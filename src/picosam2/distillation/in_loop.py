"""A teacher in the training loop: it answers the very crops that the student is shown.

A cache holds what a teacher said about annotated objects. This one looks at each crop after all
augmentation, so it can be asked at clicks that nobody annotated (`augment.elsewhere`), and both
networks see the same pixels: "a good teacher is patient and consistent" (Beyer et al. 2022). It
has to be much faster than a training step, so it is weights of this project.

Shape suffixes: B batch, K logit channels, S the crop's side, I the teacher's side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from picosam2.data.augment import Batch
from picosam2.errors import ConfigError, WeightsError
from picosam2.images import MEAN, STD
from picosam2.models.devices import torch_device
from picosam2.models.network import channel
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.protocol import Runtime
from picosam2.runtimes.weights import find_weights

PREFIX = "checkpoint:"

AGREES = 0.5
"""A teacher whose mask has a lower IoU with the truth is not listened to."""

SMALLEST = 0.01
"""Share of the crop that the mask of something without a truth covers at least."""


class InLoopTeacher:
    """Weights of this project as a teacher of each batch."""

    def __init__(self, runtime: Runtime) -> None:
        """Ask a runtime that is open already."""
        self._runtime = runtime
        self._side = runtime.info.input_size
        self.fingerprint = runtime.info.weights_sha256
        """SHA-256 of the weights."""

    @classmethod
    def load(cls, spec: str, device: str = "auto") -> InLoopTeacher:
        """The weights that `checkpoint:NAME` or `checkpoint:FILE` names.

        Weights in 8 bits run through ONNX Runtime on the processor, all others through torch.

        Raises:
            ConfigError: it names another kind of teacher.
            WeightsError: the weights cannot be used.
        """
        name = spec.removeprefix(PREFIX)
        if name == spec or not name:
            raise ConfigError(
                f"{spec!r} names no teacher for the loop: write {PREFIX}NAME or {PREFIX}FILE"
            )
        try:
            path = find_weights(name, "torch")
        except WeightsError:
            path = find_weights(name, "onnx")
        if path.suffix == ".onnx":
            return cls(OnnxRuntime(path))
        from picosam2.runtimes.torch import TorchRuntime

        return cls(TorchRuntime.load(path, device=torch_device(device), precision="bf16"))

    def __call__(self, batch: Batch, share: float) -> Batch:
        """`batch` with the teacher's logits, its weight in each sample, and the samples' values.

        Where there is a truth, the weight is `share` times the IoU of the teacher's mask with it,
        and 0 if that is below `AGREES`: the teacher meant another object, such as a part of one
        that is larger than the crop. It is 0, too, where the click is not the crop's center, since
        the teacher was trained on centered ones.

        Where the click was put elsewhere, the teacher alone says what is there: the weight is 1,
        and the sample's value is the stability of the teacher's mask (its IoU at logits above 1 and
        above -1), or 0 if the mask is smaller than `SMALLEST` or reaches the crop's border: of
        things that do not fit into the crop, the teacher knows the part that it sees.
        """
        logits_BSS = self.logits(batch.image_B3SS, batch.kind_B)
        agreement_B = _iou(logits_BSS > 0, batch.target_BSS > 0.5)
        weight_B = share * agreement_B * (agreement_B >= AGREES)
        if batch.off_center_B is not None:
            weight_B = weight_B.masked_fill(batch.off_center_B, 0.0)
        value_B = torch.ones_like(weight_B)
        if batch.elsewhere_B is not None:
            weight_B = weight_B.masked_fill(batch.elsewhere_B, 1.0)
            value_B = torch.where(batch.elsewhere_B, _trust(logits_BSS), value_B)
        return replace(batch, teacher_BSS=logits_BSS, teacher_weight_B=weight_B, value_B=value_B)

    def logits(self, image_B3SS: Tensor, kind_B: Tensor) -> Tensor:
        """The teacher's logits (B, S, S) float32 on normalized crops, for each sample's prompt."""
        size = image_B3SS.shape[-1]
        image_B3II = F.interpolate(image_B3SS, size=(self._side, self._side), mode="bilinear")
        mean, std = (torch.tensor(v, device=image_B3SS.device)[:, None, None] for v in (MEAN, STD))
        levels_B3II = ((image_B3II * std + mean) * 255).round().clamp(0, 255)
        crops = levels_B3II.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        answer = torch.from_numpy(self._runtime(np.ascontiguousarray(crops)))
        own = channel(answer, kind_B.cpu())[:, None]
        return F.interpolate(own, size=(size, size), mode="bilinear")[:, 0].to(image_B3SS.device)


def _iou(first_BSS: Tensor, second_BSS: Tensor) -> Tensor:
    """IoU (B,) float32 of masks; 0 where both are empty."""
    both_B = (first_BSS & second_BSS).sum((1, 2))
    return both_B / (first_BSS | second_BSS).sum((1, 2)).clamp_min(1)


def _trust(logits_BSS: Tensor) -> Tensor:
    """How far masks that have no truth beside them are trusted, (B,) float32, 0..1."""
    mask_BSS = logits_BSS > 0
    border_B = torch.stack(
        (mask_BSS[:, 0], mask_BSS[:, -1], mask_BSS[:, :, 0], mask_BSS[:, :, -1])
    ).any(0).any(1)  # fmt: skip
    fits_B = (mask_BSS.float().mean((1, 2)) >= SMALLEST) & ~border_B
    return _iou(logits_BSS > 1, logits_BSS > -1) * fits_B
