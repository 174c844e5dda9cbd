"""The network: the paper's size, every variant, and settings that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from picosam2.errors import ConfigError
from picosam2.model import ATTENTIONS, HEADS, STEMS, ModelConfig, PicoSAM2

SMALL = {"widths": (4, 6), "bottleneck": 8, "decoder": (6, 4)}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolution_macs(model: nn.Module, size: int) -> int:
    """Multiply-accumulates of every convolution, counted as they happen."""
    total = 0

    def count(module: nn.Conv2d, _given: Any, output: Tensor) -> None:
        nonlocal total
        kernel = module.kernel_size[0] * module.kernel_size[1]
        each = kernel * module.in_channels // module.groups
        total += each * output[0].numel()

    hooks = [
        module.register_forward_hook(count)
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


def test_the_papers_network() -> None:
    model = PicoSAM2()
    assert parameters(model) == 1_262_818
    assert convolution_macs(model, 96) == 323_053_056
    assert model.config == ModelConfig()


def test_a_second_logit_costs_41_parameters() -> None:
    assert parameters(PicoSAM2(ModelConfig(logits=2))) == 1_262_818 + 41


def test_only_skips_and_the_head_have_a_bias() -> None:
    for name, module in PicoSAM2().named_modules():
        if isinstance(module, nn.Conv2d):
            assert (module.bias is not None) == name.startswith(("skip", "head")), name


@pytest.mark.parametrize("size", [64, 96, 128, 192])
def test_logits_have_the_inputs_size(size: int) -> None:
    model = PicoSAM2(ModelConfig(input_size=size)).eval()
    with torch.inference_mode():
        found = model(torch.randn(2, 3, size, size))
    assert set(found) == {"logits"}
    assert found["logits"].shape == (2, 1, size, size)
    assert torch.isfinite(found["logits"]).all()


@pytest.mark.parametrize("stem", sorted(STEMS))
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
@pytest.mark.parametrize("heads", [(), *[(head,) for head in HEADS]])
def test_every_variant_runs_and_learns(stem: str, attention: str, heads: tuple[str, ...]) -> None:
    config = ModelConfig(
        **SMALL, stem=stem, attention=attention, heads=heads, logits=2, input_size=64
    )
    model = PicoSAM2(config)
    outputs = model(torch.randn(3, 3, 64, 64))
    side = 64 // STEMS[stem].stride
    assert set(outputs) == {"logits", *heads}
    assert outputs["logits"].shape == (3, 2, side, side)
    for head in heads:
        assert outputs[head].shape == (3, 2)
    sum(output.square().mean() for output in outputs.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_strided_stem_sees_more_for_the_same_work() -> None:
    plain = convolution_macs(PicoSAM2(), 96)
    strided = convolution_macs(PicoSAM2(ModelConfig(stem="stride2", input_size=192)), 192)
    assert 1 < strided / plain < 1.1


@pytest.mark.parametrize("stages", [1, 3, 5])
def test_any_number_of_stages(stages: int) -> None:
    config = ModelConfig(widths=(4,) * stages, decoder=(4,) * stages, bottleneck=4, input_size=64)
    with torch.inference_mode():
        assert PicoSAM2(config).eval()(torch.zeros(1, 3, 64, 64))["logits"].shape[2:] == (64, 64)


def test_samples_do_not_see_each_other_when_not_training() -> None:
    model = PicoSAM2(ModelConfig(**SMALL)).eval()
    batch = torch.randn(4, 3, 96, 96)
    with torch.inference_mode():
        together = model(batch)["logits"]
        alone = torch.cat([model(one[None])["logits"] for one in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"widths": (48, 96)}, "equally many"),
        ({"widths": (), "decoder": ()}, "equally many"),
        ({"widths": (48, 96, 160, 0)}, "at least 1"),
        ({"logits": 0}, "at least 1"),
        ({"bottleneck": -5}, "at least 1"),
        ({"input_size": 100}, "multiple of 16"),
        ({"input_size": 0}, "multiple of 16"),
        ({"input_size": -16}, "multiple of 16"),
        ({"stem": "stride2", "input_size": 112}, "multiple of 32"),
        ({"widths": (4,) * 6, "decoder": (4,) * 6}, "multiple of 64"),
        ({"stem": "patchify"}, "`stem` must be one of none, stride2"),
        ({"attention": "self"}, "`attention` must be one of none, channel"),
        ({"heads": ("iou", "depth")}, "unknown head 'depth'; there are iou"),
    ],
)
def test_impossible_networks(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig(**settings)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ModelConfig().logits = 2  # type: ignore[misc]
