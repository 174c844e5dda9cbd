"""One call from weights to a folder with packerOut.zip: all of it, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.imx500 import CONVERTS, FAKE_WORKER, FakeTools
from helpers.progress import Recorded
from helpers.tiny import SMALL_STORE, make_store, write_coco

from picosam2._files import sha256_file
from picosam2.data.coco import read_coco
from picosam2.data.store import prepare as prepare_store
from picosam2.errors import ConfigError, PicoSAM2Error, StoreError, WeightsError
from picosam2.evaluation.protocols import PROTOCOLS
from picosam2.export.imx500 import export as module
from picosam2.export.imx500.check import ConvertError
from picosam2.export.imx500.environment import ToolsError
from picosam2.export.imx500.export import MeasuredImages, SensorExport, export_imx500
from picosam2.export.imx500.quantize import QuantizeConfig, SensorQuantizeError
from picosam2.export.imx500.report import CLOCK, latency_ms
from picosam2.export.int8.calibration import sample_crops
from picosam2.models.checkpoint import save_weights
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.predictor import Predictor
from picosam2.runtimes.torch import TorchRuntime

SMALL = ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2, input_size=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, its images, and weights."""
    folder = tmp_path_factory.mktemp("imx500")
    make_store(folder)
    torch.manual_seed(0)
    save_weights(folder / "weights.safetensors", PicoSAM2(SMALL), {"recipe": {"name": "tiny"}})
    return folder


Export = Callable[..., SensorExport]


@pytest.fixture
def export(
    data: Path, tmp_path: Path, fake_tools: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> Export:
    """Runs an export into `out` with the stand-ins."""
    monkeypatch.setattr(module, "prepare", lambda *_: fake_tools.environment)
    monkeypatch.setattr(module, "find_java", lambda: fake_tools.java)

    def call(**changes: Any) -> SensorExport:
        options: dict[str, Any] = {
            "weights": data / "weights.safetensors",
            "store": data / "store",
            "out": tmp_path / "made" / "out",
            "config": QuantizeConfig(samples=6),
            **changes,
        }
        return export_imx500(options.pop("weights"), options.pop("store"), options.pop("out"),
                             options.pop("config"), **options)  # fmt: skip

    return call


FILES = {
    "packerOut.zip", "dnnParams.xml", "quantized.onnx", "simulated.onnx", "export.log",
    "report.json", "report.md",
}  # fmt: skip


def test_everything_lies_in_the_folder(export: Export, data: Path, tmp_path: Path) -> None:
    made = export(name="mine")
    out = tmp_path / "made" / "out"
    assert made.folder == out
    assert {path.name for path in out.iterdir()} == FILES
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert zipfile.is_zipfile(out / "packerOut.zip")
    report = json.loads((out / "report.json").read_text())
    assert report == made.report
    assert report["weights"] == {
        "name": "mine", "sha256": sha256_file(data / "weights.safetensors"),
    }  # fmt: skip
    assert report["memory"]["used"] == 3_727_840
    assert report["memory"]["estimated"] > 0
    assert report["memory"]["peak_layer"]
    assert report["network"]["input_size"] == 32
    assert report["quantization"]["samples"] == 6
    assert report["versions"]["Java"] == "17.0.15"
    assert report["measured"] == []
    for name, facts in report["files"].items():
        assert facts["sha256"] == sha256_file(out / name)
    assert set(report["files"]) == FILES - {"report.json", "report.md"}


def test_the_report_can_be_read(export: Export, tmp_path: Path) -> None:
    export(config=QuantizeConfig(samples=6, gptq=4, weights_share=0.5))
    text = (tmp_path / "made" / "out" / "report.md").read_text()
    for words in (
        "| used | 3.56 | 44.4% |", "| of | 8.00 |", "an estimate, not a measurement",
        "get_kpi_info", "| input | 3 x 96 x 96 | 8 unsigned | 1 |", "tuned over 4 epochs",
        "50% of eight bits",
        "differ in 0.000% of the numbers", "eight bits unsigned", "0.100%, by 1 step at most",
    ):  # fmt: skip
        assert words in text


def test_it_is_measured_by_every_protocol(export: Export, data: Path) -> None:
    """The stand-in gives the mean of the colors, so the numbers are not FP32's."""
    images = read_coco(data / "shapes.json", data / "shapes-images")
    progress = Recorded()
    made = export(
        measure=[MeasuredImages(dataset="coco", annotations=images)],
        progress=progress,
    )
    measured = made.report["measured"]
    assert [each["protocol"] for each in measured] == list(PROTOCOLS)
    assert all(each["n"] == 8 for each in measured)
    for each in measured:
        assert each["difference"] == pytest.approx(each["int8"] - each["fp32"])
        assert each["low"] <= each["difference"] <= each["high"]
    assert "measuring box, coco" in progress.names
    text = (made.folder / "report.md").read_text()
    assert "| box | coco | 8 |" in text
    assert Predictor(made.folder / "simulated.onnx").runtime.info.input_size == 32


def test_an_earlier_export_is_replaced(export: Export, tmp_path: Path) -> None:
    first = export()
    (first.folder / "old").write_text("of the first time")
    second = export(config=QuantizeConfig(samples=4))
    assert second.report["quantization"]["samples"] == 4
    assert {path.name for path in second.folder.iterdir()} == FILES
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]


