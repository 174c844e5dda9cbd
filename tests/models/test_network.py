"""The network: the paper's size, every variant, and settings that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from picosam2.errors import ConfigError
from picosam2.models.network import (
    ACTIVATIONS,
    ATTENTIONS,
    DOWNS,
    HEADS,
    STEMS,
    UPS,
    ModelConfig,
    PicoSAM2,
)

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


VARIANTS: dict[str, tuple[dict[str, Any], int, int]] = {
    # Settings, and by hand: parameters and convolution MACs more than the network of SMALL at 64.
    # Its halvings are of 4 channels to 32x32 and 6 to 16x16: 144 and 324 parameters.
    "conv2": ({"down": "conv2"}, 64 + 144 - 468, 64 * 1024 + 144 * 256 - (147_456 + 82_944)),
    "depthwise": (
        {"down": "depthwise"}, 36 + 54 - 468, 36 * 1024 + 54 * 256 - (147_456 + 82_944)
    ),
    "maxpool": ({"down": "maxpool"}, -468, -(147_456 + 82_944)),
    "avgpool": ({"down": "avgpool"}, -468, -(147_456 + 82_944)),
    "avgpool-conv1": (
        {"down": "avgpool-conv1"}, 16 + 36 - 468, 16 * 1024 + 36 * 256 - (147_456 + 82_944)
    ),
    # Sixteen taps more for each channel that a depthwise kernel sees: 3, 4; 6; 8, 6.
    "kernel5": (
        {"kernel": 5}, 16 * 27, 16 * (3 * 4096 + 4 * 1024 + 6 * 256 + 8 * 1024 + 6 * 4096)
    ),
    # A second block in both stages: depthwise, pointwise, two batch norms.
    "blocks": ({"blocks": 2}, (36 + 16 + 16) + (54 + 36 + 24), 52 * 4096 + 90 * 1024),
    # The same in both decoder stages, of 6 and 4 channels.
    "decoder_blocks": (
        {"decoder_blocks": 2}, (54 + 36 + 24) + (36 + 16 + 16), 90 * 1024 + 52 * 4096
    ),
    # No decoder and no skip at 64x64: 6 to 4 channels, and 4 to 4 with a bias; the head sees 6.
    "coarse": (
        {"decoder": (6,)},
        -(54 + 24 + 12 + 8) - 20 + 2,
        -(54 + 24 + 16 + 4) * 4096 + 6 * 1024,
    ),
    "hard-swish": ({"activation": "hard-swish"}, 0, 0),
    "silu": ({"activation": "silu"}, 0, 0),
    "relu6": ({"activation": "relu6"}, 0, 0),
    "dilation": ({"dilation": 2}, 0, 0),
    "bilinear": ({"up": "bilinear"}, 0, 0),
    # Four 8-wide 1x1 convolutions' worth: query, key and value, with their biases.
    "self": ({"attention": "self"}, 3 * 72, 3 * 64 * 256),
}  # fmt: skip


def test_every_choice_is_among_the_variants() -> None:
    tried = {value for settings, *_ in VARIANTS.values() for value in settings.values()}
    assert {*DOWNS, *ACTIVATIONS, *UPS} - {"conv", "relu", "nearest"} <= tried


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_variant_costs_and_that_it_learns(name: str) -> None:
    settings, more_parameters, more_macs = VARIANTS[name]
    plain = PicoSAM2(ModelConfig(**SMALL, input_size=64))
    model = PicoSAM2(ModelConfig(**{**SMALL, "input_size": 64, **settings}))
    assert parameters(model) - parameters(plain) == more_parameters
    assert convolution_macs(model, 64) - convolution_macs(plain, 64) == more_macs
    logits = model.train()(torch.randn(2, 3, 64, 64))["logits"]
    assert logits.shape == (2, 1, 64, 64)
    logits.square().mean().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_the_names_of_the_shipped_weights_stay() -> None:
    names = list(PicoSAM2(ModelConfig(widths=(4,), bottleneck=4, decoder=(4,))).state_dict())
    assert [name for name in names if name.endswith("weight")] == [
        "encoder.0.0.weight", "encoder.0.1.weight", "encoder.0.3.weight", "encoder.0.4.weight",
        "down.0.weight",
        "bottleneck.0.weight", "bottleneck.1.weight", "bottleneck.3.weight", "bottleneck.4.weight",
        "decoder.0.0.weight", "decoder.0.1.weight", "decoder.0.3.weight", "decoder.0.4.weight",
        "skip.0.weight", "head.weight",
    ]  # fmt: skip


def test_coarse_logits_are_enlarged_from_pixel_centres() -> None:
    """A ramp stays a ramp: its values lie where the larger grid's pixel centres are."""
    model = PicoSAM2(ModelConfig(widths=(4, 4, 4), bottleneck=4, decoder=(4,), input_size=64))
    assert model.enlarge == 4
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    model.head.register_forward_hook(lambda _module, _given, _output: ramp)
    with torch.inference_mode():
        row = model.eval()(torch.zeros(1, 3, 64, 64))["logits"][0, 0, 5]
    wanted = (torch.arange(64) + 0.5) / 4 - 0.5
    torch.testing.assert_close(row, wanted.clamp(0, 15))


