"""Quickened depthwise convolutions give the same outputs and gradients."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.training.depthwise import quicken_depthwise


def gradients(model: nn.Module, x: Tensor, precision: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        out = model(x)
    weigh = torch.linspace(-1, 1, out.numel()).view_as(out)
    (out.float() * weigh).sum().backward()
    return out, [x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_same_outputs_and_gradients(
    kernel: int, stride: int, dilation: int, precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, stride, kernel // 2, dilation, groups=6, bias=False)
    quick = deepcopy(plain)
    quicken_depthwise(quick)
    x = torch.randn(3, 6, 11, 9)
    out, wanted = gradients(plain, x, precision)
    got_out, got = gradients(quick, x, precision)
    assert torch.equal(out, got_out)
    exact = precision == torch.float32
    for a, b in zip(wanted, got, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5 if exact else 0.03, atol=1e-5 if exact else 0.3)


def test_in_bf16_its_weight_gradient_is_nearer_to_the_exact_one() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    quick, exact = deepcopy(plain), deepcopy(plain).double()
    quicken_depthwise(quick)
    x = torch.randn(8, 8, 32, 32)
    truth = gradients(exact, x.double(), torch.float32)[1][1]
    error = [
        (gradients(each, x, torch.bfloat16)[1][1] - truth).abs().max() for each in (plain, quick)
    ]
    assert error[1] <= error[0]


def test_only_depthwise_convolutions_change_and_names_stay() -> None:
    model = PicoSAM2(ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4)))
    names = list(model.state_dict())
    quicken_depthwise(model)
    assert list(model.state_dict()) == names
    changed = [n for n, m in model.named_modules() if "_conv_forward" in vars(m)]
    assert changed == [n for n, m in model.named_modules()
                       if isinstance(m, nn.Conv2d) and m.groups > 1]  # fmt: skip
