"""The networks of the sensor study: what each costs, that it learns, and what cannot be built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.macs import convolution_macs, parameters
from helpers.variants import (
    ACTIVATIONS,
    ATTENTIONS,
    DOWNS,
    HEADS,
    STEMS,
    UPS,
    VariantConfig,
    iou_loss,
)
from torch import Tensor, nn

from picosam2.data.augment import Batch
from picosam2.errors import ConfigError
from picosam2.models.costs import stage_costs
from picosam2.models.network import PicoSAM2

SMALL = {"widths": (4, 6), "bottleneck": 8, "decoder": (6, 4)}


def test_the_default_is_the_papers_network() -> None:
    """The same weights under the same names give the same logits."""
    torch.manual_seed(0)
    plain = PicoSAM2().eval()
    variant = VariantConfig().build().eval()
    variant.load_state_dict(plain.state_dict())
    crops = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(variant(crops)["logits"], plain(crops)["logits"])


@pytest.mark.parametrize("stem", sorted(STEMS))
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
@pytest.mark.parametrize("heads", [(), *[(head,) for head in HEADS]])
def test_every_variant_runs_and_learns(stem: str, attention: str, heads: tuple[str, ...]) -> None:
    config = VariantConfig(
        **SMALL, stem=stem, attention=attention, heads=heads, logits=2, input_size=64
    )
    model = config.build()
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
    strided = convolution_macs(VariantConfig(stem="stride2", input_size=192).build(), 192)
    assert 1 < strided / plain < 1.1


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
    plain = VariantConfig(**SMALL, input_size=64).build()
    model = VariantConfig(**{**SMALL, "input_size": 64, **settings}).build()
    assert parameters(model) - parameters(plain) == more_parameters
    assert convolution_macs(model, 64) - convolution_macs(plain, 64) == more_macs
    logits = model.train()(torch.randn(2, 3, 64, 64))["logits"]
    assert logits.shape == (2, 1, 64, 64)
    logits.square().mean().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_coarse_logits_are_enlarged_from_pixel_centers() -> None:
    """A ramp stays a ramp: its values lie where the larger grid's pixel centers are."""
    model = VariantConfig(widths=(4, 4, 4), bottleneck=4, decoder=(4,), input_size=64).build()
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
        config = VariantConfig(**SMALL, input_size=96, dilation=dilation, down="avgpool")
        model = config.build().eval()
        features = torch.randn(1, 6, 24, 24, requires_grad=True)
        model.bottleneck(features)[0, :, 12, 12].sum().backward()
        assert features.grad is not None
        touched = features.grad.abs().sum((0, 1, 2)).nonzero()
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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"decoder": (4, 4, 4, 4, 4)}, "or fewer"),
        ({"decoder": ()}, "or fewer"),
        ({"stem": "stride2", "input_size": 112}, "multiple of 32"),
        ({"stem": "patchify"}, "`stem` must be one of none, stride2"),
        ({"attention": "area"}, "`attention` must be one of none, channel, self"),
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
def test_impossible_variants(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        VariantConfig(**settings)


def test_every_variant_adds_up() -> None:
    config = VariantConfig(
        stem="stride2", attention="channel", heads=("iou",), input_size=192, logits=2
    )
    model = config.build()
    costs = {stage.name: stage for stage in stage_costs(model)}
    assert sum(stage.parameters for stage in costs.values()) == sum(
        p.numel() for p in model.parameters()
    )
    assert costs["stem"].shape == (24, 96, 96)
    assert costs["attention"].macs == 2 * 320 * 20
    assert costs["iou head"].shape == (2,)


def test_products_of_activations_are_counted() -> None:
    (attention,) = [
        stage
        for stage in stage_costs(VariantConfig(attention="self").build())
        if stage.name == "attention"
    ]
    # At 6x6: query, key and value, then every place with every other, twice.
    assert attention.macs == 36 * 320 * (40 + 40 + 320) + 36 * 36 * (40 + 320)
    assert attention.activations == 36 * (40 + 40 + 320) + 36 * 36 + 36 * 320


def test_pools_write_but_do_not_multiply() -> None:
    config = VariantConfig(widths=(4, 6), bottleneck=8, decoder=(6,), down="maxpool", input_size=32)
    costs = {stage.name: stage for stage in stage_costs(config.build())}
    assert (costs["down 1"].macs, costs["down 1"].parameters) == (0, 0)
    assert costs["down 1"].shape == (4, 16, 16)
    assert costs["down 1"].activations == 4 * 16 * 16
    assert costs["head"].shape == (1, 16, 16)  # before it is enlarged
    assert "decoder 2" not in costs


def test_the_iou_heads_loss_is_the_squared_distance_to_the_iou() -> None:
    logits = torch.full((3, 4, 4), -1.0)
    target = torch.zeros(3, 4, 4)
    logits[0, :2], target[0, 1:3] = 1.0, 1.0  # 4 shared of 12
    logits[1, :2], target[1, :2] = 1.0, 0.9  # the same
    predicted = torch.tensor([[9.0, 0.0], [50.0, 9.0], [0.0, 9.0]], requires_grad=True)
    batch = Batch(
        image_B3SS=torch.zeros(3, 3, 4, 4),
        target_BSS=target,
        kind_B=torch.tensor([1, 0, 0]),
        row_B=torch.zeros(3, dtype=torch.int64),
    )
    loss = iou_loss({"iou": predicted}, batch, logits.requires_grad_(), target)["iou"]
    torch.testing.assert_close(loss, torch.tensor([(0.5 - 1 / 3) ** 2, 0.0, 0.25]))
    loss.sum().backward()
    assert predicted.grad is not None
    assert logits.grad is None  # the masks are not pulled towards what was predicted
    assert iou_loss({}, batch, logits, target) == {}
