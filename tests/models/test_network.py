"""The network: the paper's size, every variant, and settings that cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.macs import convolution_macs, parameters
from torch import Tensor, nn

from picosam2.errors import ConfigError
from picosam2.models.network import RETIRED, ModelConfig, PicoSAM2, read_config, without_guidance

SMALL = {"widths": (4, 6), "bottleneck": 8, "decoder": (6, 4)}


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
        outputs = model(torch.randn(2, 3, size, size))
    assert set(outputs) == {"logits"}
    assert outputs["logits"].shape == (2, 1, size, size)
    assert torch.isfinite(outputs["logits"]).all()


@pytest.mark.parametrize("stages", [1, 3, 5])
def test_any_number_of_stages(stages: int) -> None:
    config = ModelConfig(widths=(4,) * stages, decoder=(4,) * stages, bottleneck=4, input_size=64)
    with torch.inference_mode():
        assert PicoSAM2(config).eval()(torch.zeros(1, 3, 64, 64))["logits"].shape[2:] == (64, 64)


def test_the_names_of_the_shipped_weights_stay() -> None:
    names = list(PicoSAM2(ModelConfig(widths=(4,), bottleneck=4, decoder=(4,))).state_dict())
    assert [name for name in names if name.endswith("weight")] == [
        "encoder.0.0.weight", "encoder.0.1.weight", "encoder.0.3.weight", "encoder.0.4.weight",
        "down.0.weight",
        "bottleneck.0.weight", "bottleneck.1.weight", "bottleneck.3.weight", "bottleneck.4.weight",
        "decoder.0.0.weight", "decoder.0.1.weight", "decoder.0.3.weight", "decoder.0.4.weight",
        "skip.0.weight", "head.weight",
    ]  # fmt: skip


def test_samples_do_not_see_each_other_when_not_training() -> None:
    model = PicoSAM2(ModelConfig(**SMALL)).eval()
    batch = torch.randn(4, 3, 96, 96)
    with torch.inference_mode():
        together = model(batch)["logits"]
        alone = torch.cat([model(each[None])["logits"] for each in batch])
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
        ({"widths": (4,) * 6, "decoder": (4,) * 6}, "multiple of 64"),
        ({"decoder": (4, 4, 4, 4, 4)}, "one number per stage"),
        ({"decoder": (4, 4)}, "one number per stage"),
        ({"encoder": "resnet"}, "`encoder` must be one of paper, efficientnet-lite0"),
        ({"decoder": ()}, "one number per stage"),
    ],
)
def test_impossible_networks(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig(**settings)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ModelConfig().logits = 2  # type: ignore[misc]


def test_a_configuration_of_an_older_version() -> None:
    assert read_config({**RETIRED, "logits": 2, "widths": [48, 96, 160, 256]}) == ModelConfig(
        logits=2
    )
    with pytest.raises(ConfigError, match=r"`attention` = 'self', which this version no longer"):
        read_config({"attention": "self"})
    with pytest.raises(ConfigError, match="unknown key 'atention'"):
        read_config({"atention": "none"})
    for odd in (None, [], "text"):
        with pytest.raises(ConfigError, match="expected a table"):
            read_config(odd)


LITE0 = {
    "encoder": "efficientnet-lite0", "widths": (16, 24, 40, 112), "bottleneck": 224,
    "decoder": (192, 128, 96, 64), "logits": 2,
}  # fmt: skip


@pytest.fixture
def guided() -> tuple[PicoSAM2, PicoSAM2, Tensor, Tensor]:
    """A network with guidance, the same without, images, guidance."""
    torch.manual_seed(0)
    model = PicoSAM2(ModelConfig(**LITE0, input_size=64, guidance=True)).eval()
    return model, without_guidance(model), torch.randn(2, 3, 64, 64), torch.rand(2, 3, 64, 64)


Guided = tuple[PicoSAM2, PicoSAM2, Tensor, Tensor]


def test_guidance_of_zeros_is_the_network_without_it_bit_for_bit(guided: Guided) -> None:
    model, plain, image, guidance = guided
    assert not plain.config.guidance
    assert not any(name.startswith("guidance") for name in plain.state_dict())
    with torch.inference_mode():
        expected = plain(image)["logits"]
        assert torch.equal(model(image)["logits"], expected)
        assert torch.equal(model(image, torch.zeros_like(guidance))["logits"], expected)
        # A branch that has not learned adds nothing to any guidance...
        assert torch.equal(model(image, guidance)["logits"], expected)
        nn.init.normal_(model.guidance[2].weight)
        # ... and one that has changes the answer, but not that to zeros.
        assert not torch.allclose(model(image, guidance)["logits"], expected)
        assert torch.equal(model(image, torch.zeros_like(guidance))["logits"], expected)


def test_guidance_reaches_the_branch_in_training(guided: Guided) -> None:
    model, _, image, guidance = guided
    model.train()(image, guidance)["logits"].square().mean().backward()
    gradient = model.guidance[2].weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_guidance_costs_little() -> None:
    model, plain = (
        PicoSAM2(ModelConfig(**LITE0, input_size=192, guidance=on)) for on in (True, False)
    )
    assert 0 < parameters(model) - parameters(plain) <= 10_000
    branch = sum(
        convolution.weight.numel() * 96 * 96
        for convolution in model.guidance
        if isinstance(convolution, nn.Conv2d)
    )
    assert branch <= 0.02 * convolution_macs(plain, 192)


def test_networks_that_cannot_have_guidance() -> None:
    plain = PicoSAM2(ModelConfig(**SMALL, input_size=64)).eval()
    image = torch.randn(1, 3, 64, 64)
    with pytest.raises(ConfigError, match="takes no guidance"):
        plain(image, torch.zeros_like(image))
    with pytest.raises(ConfigError, match="`guidance` needs an encoder"):
        ModelConfig(**SMALL, guidance=True)
