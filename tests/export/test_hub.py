"""The folder for the hub: its files, and its card by the hub's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.configs import CONFIGS, golden

from picosam2 import Predictor, sample
from picosam2._files import sha256_file
from picosam2.cli.main import run
from picosam2.errors import ConfigError, DataError, WeightsError
from picosam2.export.hub import export_hub
from picosam2.images import normalize
from picosam2.runtimes.weights import find_weights


def result(path: Path, sha256: str, miou: float = 0.5) -> Path:
    path.write_text(
        json.dumps(
            {
                "kind": "evaluation",
                "protocol": "box",
                "dataset": "coco",
                "n": 7,
                "miou": miou,
                "weights": {"sha256": sha256},
            }
        )
    )
    return path


def test_the_files(tmp_path: Path) -> None:
    made = export_hub("default", tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in made]
    assert names == [
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "config.json",
        "preprocessor_config.json",
        "README.md",
    ]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["files"] == {name: sha256_file(tmp_path / name) for name in names[:3]}
    assert config["input_size"] == 192
    # The preprocessor's numbers are what the network is given.
    about = json.loads((tmp_path / "preprocessor_config.json").read_text())
    crop = np.random.default_rng(0).integers(0, 256, (1, 192, 192, 3), np.uint8)
    scaled = crop * about["rescale_factor"]
    expected = (scaled - about["image_mean"]) / about["image_std"]
    np.testing.assert_allclose(normalize(crop), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_the_card_by_the_hubs_own_reader(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    mine = result(tmp_path / "mine.json", sha256_file(find_weights("default")), 0.61234)
    other = result(tmp_path / "other.json", "0" * 64, 0.9)
    report = Path(__file__).parents[2] / "docs" / "report" / "report.json"
    export_hub("default", tmp_path / "out", results=[mine, other, report])
    card = hub.ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "picosam2"
    assert card.data.pipeline_tag == "mask-generation"
    assert card.data.metrics == ["mean_iou"]
    described = (Path(__file__).parents[2] / "MODEL_CARD.md").read_text().partition("## Data")[2]
    sources = described.partition("COCO images carry")[0].lower()
    assert len(card.data.datasets) == 25
    assert [name for name in card.data.datasets if name not in sources] == []
    scores = card.data.eval_results
    assert scores[0].metric_value == 0.6123
    assert 0.9 not in [each.metric_value for each in scores]
    assert "from_pretrained" in card.text
    assert "0.612" in card.text
    # Written by the hub's library and read again, nothing is lost.
    again = hub.ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


def test_a_card_without_scores_has_no_model_index(tmp_path: Path) -> None:
    export_hub("paper", tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "model-index" not in text
    assert '"coco"' in text
    assert '"butterfly"' not in text  # only weights with guidance saw it
    assert "None were given" in text
    assert not (tmp_path / "onnx" / "model_quantized.onnx").exists()
    assert Predictor.from_pretrained(tmp_path)(sample(), points=[(353, 349)])[0].area > 0


def test_weights_of_ones_own_are_exported(tmp_path: Path) -> None:
    own = golden(sorted(CONFIGS)[0], ".safetensors")
    export_hub(str(own), tmp_path)
    digest = json.loads((tmp_path / "config.json").read_text())["files"]["model.safetensors"]
    assert digest == sha256_file(own)
    assert "datasets:" not in (tmp_path / "README.md").read_text()  # nobody knows them
    assert Predictor.from_pretrained(tmp_path).runtime.info.facts["source_sha256"] == digest


def test_files_of_other_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="was not made from"):
        export_hub("paper", tmp_path, quantized="default-int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "report"}', '{"kind": "x", "n": 1}'])
def test_results_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match=r"r\.json is no result"):
        export_hub("default", tmp_path / "out", results=[tmp_path / "r.json"])
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "hub", "--out", str(tmp_path / "out")]) == 0
    assert "model_quantized.onnx: " in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert run(["export", "hub", "--out", str(tmp_path / "file")]) == 2
    assert "cannot be made a folder" in capsys.readouterr().err
    assert run(["export", "hub", "--weights", "nothing", "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_a_card_that_was_edited_is_not_replaced(tmp_path: Path) -> None:
    export_hub("default", tmp_path)
    card = tmp_path / "README.md"
    written = card.read_bytes()
    export_hub("default", tmp_path)  # as often as one likes
    assert card.read_bytes() == written
    before = (tmp_path / "config.json").read_bytes()
    for text, config in ((b"# Mine", before), (written, b"{}"), (written, b"["), (written, None)):
        card.write_bytes(text)
        (tmp_path / "config.json").unlink(missing_ok=True)
        if config is not None:
            (tmp_path / "config.json").write_bytes(config)
        with pytest.raises(ConfigError, match=r"README\.md was not written by this command"):
            export_hub("default", tmp_path)
        assert card.read_bytes() == text