def test_an_empty_folder_is_taken(export: Export, tmp_path: Path) -> None:
    (tmp_path / "made" / "out").mkdir(parents=True)
    assert {path.name for path in export().folder.iterdir()} == FILES


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_export_is_not_replaced(kind: str, export: Export, tmp_path: Path) -> None:
    out = tmp_path / "made" / "out"
    out.parent.mkdir()
    if kind == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("two years of work")
    else:
        out.write_text("two years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        export()
    assert "two years of work" in (out / "thesis.txt" if kind == "folder" else out).read_text()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("at", ["worker", "converter", "reading"])
def test_a_failure_leaves_the_old_export_and_a_log(
    at: str, export: Export, fake_tools: FakeTools, tmp_path: Path
) -> None:
    first = export()
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    if at == "worker":
        fake_tools.worker("import sys; print('why it failed', file=sys.stderr); sys.exit(1)")
    elif at == "converter":
        fake_tools.converter("import sys; print('ERROR : why it failed'); sys.exit(1)")
    else:
        fake_tools.converter(CONVERTS.replace("packerOut.zip", "other.zip"))
    with pytest.raises((SensorQuantizeError, ConvertError)) as caught:
        export()
    log = tmp_path / "made" / "out-export.log"
    assert str(log) in str(caught.value)
    assert "$ " in log.read_text()
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"out", "out-export.log"}
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_a_log_of_the_users_own_is_left_alone(export: Export, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "out.log").write_text("of `nohup picosam2 export ... > out.log`")
    export()
    assert "nohup" in (tmp_path / "made" / "out.log").read_text()


