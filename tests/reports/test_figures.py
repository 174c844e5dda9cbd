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


def test_a_network_with_coarse_logits_and_pools() -> None:
    config = ModelConfig(
        decoder=(192, 128), down="maxpool", up="bilinear", kernel=5, activation="hard-swish"
    )
    svg = architecture(config)
    assert "decoder 3" not in svg
    for wanted in (
        "maxpool", "×2, bilinear", "1×1, ×4, bilinear", "logits 1 × 96 × 96", "depthwise 5×5",
        "and hard-swish",
    ):  # fmt: skip
        assert wanted in svg


def test_an_encoder_that_halves_the_picture_itself() -> None:
    config = ModelConfig(encoder="efficientnet-lite2", widths=(16, 24, 48, 120), input_size=128)
    assert "encoder 4" in architecture(config)
