"""Losses, per sample: the trainer weighs and averages them.

With a teacher, a sample's loss is `w * teacher + (1 - w) * supervised`, where w is the teacher's
confidence in that very sample (PicoSAM2, arXiv 2506.18807, "dynamic loss").

Shape suffixes: B batch, S the logits' side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from picosam2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How a student learns from a teacher. Unused without a teacher."""

    form: str = "soft"
    """The teacher's term: paper, published or soft; see `TEACHER_TERMS`."""
    confidence: str = "product"
    """What w is: the teacher's predicted IoU, its agreement with the truth, or their product."""
    share: float = 1.0
    """w at full confidence, 0 to 1: the rest is left to the truth."""
    temperature: float = 1.0
    """Both logits are divided by it in the teacher's term, which is multiplied by its square."""
    clip: float = 8.0
    """Where the teacher's logit is beyond -clip..clip, the student's may be anything beyond, too.
    The size of a logit beyond the clip carries no information. Pixels outside of the teacher's
    window count as clear background."""
    ignore_disagreeing: bool = True
    """Leave a sample to the truth where the teacher clearly segmented another object."""

    def __post_init__(self) -> None:
        for name, known in (("form", TEACHER_TERMS), ("confidence", CONFIDENCES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}")
        if not 0 <= self.share <= 1:
            raise ConfigError("`share` must be from 0 to 1")
        if not (0 < self.temperature <= 100 and 0 < self.clip <= 100):
            raise ConfigError("`temperature` and `clip` must be above 0 and at most 100")


def bce(logits_BSS: Tensor, target_BSS: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels, (B,). `target_BSS` may be fractional, 0..1."""
    return F.binary_cross_entropy_with_logits(logits_BSS, target_BSS, reduction="none").mean((1, 2))


def balanced_bce(logits_BSS: Tensor, target_BSS: Tensor) -> Tensor:
    """Binary cross-entropy in which object and background weigh the same, (B,).

    The mean over the object's pixels and the mean over the others, averaged; a sample that has only
    one of the two counts that one alone.
    """
    each_BSS = F.binary_cross_entropy_with_logits(logits_BSS, target_BSS, reduction="none")
    object_B, all_B = target_BSS.sum((1, 2)), target_BSS[0].numel()
    shares = torch.stack((object_B, all_B - object_B))
    sums = torch.stack(((each_BSS * target_BSS).sum((1, 2)),
                        (each_BSS * (1 - target_BSS)).sum((1, 2))))  # fmt: skip
    present = shares > 0
    means = torch.where(present, sums / shares.clamp_min(1e-6), 0.0)
    return means.sum(0) / present.sum(0)


def dice(logits_BSS: Tensor, target_BSS: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss 1 - 2|PT| / (|P| + |T|) of probabilities, (B,) (Milletari et al. 2016)."""
    probability_BSS = torch.sigmoid(logits_BSS)
    overlap_B = (probability_BSS * target_BSS).sum((1, 2))
    total_B = probability_BSS.sum((1, 2)) + target_BSS.sum((1, 2))
    return 1 - (2 * overlap_B + smooth) / (total_B + smooth)


def supervised(
    logits_BSS: Tensor, target_BSS: Tensor, *, balanced: bool = False
) -> dict[str, Tensor]:
    """The supervised loss's parts, each (B,): `bce` (balanced, if so wanted) and `dice`."""
    cross_entropy = balanced_bce if balanced else bce
    return {"bce": cross_entropy(logits_BSS, target_BSS), "dice": dice(logits_BSS, target_BSS)}


def logit_mse(logits_BSS: Tensor, teacher_BSS: Tensor) -> Tensor:
    """Mean squared difference of the logits, (B,): the paper's teacher term."""
    return ((logits_BSS - teacher_BSS) ** 2).mean((1, 2))


def probability_mse_dice(logits_BSS: Tensor, teacher_BSS: Tensor) -> Tensor:
    """Mean squared difference and Dice loss of the probabilities, (B,), as in the published code.

    The Dice loss has squares in its denominator (Milletari et al. 2016), so that it is zero where
    both are the same soft mask.
    """
    ours_BSS, theirs_BSS = torch.sigmoid(logits_BSS), torch.sigmoid(teacher_BSS)
    overlap_B = (ours_BSS * theirs_BSS).sum((1, 2))
    total_B = (ours_BSS**2).sum((1, 2)) + (theirs_BSS**2).sum((1, 2))
    return ((ours_BSS - theirs_BSS) ** 2).mean((1, 2)) + 1 - (2 * overlap_B + 1) / (total_B + 1)


def divergence(logits_BSS: Tensor, teacher_BSS: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, (B,).

    Hinton et al. 2015, pixel by pixel.
    """
    soft_BSS = torch.sigmoid(teacher_BSS)
    return bce(logits_BSS, soft_BSS) - bce(teacher_BSS, soft_BSS)


TEACHER_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "paper": logit_mse,
    "published": probability_mse_dice,
    "soft": divergence,
}
"""The teacher's term by name: logits (B, S, S) of student and teacher to (B,)."""

CONFIDENCES = ("predicted", "agreement", "product")


def teacher_term(logits_BSS: Tensor, teacher_BSS: Tensor, config: DistillConfig) -> Tensor:
    """How far the student is from its teacher, (B,). Zero for equal logits."""
    scale, clip = 1 / config.temperature, config.clip
    ours_BSS = logits_BSS.detach()
    wanted_BSS = torch.where(teacher_BSS <= -clip, ours_BSS.clamp(max=-clip), teacher_BSS)
    wanted_BSS = torch.where(teacher_BSS >= clip, ours_BSS.clamp(min=clip), wanted_BSS)
    term_B = TEACHER_TERMS[config.form](logits_BSS * scale, wanted_BSS * scale)
    return term_B * config.temperature**2


def teacher_weights(
    records: npt.NDArray[np.void], config: DistillConfig
) -> npt.NDArray[np.float32]:
    """The weight w (B,) float32, 0..1, of the teacher in each sample.

    `records` (B,) are those of a teacher's cache, with `predicted_iou`, `iou` (the teacher's mask
    with the truth), `valid` and `agrees`.
    """
    predicted, agreement = records["predicted_iou"], records["iou"]
    weight = {
        "predicted": predicted, "agreement": agreement, "product": predicted * agreement,
    }[config.confidence]  # fmt: skip
    usable = records["valid"] & (records["agrees"] if config.ignore_disagreeing else True)
    weight = np.where(usable, np.nan_to_num(weight), 0.0)
    return (config.share * weight.clip(0, 1)).astype(np.float32)
