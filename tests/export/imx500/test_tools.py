"""The worker and the converter: what they are asked, what becomes of their answers and failures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers.imx500 import CONVERTS, FAKE_WORKER, FakeTools
from helpers.progress import Recorded

from picosam2.errors import ConfigError
from picosam2.export.imx500 import worker
from picosam2.export.imx500.check import ConvertError
from picosam2.export.imx500.convert import convert
from picosam2.export.imx500.environment import ToolsError
from picosam2.export.imx500.quantize import QuantizeConfig, SensorQuantizeError, quantize
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.runtimes.onnx import OnnxRuntime

CONFIG = ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2, input_size=32)


@pytest.fixture(scope="module")
def model() -> PicoSAM2:
    torch.manual_seed(0)
    return PicoSAM2(CONFIG).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def quantized(model: PicoSAM2, folder: Path, tools: FakeTools, **options):  # type: ignore[no-untyped-def]
    crops = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    config = QuantizeConfig(samples=5, **options)
    log = folder.parent / "export.log"
    facts = {"step": 7, "scorers": {}}
    progress = Recorded()
    made = quantize(
        model, facts, crops, folder, config, tools.environment, log=log, progress=progress
    )
    return made, progress, log


def test_what_the_worker_is_asked_and_says(
    model: PicoSAM2, folder: Path, fake_tools: FakeTools
) -> None:
    made, progress, log = quantized(model, folder, fake_tools)
    assert (progress.names, progress.counts) == (["calibrating"], [(5, 5)])
    assert made.facts["bits"] == {"8": len(model.state_dict())}
    assert {p.name for p in folder.iterdir()} == {"quantized.onnx", "simulated.onnx"}
    assert "a library's complaint" in log.read_text()


def test_the_file_to_measure_is_described_and_runs(
    model: PicoSAM2, folder: Path, fake_tools: FakeTools
) -> None:
    """It takes plain numbers, so the runtime must not normalize them."""
    made, _, _ = quantized(model, folder, fake_tools, gptq=3)
    runtime = OnnxRuntime(made.simulated)
    assert runtime.info.input_size == 32
    assert runtime.info.channels == 2
    facts = runtime.info.facts
    assert facts["step"] == 7
    assert facts["preprocessing"]["inside"] is True
    assert facts["quantization"]["gptq"] == 3
    assert facts["quantization"]["by"]["model-compression-toolkit"] == "2.5.1"
    crops = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = crops.mean(3)[:, None].repeat(2, 1)  # what the stand-in computes
    np.testing.assert_allclose(runtime(crops), expected, rtol=1e-6)


FAILURES = {
    "an error": (
        'import json, sys; sys.stdin.read(); '
        'print(json.dumps({"error": "Could not find a solution"})); sys.exit(1)',
        "could not be quantized: Could not find a solution",
    ),
    "a crash": (
        'import sys; sys.stdin.read(); print("Segmentation fault", file=sys.stderr); sys.exit(139)',
        "Segmentation fault, exit code 139",
    ),
    "at once": ('import sys; print("ImportError", file=sys.stderr); sys.exit(1)', "ImportError"),
    "silence": ("import sys; sys.stdin.read()", "exit code 0"),
    "other files": (
        FAKE_WORKER.replace("SIMULATED", '{"largest": 1.0, "rms": 0.06, "share": 0.3}'),
        r"differ in `logits`: in 30.0% of its numbers, by 0.060 .* where both are 0.100 away",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_worker_that_fails(
    name: str, model: PicoSAM2, folder: Path, fake_tools: FakeTools
) -> None:
    script, says = FAILURES[name]
    fake_tools.worker(script)
    with pytest.raises(SensorQuantizeError, match=says):
        quantized(model, folder, fake_tools)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"samples": 0}, "samples"),
        ({"gptq": -1}, "gptq"),
        ({"weights_share": 0.25}, "weights_share"),
        ({"weights_share": 1.5}, "weights_share"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        QuantizeConfig(**options)  # type: ignore[arg-type]


# --- the worker itself, as far as it goes without the toolkit ------------------------------------


def test_the_workers_network_is_ours(model: PicoSAM2, tmp_path: Path) -> None:
    """Loaded by its folder, in a Python that does not know the package."""
    import picosam2

    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in model.state_dict().items()})
    request = {
        "package": str(Path(picosam2.__file__).parent),
        "weights": str(tmp_path / "w.npz"),
        "model": {**vars(CONFIG)},
    }
    script = f"""