def test_an_interruption_ends_the_converter_and_leaves_nothing(
    export: Export, fake_tools: FakeTools, tmp_path: Path
) -> None:
    fake_tools.converter(
        f"import os, time; print(os.getpid(), file=open({str(tmp_path / 'pid')!r}, 'w')); "
        "print('CODE: [START] Starting SDSPconv', flush=True); time.sleep(60)"
    )

    def interrupt(
        done: int, total: int | None = None, *, what: str | None = None, **_: object
    ) -> None:
        if what == "compiling for the sensor":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(progress=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out-export.log"]


def test_a_network_that_does_not_fit_is_refused_before_anything_is_fetched(
    export: Export, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "prepare", pytest.fail)
    monkeypatch.setattr(module, "find_java", pytest.fail)
    path = tmp_path / "wide.safetensors"
    save_weights(path, PicoSAM2(ModelConfig(input_size=224)), {})
    with pytest.raises(ConvertError, match=r"does not fit .* while decoder\.3\.0"):
        export(weights=path)


def test_weights_of_another_architecture(export: Export, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "resnet.safetensors"
    save_file({"layer1.0.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError):
        export(weights=path)
    state = PicoSAM2(SMALL).state_dict()
    state.pop("head.weight")
    save_file(
        state, path, {"picosam2": json.dumps({"model": {"widths": [4, 6], "decoder": [6, 4]}})}
    )
    with pytest.raises(WeightsError, match="another architecture"):
        export(weights=path)


def test_without_java(export: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> None:
        raise ToolsError("Sony's converter needs Java, and there is none")

    monkeypatch.setattr(module, "find_java", none)
    monkeypatch.setattr(module, "prepare", pytest.fail)  # nothing is fetched in vain
    with pytest.raises(ToolsError):
        export()
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_no_store(export: Export, tmp_path: Path) -> None:
    with pytest.raises(PicoSAM2Error, match="is not a crop store"):
        export(store=tmp_path)


def test_without_a_store_the_bundled_sample_image_calibrates(
    export: Export, fake_tools: FakeTools, tmp_path: Path
) -> None:
    file = tmp_path / "crops.npy"
    copies = FAKE_WORKER.replace("SIMULATED", "same").replace(
        "state = ", f"np.save({str(file)!r}, crops)\nstate = "
    )
    fake_tools.worker(copies)
    made = export(store=None, config=QuantizeConfig(samples=10, seed=3))
    crops = np.load(file)
    assert crops.shape == (10, 32, 32, 3)
    runtime = TorchRuntime(PicoSAM2(SMALL).eval())
    np.testing.assert_array_equal(crops, sample_crops(Predictor(runtime), 10, 3).pixels)
    facts = made.report["quantization"]
    assert (facts["store"], facts["samples"]) == (None, 10)
    assert "sample image" in facts["crops"]
    text = (made.folder / "report.md").read_text()
    assert "10 augmented crops of the bundled sample image, chosen by seed 3" in text


def test_a_store_that_lacks_a_view_is_refused_before_the_tools_are_fetched(
    export: Export, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = replace(SMALL_STORE, views=("box",))
    prepare_store([write_coco(tmp_path, 4)], tmp_path / "boxes", config, workers=1)
    monkeypatch.setattr(module, "prepare", lambda *_: pytest.fail("fetched the tools"))
    with pytest.raises(StoreError, match="lacks the view click-near"):
        export(store=tmp_path / "boxes")


def test_calibration_crops_are_of_training_images_and_chosen_by_the_seed(
    export: Export, data: Path, fake_tools: FakeTools, tmp_path: Path
) -> None:
    """What the worker gets: the same for the same seed, and never a validation image."""
    copies = FAKE_WORKER.replace("SIMULATED", "same").replace(
        "state = ", f"np.save({str(tmp_path / 'crops.npy')!r}, crops)\nstate = "
    )
    fake_tools.worker(copies)
    seen = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        export(config=QuantizeConfig(samples=6, seed=seed))
        seen[name] = (tmp_path / "crops.npy").read_bytes()
    assert seen["first"] == seen["again"]
    assert seen["first"] != seen["other"]


def test_the_latency_is_the_papers_for_the_papers_network() -> None:
    assert latency_ms(336_000_000) == pytest.approx(14.3)
    assert pytest.approx(273e6, rel=0.01) == CLOCK


def test_a_program_that_outlives_its_wait_is_ended(tmp_path: Path) -> None:
    """Also one that does not listen to SIGTERM, and with the programs that it started."""
    from picosam2.export.imx500 import processes

    script = tmp_path / "stubborn.sh"
    script.write_text("trap '' TERM; sleep 60 & echo $!; wait; wait; sleep 60\n")
    started: list[int] = []

    def stop(line: str) -> None:
        started.append(int(line))
        raise RuntimeError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "_PATIENCE_S", 0.2)
        with pytest.raises(RuntimeError, match="enough"):
            processes.run(["/bin/sh", str(script)], log=tmp_path / "log", on_line=stop)
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(started[0])], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert state == "" or state.startswith("Z")
