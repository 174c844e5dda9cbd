"""Core ML packages: converted here, described, and written whole or not at all."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
from helpers.configs import golden

from picosam2.cli.main import run
from picosam2.errors import ConfigError, MissingExtraError
from picosam2.export.coreml import export_coreml
from picosam2.export.onnx import weights_facts
from picosam2.models.checkpoint import load_weights


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of coremltools and torch.jit
@pytest.mark.parametrize("network", ["two channels", "half size"])
def test_a_real_export(network: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coreml = pytest.importorskip("coremltools", reason="coremltools is not installed")
    source = golden(network, ".safetensors")
    model = load_weights(source)
    for _ in range(2):  # an earlier package is replaced
        made = export_coreml(model, tmp_path / "new" / "x.mlpackage", weights_facts(source))
    assert [path.name for path in made.parent.iterdir()] == ["x.mlpackage"]
    spec = coreml.models.MLModel(str(made), skip_model_load=True).get_spec()
    (taken,), (answer,) = spec.description.input, spec.description.output
    side = model.config.input_size
    assert (taken.name, taken.type.imageType.height, taken.type.imageType.width) == (
        "image", side, side,
    )  # fmt: skip
    assert answer.name == "logits"
    facts = json.loads(spec.description.metadata.userDefined["picosam2"])
    assert facts["input_size"] == side
    assert facts["source_sha256"] == weights_facts(source)["source_sha256"]
    kinds = {operation.type for function in spec.mlProgram.functions.values()
             for block in function.block_specializations.values()
             for operation in block.operations}  # fmt: skip
    assert "conv" in kinds


def test_without_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    model = load_weights(golden("one channel", ".safetensors"))
    with pytest.raises(MissingExtraError, match=r"\.\[coreml\]"):
        export_coreml(model, tmp_path / "x.mlpackage")
    assert not list(tmp_path.iterdir())


def test_another_folder_is_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "x.mlpackage"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    model = load_weights(golden("one channel", ".safetensors"))
    with pytest.raises(ConfigError, match="something else"):
        export_coreml(model, folder)
    assert (folder / "mine.txt").read_text() == "mine"


def test_another_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "coreml", "--out", str(tmp_path / "x.onnx")]) == 2
    assert "end it in .mlpackage" in capsys.readouterr().err
