"""LiteRT files of integers alone: made, compared, and run as a microcontroller runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import golden

from picosam2.cli.main import run
from picosam2.errors import ConfigError, MissingExtraError
from picosam2.export.litert_int8 import LiteRtInt8Config, export_litert_int8
from picosam2.export.onnx import weights_facts
from picosam2.models.checkpoint import load_weights
from picosam2.runtimes.device_file import read_device_file
from picosam2.runtimes.litert import LiteRtRuntime

NETWORKS = ["one channel", "two channels", "half size"]


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_a_real_export(network: str, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the converter is not installed")
    source = golden(network, ".safetensors")
    made = export_litert_int8(
        load_weights(source),
        tmp_path / "x.tflite",
        weights_facts(source),
        LiteRtInt8Config(samples=16),
    )
    assert made.bytes == made.path.stat().st_size
    assert made.crops == 16
    assert made.relative_error < 0.25
    file = read_device_file(made.path, "litert")
    assert file.facts["quantization"]["samples"] == 16
    assert "int8" in file.facts["file"]["input"]
    runtime = LiteRtRuntime(made.path)
    side = runtime.info.input_size
    logits = runtime(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))
    assert np.isfinite(logits).all()
    for word in (b"/work", b"/home", b"/root", b"site-packages"):
        assert word not in file.model


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_in_it_is_floating_point(network: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        model_content=read_device_file(golden(network, "-int8.tflite"), "litert").model,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    assert {tensor["dtype"] for tensor in interpreter.get_tensor_details()} <= {np.int8, np.int32}
    (pixels,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert pixels["dtype"] == logits["dtype"] == np.int8
    assert pixels["quantization"] == (1.0, -128)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_microcontroller_s_interpreter_gives_the_same_masks(network: str) -> None:
    micro = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    path = golden(network, "-int8.tflite")
    runtime = LiteRtRuntime(path)
    side = runtime.info.input_size
    (crop,) = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    interpreter = micro.Interpreter.from_bytes(
        read_device_file(path, "litert").model, arena_size=1 << 20
    )
    interpreter.set_input((crop[None] ^ 128).view(np.int8), 0)
    interpreter.invoke()
    scale = interpreter.get_output_details(0)["quantization_parameters"]["scales"][0]
    zero = interpreter.get_output_details(0)["quantization_parameters"]["zero_points"][0]
    logits = (interpreter.get_output(0)[0].astype(np.float32) - zero) * scale
    expected = runtime(crop[None])[0].transpose(1, 2, 0)
    assert np.abs(logits - expected).max() <= 3 * scale  # kernels round differently, by a level


def test_without_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.partition(".")[0] == "litert_torch"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    model = load_weights(golden("one channel", ".safetensors"))
    with pytest.raises(MissingExtraError, match=r"\.\[export-litert\]"):
        export_litert_int8(model, tmp_path / "x.tflite", config=LiteRtInt8Config(samples=2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"samples": 1}, {"seed": -1}])
def test_settings_that_make_no_sense(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        LiteRtInt8Config(**settings)


def test_a_store_without_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.tflite"
    words = ["export", "litert", "--weights", "default", "--out", str(out), "--store", "s"]
    assert run(words) == 2
    assert "--store, --samples and --seed go with --int8" in capsys.readouterr().err
    assert not out.exists()
