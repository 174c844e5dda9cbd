"""Losses, per sample: the trainer weighs and averages them.

Shape suffixes: B batch, S the logits' side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bce(logits_BSS: Tensor, target_BSS: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels, (B,). `target_BSS` may be fractional, 0..1."""
    return F.binary_cross_entropy_with_logits(logits_BSS, target_BSS, reduction="none").mean((1, 2))


def dice(logits_BSS: Tensor, target_BSS: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice loss 1 - 2|PT| / (|P| + |T|) of probabilities, (B,) (Milletari et al. 2016)."""
    probability_BSS = torch.sigmoid(logits_BSS)
    overlap_B = (probability_BSS * target_BSS).sum((1, 2))
    total_B = probability_BSS.sum((1, 2)) + target_BSS.sum((1, 2))
    return 1 - (2 * overlap_B + smooth) / (total_B + smooth)


def supervised(logits_BSS: Tensor, target_BSS: Tensor) -> dict[str, Tensor]:
    """The supervised loss's parts, each (B,): `bce` and `dice`."""
    return {"bce": bce(logits_BSS, target_BSS), "dice": dice(logits_BSS, target_BSS)}


def iou_error(predicted_B: Tensor, logits_BSS: Tensor, target_BSS: Tensor) -> Tensor:
    """Squared error of a predicted IoU, given before the sigmoid, (B,).

    The truth is the IoU of the masks logits > 0 and target > 0.5; it takes no gradient.
    """
    mask_BSS, object_BSS = logits_BSS.detach() > 0, target_BSS > 0.5
    both_B = (mask_BSS & object_BSS).sum((1, 2))
    either_B = (mask_BSS | object_BSS).sum((1, 2))
    return (torch.sigmoid(predicted_B) - both_B / either_B.clamp_min(1)) ** 2
