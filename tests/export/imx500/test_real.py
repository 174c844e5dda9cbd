"""Sony's own tools, for real: minutes, and 2 GB to fetch if they are not there yet.

PICOSAM2_IMX500_TOOLS=~/.cache/picosam2 python -m pytest -m slow tests/export/imx500/test_real.py
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import make_store

from picosam2.export.imx500.export import export_imx500
from picosam2.export.imx500.quantize import QuantizeConfig
from picosam2.models.checkpoint import load_weights, save_weights
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.torch import TorchRuntime

TOOLS = os.environ.get("PICOSAM2_IMX500_TOOLS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TOOLS, reason="PICOSAM2_IMX500_TOOLS names no folder for Sony's tools"),
]

CONFIGS = {
    "two channels": ModelConfig(widths=(32, 32, 48, 64), bottleneck=64, decoder=(64, 48, 32, 32),
                                logits=2),
    "EfficientNet": ModelConfig(
        encoder="efficientnet-lite0", widths=(16, 24, 40, 112), bottleneck=64,
        decoder=(64, 48, 32, 32), logits=2, input_size=192,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_from_weights_to_the_sensor(name: str, tmp_path: Path) -> None:
    assert TOOLS is not None
    config = CONFIGS[name]
    torch.manual_seed(0)
    model = PicoSAM2(config)
    for _ in range(20):  # statistics as if it were trained
        model.train()(torch.randn(4, 3, config.input_size, config.input_size))
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, model, {})
    make_store(tmp_path)
    made = export_imx500(
        weights, tmp_path / "store", tmp_path / "out", QuantizeConfig(samples=16),
        tools=Path(TOOLS).expanduser(),
    )  # fmt: skip
    with zipfile.ZipFile(made.folder / "packerOut.zip") as packed:
        assert json.loads(packed.read("manifest.json"))["Target"] == "IMX500"
    memory = made.report["memory"]
    assert memory["used"] == pytest.approx(memory["estimated"], abs=150_000)  # of 8,388,608
    (image,) = made.report["inputs"]
    assert (image["shape"], image["bits"], image["signed"], image["scale"]) == (
        [3, config.input_size, config.input_size], 8, False, 1.0,
    )  # fmt: skip
    (logits,) = made.report["outputs"]
    assert logits["shape"] == [2, config.output_size, config.output_size]
    assert logits["scale"] == made.report["quantization"]["outputs"]["logits"]["step"]

    # The file to measure takes plain crops and gives what PyTorch gives, but for the rounding.
    size = config.input_size
    crops = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    expected = TorchRuntime(load_weights(weights))(crops)
    error = OnnxRuntime(made.folder / "simulated.onnx")(crops) - expected
    assert np.sqrt(np.mean(error**2)) < 0.25 * expected.std()
