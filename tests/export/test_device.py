"""Exports for devices: pixels in, compared in their own runtime, or not written at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.configs import CONFIGS, golden
from helpers.fakes import FakeRuntime

from picosam2.errors import MissingExtraError
from picosam2.export.device import PixelNetwork, export_device_file
from picosam2.export.executorch import export_executorch
from picosam2.export.litert import export_litert
from picosam2.export.onnx import Exported, ExportError, weights_facts
from picosam2.images import normalize
from picosam2.models.checkpoint import load_weights
from picosam2.models.network import PicoSAM2, read_config
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.protocol import Runtime
from picosam2.runtimes.torch import TorchRuntime
from picosam2.runtimes.weights import DEVICE_FILES

EXPORTS: dict[str, tuple[Callable[..., Exported], str]] = {
    "litert": (export_litert, "litert_torch"),
    "executorch": (export_executorch, "executorch"),
}


@pytest.fixture(scope="module")
def model() -> PicoSAM2:
    return load_weights(golden("two channels", ".safetensors"))


def export(model: PicoSAM2, path: Path, opened: Runtime | None = None) -> Exported:
    return export_device_file(
        model,
        path,
        {"step": 5, "geometry": {"box_growth": 1.4}},
        file={"runtime": "litert"},
        convert=lambda network: b"the model",
        open_it=lambda file: opened or TorchRuntime(model),
    )


def test_the_graph_normalises(model: PicoSAM2) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    pixels = torch.from_numpy(crops.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = model(torch.from_numpy(normalize(crops)))["logits"]
        torch.testing.assert_close(PixelNetwork(model)(pixels), expected, rtol=1e-4, atol=1e-5)


def test_it_is_written_and_says_what_it_is(model: PicoSAM2, tmp_path: Path) -> None:
    done = export(model, tmp_path / "new" / "x.tflite")
    assert done.bytes == done.path.stat().st_size
    assert done.largest_difference < 1e-5
    held = read_device_file(done.path, "litert")
    assert held.model == b"the model"
    assert held.facts["step"] == 5
    assert (held.facts["input_size"], held.facts["channels"]) == (64, 2)
    assert held.facts["geometry"]["box_growth"] == 1.4
    assert held.facts["preprocessing"]["order"] == "RGB"
    assert "mean" not in held.facts["preprocessing"]  # it is in the graph


def test_a_file_that_differs_is_not_kept(model: PicoSAM2, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"the old file")
    other = FakeRuntime(lambda crop, _: np.ones((2, 64, 64)), size=64, channels=2)
    with pytest.raises(ExportError, match="differ from PyTorch's by"):
        export(model, path, other)
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == ["x.tflite"]


def test_logits_that_are_no_numbers_are_not_kept(model: PicoSAM2, tmp_path: Path) -> None:
    empty = FakeRuntime(lambda crop, _: np.full((2, 64, 64), np.nan), size=64, channels=2)
    with pytest.raises(ExportError):
        export(model, tmp_path / "x.tflite", empty)
    assert not list(tmp_path.iterdir())


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = load_weights(golden("one channel", ".safetensors")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    still = load_weights(golden("one channel", ".safetensors"))
    export(model, tmp_path / "x.tflite", TorchRuntime(still))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_without_the_converter(
    name: str, model: PicoSAM2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert, package = EXPORTS[name]
    monkeypatch.setitem(sys.modules, package, None)
    for module in [m for m in sys.modules if m.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[(export-)?" + name):
        convert(model, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPORTS))
@pytest.mark.parametrize("network", sorted(CONFIGS))
def test_a_real_export(name: str, network: str, tmp_path: Path) -> None:
    """It compares itself; the kept files, on which the other tests stand, are like it."""
    convert, package = EXPORTS[name]
    pytest.importorskip(package, reason=f"the converter {package} is not installed")
    (ending,) = [ending for ending, runtime in DEVICE_FILES.items() if runtime == name]
    source = golden(network, ".safetensors")
    done = convert(load_weights(source), tmp_path / f"x{ending}", weights_facts(source))
    assert done.largest_difference < 1e-5
    made, kept = read_device_file(done.path, name), read_device_file(golden(network, ending), name)
    for word in (b"/work", b"/home", b"/root", b"site-packages", b".py"):
        assert word not in made.model
    for facts in (made.facts, kept.facts):
        del facts["file"]["sha256"]  # of another release of the converter, perhaps
        facts.pop("schema_version", None)  # the kept files are older than it
        facts["model"] = read_config(facts["model"])
    assert made.facts == kept.facts
