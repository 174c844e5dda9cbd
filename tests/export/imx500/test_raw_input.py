"""The network for the sensor takes plain RGB and gives what the Python runtime gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.variants import VariantConfig

from picosam2.export.imx500.raw_input import RawInput
from picosam2.images import PAD_RGB
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.runtimes.torch import TorchRuntime

CONFIGS = {
    "one channel": ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4)),
    "two channels": ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2),
    "everything": VariantConfig(
        widths=(4, 6, 8), bottleneck=8, decoder=(8, 6, 4), logits=2, input_size=64,
        stem="stride2", attention="channel", heads=("iou",),
    ),
}  # fmt: skip


def crops_of(size: int) -> np.ndarray:
    """Noise, black, white, each color alone, and what lies outside an image."""
    rng = np.random.default_rng(0)
    plain = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), PAD_RGB]
    noise = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    flat = [np.full((size, size, 3), color, np.uint8) for color in plain]
    return np.concatenate([noise, np.stack(flat)])


@pytest.fixture(params=sorted(CONFIGS))
def model(request: pytest.FixtureRequest) -> PicoSAM2:
    torch.manual_seed(1)
    model = CONFIGS[request.param].build()
    size = model.config.input_size
    model.train()(torch.randn(8, 3, size, size))
    return model.eval()


def test_plain_numbers_give_what_the_runtime_gives(model: PicoSAM2) -> None:
    """Also at the border, where the first convolution sees its padding."""
    crops = crops_of(model.config.input_size)
    expected = TorchRuntime(model)(crops)
    raw = torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        actual = RawInput(model)(raw)[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_outputs_have_names(model: PicoSAM2) -> None:
    raw = RawInput(model)
    size = model.config.input_size
    with torch.inference_mode():
        outputs = raw(torch.zeros(1, 3, size, size))
    assert raw.output_names() == list(model(torch.zeros(1, 3, size, size)))
    assert len(outputs) == len(raw.output_names())


def test_the_model_is_left_as_it_was(model: PicoSAM2) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    RawInput(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_centered_colors_fill_eight_bits(model: PicoSAM2) -> None:
    """No color is cut off by a threshold of 1, and a step costs little more than one of 255."""
    ends = torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    with torch.inference_mode():
        low, high = RawInput(model).center(ends).flatten(1)
    largest = torch.maximum(low.abs(), high.abs())
    torch.testing.assert_close(largest, torch.full((3,), 127 / 128))
    steps = 255 / ((high - low) * 128)
    assert steps.min() >= 1
    assert steps.max() < 1.2


def test_the_mean_color_is_zero() -> None:
    """So the zeros that a convolution pads with mean the mean color, as in training."""
    raw = RawInput(PicoSAM2(CONFIGS["one channel"]))
    with torch.inference_mode():
        centered = raw.center(torch.tensor(PAD_RGB, dtype=torch.float32).view(1, 3, 1, 1))
    assert centered.abs().max() < 0.004  # padding is the mean, rounded to whole numbers