def test_a_dilated_bottleneck_reaches_further() -> None:
    def reach(dilation: int) -> int:
        """Columns of the bottleneck that the middle one sees."""
        torch.manual_seed(0)  # with other weights no ReLU may be open
        config = ModelConfig(**SMALL, input_size=96, dilation=dilation, down="avgpool")
        model = PicoSAM2(config).eval()
        given = torch.randn(1, 6, 24, 24, requires_grad=True)
        model.bottleneck(given)[0, :, 12, 12].sum().backward()
        assert given.grad is not None
        touched = given.grad.abs().sum((0, 1, 2)).nonzero()
        return int(touched.max() - touched.min()) + 1

    assert (reach(1), reach(2)) == (3, 5)


def test_self_attention_by_hand() -> None:
    """Against torch's own attention, with the same weights."""
    torch.manual_seed(0)
    attention = ATTENTIONS["self"](16).eval()
    x_BCHW = torch.randn(2, 16, 3, 5)

    def rows(module: nn.Module) -> Tensor:
        out: Tensor = module(x_BCHW).flatten(2).transpose(1, 2)
        return out

    with torch.inference_mode():
        mixed = nn.functional.scaled_dot_product_attention(
            rows(attention.query), rows(attention.key), rows(attention.value)
        )
        wanted = x_BCHW + mixed.transpose(1, 2).reshape(2, 16, 3, 5)
        torch.testing.assert_close(attention(x_BCHW), wanted)


def test_samples_do_not_see_each_other_when_not_training() -> None:
    model = PicoSAM2(ModelConfig(**SMALL, attention="self")).eval()
    batch = torch.randn(4, 3, 96, 96)
    with torch.inference_mode():
        together = model(batch)["logits"]
        alone = torch.cat([model(one[None])["logits"] for one in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"widths": (48, 96)}, "one number per stage"),
        ({"widths": (), "decoder": ()}, "one number per stage"),
        ({"widths": (48, 96, 160, 0)}, "at least 1"),
        ({"logits": 0}, "at least 1"),
        ({"bottleneck": -5}, "at least 1"),
        ({"input_size": 100}, "multiple of 16"),
        ({"input_size": 0}, "multiple of 16"),
        ({"input_size": -16}, "multiple of 16"),
        ({"stem": "stride2", "input_size": 112}, "multiple of 32"),
        ({"widths": (4,) * 6, "decoder": (4,) * 6}, "multiple of 64"),
        ({"stem": "patchify"}, "`stem` must be one of none, stride2"),
        ({"attention": "area"}, "`attention` must be one of none, channel, self"),
        ({"decoder": (4, 4, 4, 4, 4)}, "fewer in `decoder`"),
        ({"decoder": ()}, "fewer in `decoder`"),
        ({"kernel": 4}, "`kernel` must be odd"),
        ({"kernel": -1}, "`kernel` must be odd"),
        ({"activation": "mish"}, "`activation` must be one of relu, relu6, hard-swish, silu"),
        ({"down": "grouped"}, "`down` must be one of conv, conv2, depthwise, maxpool"),
        ({"up": "shuffle"}, "`up` must be one of nearest, bilinear"),
        ({"blocks": 0}, "`decoder_blocks` and `dilation`"),
        ({"dilation": 0}, "`decoder_blocks` and `dilation`"),
        ({"decoder_blocks": 0}, "`decoder_blocks` and `dilation`"),
        (
            {"encoder": "efficientnet-lite2", "widths": (16, 24, 48, 120), "down": "maxpool"},
            "of its own",
        ),
        ({"heads": ("iou", "depth")}, "unknown head 'depth'; there are iou"),
    ],
)
def test_impossible_networks(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig(**settings)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ModelConfig().logits = 2  # type: ignore[misc]
