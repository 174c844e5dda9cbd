"""What tests of several modules share: weights of a tiny network, until they ask for real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code.
settings.register_profile("picosam2", deadline=None)
settings.load_profile("picosam2")


@pytest.fixture(scope="session")
def tiny_safetensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights of a network of a few hundred parameters, always the same."""
    torch = pytest.importorskip("torch", reason="makes its own weights with torch")
    from picosam2.models.checkpoint import save_weights
    from picosam2.models.network import ModelConfig, PicoSAM2

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PicoSAM2(ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, model, {"recipe": "none"})
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tiny_safetensors: Path) -> Path:
    """The same weights as ONNX."""
    pytest.importorskip("onnx", reason="exports its own weights with onnx")
    from picosam2.export.onnx import export_onnx, weights_facts
    from picosam2.models.checkpoint import load_weights

    path = tiny_safetensors.with_suffix(".onnx")
    export_onnx(load_weights(tiny_safetensors), path, weights_facts(tiny_safetensors))
    return path
