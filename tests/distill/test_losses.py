"""losses: parity with the same quantities written another way, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from picosam2.distill.losses import bce, dice, iou_error, supervised


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Logits and fractional targets (5, 12, 12)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 12, 12, generator=generator, dtype=torch.float64) * 4
    return logits, torch.rand(5, 12, 12, generator=generator, dtype=torch.float64)


def test_bce_is_the_cross_entropy_of_probabilities(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair
    expected = torch.stack(
        [nn.BCELoss()(1 / (1 + torch.exp(-x)), t) for x, t in zip(logits, target, strict=True)]
    )
    torch.testing.assert_close(bce(logits, target), expected)


def test_bce_holds_for_logits_that_overflow_probabilities() -> None:
    logits = torch.tensor([[[400.0, -400.0]]])
    assert bce(logits, torch.tensor([[[1.0, 0.0]]])).item() == 0
    assert bce(logits, torch.tensor([[[0.0, 0.0]]])).item() == 200


def test_dice_pixel_by_pixel(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair
    for one, truth, found in zip(logits, target, dice(logits, target), strict=True):
        overlap = total = 0.0
        for row, wanted in zip(one.tolist(), truth.tolist(), strict=True):
            for x, t in zip(row, wanted, strict=True):
                p = 1 / (1 + math.exp(-x))
                overlap += p * t
                total += p + t
        assert found.item() == pytest.approx(1 - (2 * overlap + 1) / (total + 1))


def test_dice_of_a_perfect_and_of_an_empty_mask() -> None:
    target = torch.zeros(2, 8, 8)
    target[0, 2:5, 3:6] = 1
    losses = dice(torch.where(target > 0, 50.0, -50.0), target)
    torch.testing.assert_close(losses, torch.zeros(2))  # nothing where nothing is, too


def test_the_order_of_the_batch_does_not_matter(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair
    order = torch.tensor([3, 0, 4, 2, 1])
    for name, losses in supervised(logits, target).items():
        torch.testing.assert_close(
            supervised(logits[order], target[order])[name], losses[order], rtol=0, atol=0
        )
        alone = torch.cat(
            [supervised(logits[i : i + 1], target[i : i + 1])[name] for i in range(5)]
        )
        torch.testing.assert_close(losses, alone)


def test_gradients_lead_towards_the_target(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair
    logits = logits.clone().requires_grad_()
    for loss in (bce, dice):
        (gradient,) = torch.autograd.grad(loss(logits, target.round()).sum(), logits)
        assert ((gradient < 0) == (target.round() > 0.5)).float().mean() > 0.95


def test_iou_error_is_the_squared_distance_to_the_iou() -> None:
    logits = torch.full((3, 4, 4), -1.0)
    target = torch.zeros(3, 4, 4)
    logits[0, :2], target[0, 1:3] = 1.0, 1.0  # 4 shared of 12
    logits[1, :2], target[1, :2] = 1.0, 0.9  # the same
    predicted = torch.tensor([0.0, 50.0, 0.0], requires_grad=True)
    found = iou_error(predicted, logits.requires_grad_(), target)
    torch.testing.assert_close(found, torch.tensor([(0.5 - 1 / 3) ** 2, 0.0, 0.25]))
    found.sum().backward()
    assert predicted.grad is not None
    assert logits.grad is None  # the masks are not pulled towards what was predicted
