"""The drawing of the network follows its configuration."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from picosam2.models.network import ModelConfig
from picosam2.reports.figures import architecture


def test_the_network_of_the_paper() -> None:
    svg = architecture(ModelConfig())
    for wanted in ("decoder 4", "3×3, stride 2", "×2, nearest", "logits 1 × 96 × 96", "and ReLU"):
        assert wanted in svg


def test_an_encoder_that_halves_the_image_itself() -> None:
    config = ModelConfig(encoder="efficientnet-lite2", widths=(16, 24, 48, 120), input_size=128)
    svg = architecture(config)
    for wanted in ("encoder 4", "decoder 4", "efficientnet-lite2; decoder", "logits 1 × 64 × 64"):
        assert wanted in svg
