"""losses: parity with the same quantities written another way, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from picosam2.data.augment import Batch
from picosam2.distillation.cache import RECORD
from picosam2.errors import ConfigError
from picosam2.training.config import TrainConfig
from picosam2.training.losses import (
    CONFIDENCES,
    TEACHER_TERMS,
    DistillConfig,
    balanced_bce,
    bce,
    dice,
    supervised,
    teacher_term,
    teacher_weights,
)
from picosam2.training.trainer import compute_loss


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
    for logit, truth, actual in zip(logits, target, dice(logits, target), strict=True):
        overlap = total = 0.0
        for row, wanted in zip(logit.tolist(), truth.tolist(), strict=True):
            for x, t in zip(row, wanted, strict=True):
                p = 1 / (1 + math.exp(-x))
                overlap += p * t
                total += p + t
        assert actual.item() == pytest.approx(1 - (2 * overlap + 1) / (total + 1))


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


def test_balanced_bce_weighs_object_and_background_the_same(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair
    target = (target > 0.9).double()
    value = balanced_bce(logits, target)
    for logit, truth, loss in zip(logits, target, value, strict=True):
        p = torch.sigmoid(logit)
        inside, outside = -p[truth > 0].log().mean(), -(1 - p[truth == 0]).log().mean()
        torch.testing.assert_close(loss, (inside + outside) / 2)
    for only in (0.0, 1.0):  # one kind alone is the whole mean
        same = torch.full_like(target, only)
        torch.testing.assert_close(balanced_bce(logits, same), bce(logits, same))


# -- the teacher's term --------------------------------------------------------------------

forms = st.sampled_from(sorted(TEACHER_TERMS))
temperatures = st.floats(0.25, 8)


@given(forms, temperatures, st.integers(0, 1000))
def test_equal_logits_give_no_teacher_term(form: str, temperature: float, seed: int) -> None:
    config = DistillConfig(form=form, temperature=temperature)
    logits = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 5
    loss = teacher_term(logits, logits, config)
    torch.testing.assert_close(loss, torch.zeros(3), rtol=0, atol=1e-4)
    other = teacher_term(logits + 1, logits, config)
    assert (other > loss + 1e-6).all()


def test_what_the_teacher_has_not_seen_is_background_and_no_more() -> None:
    teacher = torch.full((1, 2, 2), -16.0)  # `cache.UNSEEN`
    for form in TEACHER_TERMS:
        config = DistillConfig(form=form, clip=8)
        for sure in (-8.0, -9.0, -30.0):
            assert teacher_term(torch.full((1, 2, 2), sure), teacher, config).item() < 1e-6
        assert teacher_term(torch.full((1, 2, 2), 1.0), teacher, config).item() > 0.1


@given(forms, temperatures, st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_gradients_are_finite_at_extreme_logits(
    form: str, temperature: float, ours: float, theirs: float
) -> None:
    logits = torch.full((1, 4, 4), ours, requires_grad=True)
    teacher = torch.full((1, 4, 4), theirs)
    config = DistillConfig(form=form, temperature=temperature)
    teacher_term(logits, teacher, config).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("form", sorted(TEACHER_TERMS))
def test_the_terms_pixel_by_pixel(form: str, pair: tuple[Tensor, Tensor]) -> None:
    ours, theirs = pair[0], pair[0].flip(0)
    p, q = torch.sigmoid(ours), torch.sigmoid(theirs)
    expected = {
        "paper": ((ours - theirs) ** 2).mean((1, 2)),
        "published": ((p - q) ** 2).mean((1, 2))
        + 1 - (2 * (p * q).sum((1, 2)) + 1) / ((p * p + q * q).sum((1, 2)) + 1),
        "soft": (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean((1, 2)),
    }[form]  # fmt: skip
    torch.testing.assert_close(
        teacher_term(ours, theirs, DistillConfig(form=form, clip=100)), expected
    )


def test_a_teacher_beyond_the_clip_is_taken_at_the_clip() -> None:
    logits = torch.full((1, 2, 2), 3.0)
    config = DistillConfig(form="paper", clip=4)
    assert teacher_term(logits, torch.full((1, 2, 2), 16.0), config).item() == 1


# -- its weight ----------------------------------------------------------------------------


def records() -> np.ndarray:
    """Four answers: a good one, one that does not count, one of another object, a worse one."""
    taught = np.zeros(4, RECORD)
    taught["predicted_iou"] = 0.9, np.nan, 0.8, 0.5
    taught["iou"] = 0.8, np.nan, 0.1, 0.6
    taught["valid"] = True, False, True, True
    taught["agrees"] = True, False, False, True
    return taught


def test_the_weight_is_the_confidence_of_each_sample() -> None:
    expected = {
        "predicted": [0.9, 0, 0, 0.5], "agreement": [0.8, 0, 0, 0.6], "product": [0.72, 0, 0, 0.3],
    }  # fmt: skip
    for confidence in CONFIDENCES:
        weights = teacher_weights(records(), DistillConfig(confidence=confidence))
        np.testing.assert_allclose(weights, expected[confidence], rtol=1e-6)
    weights = teacher_weights(
        records(), DistillConfig(confidence="predicted", ignore_disagreeing=False)
    )
    np.testing.assert_allclose(weights, [0.9, 0, 0.8, 0.5], rtol=1e-6)
    weights = teacher_weights(records(), DistillConfig(confidence="predicted", share=0.5))
    np.testing.assert_allclose(weights, [0.45, 0, 0, 0.25], rtol=1e-6)


# -- the whole loss ------------------------------------------------------------------------


class Fixed(nn.Module):
    """Answers with logits it was given."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, _image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.logits[:, None]}


