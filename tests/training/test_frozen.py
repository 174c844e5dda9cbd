"""Frozen batch norms: evaluation's answers, exact gradients, and statistics that stay."""

from copy import deepcopy

import pytest
import torch

from picosam2.models.encoders import ENCODERS
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.training.frozen import freeze_batchnorm


def a_model(encoder: str = "efficientnet-lite0") -> PicoSAM2:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=encoder, widths=ENCODERS[encoder].widths, bottleneck=16,
        decoder=(12, 8, 8, 8), input_size=32, guidance=True,
    )  # fmt: skip
    model = PicoSAM2(config)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, 3, 32, 32) * 2 + 1)  # statistics that are not 0 and 1
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("encoder", ["efficientnet-lite0", "efficientnet-lite2"])
def test_a_frozen_model_in_training_answers_as_in_evaluation_and_learns_the_same(
    encoder: str,
) -> None:
    model = a_model(encoder).eval()
    frozen = deepcopy(model).train()
    freeze_batchnorm(frozen)
    image, guidance = torch.randn(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    expected, got = (m(image, guidance)["logits"] for m in (model, frozen))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    expected.square().mean().backward()
    got.square().mean().backward()
    for (name, a), b in zip(model.named_parameters(), frozen.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_statistics_and_names_stay() -> None:
    model = a_model()
    frozen = deepcopy(model).train()
    freeze_batchnorm(frozen)
    frozen(torch.randn(4, 3, 32, 32) * 5)
    before, after = model.state_dict(), frozen.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_precision_gives_nearly_the_same_gradients(stride: int) -> None:
    torch.manual_seed(1)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, stride, 1, groups=8, bias=False), torch.nn.BatchNorm2d(8)
    ).eval()
    frozen = deepcopy(plain)
    freeze_batchnorm(frozen)
    x = torch.randn(2, 8, 12, 12, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    plain(x).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        out = frozen(y)
    out.float().square().sum().backward()
    for a, b in ((x, y), *zip(plain.parameters(), frozen.parameters(), strict=True)):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).abs().max() < 0.03 * a.grad.abs().max()