import importlib.util, json, sys
sys.path = [p for p in sys.path if "picosam2" not in p]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
spec = importlib.util.spec_from_file_location("worker", {worker.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
network = module._network(json.loads(sys.stdin.read()))
import torch
print(float(network(torch.full((1, 3, 32, 32), 200.0))[0].sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    normal = torch.full((1, 3, 32, 32), 200 / 255)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        expected = model((normal - mean) / std)["logits"].sum()
    assert float(done.stdout) == pytest.approx(float(expected), rel=1e-4)


def test_steps_and_differences() -> None:
    output = np.array([-1.0, 0.0, 0.25, 0.25, 2.0], np.float32)
    assert worker._step(output) == 0.25
    assert worker._step(np.zeros(3, np.float32)) == 0
    result = worker._difference(np.array([-1.0, 0.0, 0.5, 0.25, 2.0], np.float32), output)
    assert result == {
        "largest": 0.25, "rms": pytest.approx(0.25 / 5**0.5), "share": pytest.approx(0.2),
    }  # fmt: skip


# --- the converter ------------------------------------------------------------------------------


def converted(folder: Path, tools: FakeTools):  # type: ignore[no-untyped-def]
    network = folder.parent / "quantized.onnx"
    onnx.save(onnx.ModelProto(), network)
    progress = Recorded()
    made = convert(
        network, folder, tools.environment, tools.java, log=folder.parent / "export.log",
        progress=progress,
    )  # fmt: skip
    return made, progress.names


def test_reading_what_the_converter_wrote(folder: Path, fake_tools: FakeTools) -> None:
    made, stages = converted(folder, fake_tools)
    assert made.packed.name == "packerOut.zip"
    assert {file.name for file in made.files} == {"packerOut.zip", "dnnParams.xml"}
    assert made.memory.used / 2**20 == pytest.approx(3.55, abs=0.01)
    assert made.memory.used == 1_323_392 + 2_403_424 + 1024
    (image,), (logits, iou) = made.inputs, made.outputs
    assert (iou.name, iou.shape, iou.scale) == ("iou", (2,), 2**-10)
    assert (image.shape, image.bits, image.signed, image.scale) == ((3, 96, 96), 8, False, 1.0)
    assert (logits.bits, logits.signed, logits.scale) == (8, True, 0.125)
    assert logits.shape == (2, 96, 96)
    assert stages[0] == "reading the quantized network"
    assert stages[-1] == "packing"


NO_OPERATOR = """
import sys
print("2026-11-25 17:51:29,498 INFO : Converting picosam2.onnx [/x/uni/logger.py:179]")
print("2026-11-25 17:51:36,640 ERROR : Operator PRelu is not supported [/x/uni/logger.py:179]")
sys.exit(2)
"""
NO_ROOM = """
import sys
text = "CODE: [ISM] ConvFe error (ISM) on 'x': Not enough memory, available: 8.00MB , "
print("2026-11-25 18:31:26.488 INFO : CODE: [START] Starting SDSPconv")
print(f"2026-11-25 18:34:10.238 ERROR: {text}required: 8.55MB")
print(f"2026-11-25 18:36:35.841 ERROR: {text}required: 8.57MB")
print("2026-11-25 18:36:36,221 ERROR : sdspconv exited with error code: 1 [/x/converter.py:60]")
sys.exit(1)
"""
REFUSED = {
    "operator": (NO_OPERATOR, r"does not know \(Operator PRelu is not supported\)"),
    "memory": (NO_ROOM, r"does not fit.*\(ConvFe error .*8\.00MB , required: 8\.55MB\)"),
    "parameter": ("import sys; sys.exit(3)", "settings that the converter does not take"),
    "silence": ("import sys; sys.exit(9)", "exit code 9"),
    "nothing written": ("", "cannot be read"),
    "no zip": (CONVERTS.replace("packerOut.zip", "other.zip"), "no packerOut.zip"),
    "other XML": (CONVERTS.replace("<l2memory", "<memory"), "lists no memory"),
    "no number": (CONVERTS.replace('"1323392"', '"1.26MB"'), "cannot be read"),
    "broken XML": (CONVERTS.replace("</dnnParams>", ""), "cannot be read"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_converter_that_fails(name: str, folder: Path, fake_tools: FakeTools) -> None:
    script, says = REFUSED[name]
    fake_tools.converter(script)
    with pytest.raises(ConvertError, match=says) as caught:
        converted(folder, fake_tools)
    assert str(folder.parent / "export.log") in str(caught.value)


def test_a_folder_that_the_converter_would_break_on(tmp_path: Path, fake_tools: FakeTools) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    with pytest.raises(ToolsError, match="TMPDIR"):
        converted(folder, fake_tools)