def loss_of(logits: Tensor, target: Tensor, teacher: Tensor | None, weights: list[float]) -> Tensor:
    batch = Batch(
        image_B3SS=torch.zeros(len(logits), 3, *logits.shape[1:]), target_BSS=target,
        kind_B=torch.zeros(len(logits), dtype=torch.int64), row_B=np.arange(len(logits)),
        teacher_BSS=teacher, teacher_weight_B=None if teacher is None else torch.tensor(weights),
    )  # fmt: skip
    config = TrainConfig(precision="fp32", bce=0.5, dice=0.5, balanced=True)
    return compute_loss(Fixed(logits), batch, config, DistillConfig(form="paper", clip=100))[0]


def test_without_weight_it_is_exactly_the_supervised_loss(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair[0].float(), pair[1].float()
    teacher = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)) * 8
    alone = loss_of(logits, target, None, [])
    assert torch.equal(loss_of(logits, target, teacher, [0.0] * 5), alone)
    parts = supervised(logits, target, balanced=True)
    torch.testing.assert_close(alone, (0.5 * parts["bce"] + 0.5 * parts["dice"]).mean())


def test_weights_are_per_sample(pair: tuple[Tensor, Tensor]) -> None:
    logits, target = pair[0].float(), pair[1].float()
    teacher = logits.flip(0)
    weights = [0.0, 0.3, 0.9, 1.0, 0.5]
    parts = supervised(logits, target, balanced=True)
    hard = 0.5 * parts["bce"] + 0.5 * parts["dice"]
    w = torch.tensor(weights)
    expected = (w * (logits - teacher).pow(2).mean((1, 2)) + (1 - w) * hard).mean()
    torch.testing.assert_close(loss_of(logits, target, teacher, weights), expected)
    # The same weights on other samples are another loss; the order of the batch is none.
    assert loss_of(logits, target, teacher, weights[::-1]) != expected
    order = torch.tensor([4, 2, 0, 1, 3])
    mixed = loss_of(logits[order], target[order], teacher[order], w[order].tolist())
    torch.testing.assert_close(mixed, expected)


@pytest.mark.parametrize("wrong", [
    {"form": "hard"}, {"confidence": "blind"}, {"share": 1.5}, {"temperature": 0.0}, {"clip": -1.0},
])  # fmt: skip
def test_settings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DistillConfig(**wrong)
