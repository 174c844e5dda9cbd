"""`picosam2 quantize`, and the weights it makes in the other commands."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="exports its own weights with torch")

from helpers.tiny import SMALL_STORE, make_store

QUICK = ("--samples", 6, "--photos", 2, "--threads", 1)  # an option by its older name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantize")
    make_store(path, 10)
    return path


@pytest.fixture(scope="module")
def int8(folder, tiny_onnx):
    from picosam2.cli.main import run

    out = folder / "tiny-int8.onnx"
    words = ("quantize", "--weights", tiny_onnx, "--store", folder / "store", "--out", out, *QUICK)
    assert run([str(word) for word in words]) == 0
    return out


def test_what_it_says(cli, folder, tiny_onnx, tmp_path):
    words = ("quantize", "--weights", tiny_onnx, "--store", folder / "store")
    done = cli(*words, "--out", tmp_path / "int8.onnx", *QUICK, "--method", "minmax")
    assert done.code == 0
    assert done.out.splitlines()[0] == str(tmp_path / "int8.onnx")
    assert re.search(r"file +0\.\d\d MB \(FP32: 0\.\d\d MB\)", done.out)
    assert "6 crops, by minmax" in done.out
    assert re.search(r"mIoU by box +0\.\d{4} to 0\.\d{4} \([+-]\d+\.\d\d points\), 2 obj", done.out)
    assert "mIoU by click" in done.out
    assert "measuring click: 4/4" in done.err


def test_a_loss_is_warned_of(cli, folder, tiny_onnx, tmp_path, monkeypatch):
    from picosam2.export.int8 import onnx_int8

    monkeypatch.setattr(
        onnx_int8,
        "_measure",
        lambda *_: {"box": onnx_int8.Change(fp32=0.8, int8=0.79, objects=2)},
    )
    words = ("quantize", "--weights", tiny_onnx, "--store", folder / "store", *QUICK)
    done = cli(*words, "--out", tmp_path / "int8.onnx")
    assert done.code == 0
    assert "warning: INT8 loses 1.00 points of mIoU by box" in done.err


def test_safetensors_too(cli, folder, tiny_safetensors, int8, tmp_path):
    out = tmp_path / "int8.onnx"
    words = ("quantize", "--weights", tiny_safetensors, "--store", folder / "store", *QUICK)
    assert cli(*words, "--out", out).code == 0
    assert out.read_bytes() == int8.read_bytes()


def test_other_commands_take_the_file(cli, folder, int8, tmp_path):
    image = folder / "shapes-images" / "000.png"
    done = cli("segment", image, "--point", "48,36", "--weights", int8, "--out", tmp_path)
    assert done.code == 0
    assert (tmp_path / "000-overlay.png").exists()
    assert '"method": ' in cli("info", "--weights", int8).out.replace("method:", '"method": ')
    out = tmp_path / "result.json"
    words = ("--images", folder / "shapes-images", "--annotations", folder / "shapes.json")
    assert cli("eval", "--weights", int8, *words, "--limit", 2, "--json", out).code == 0
    result = json.loads(out.read_text())
    assert result["weights"]["precision"] == "int8"
    done = cli("report", out, "--out", tmp_path / "report")
    assert done.code == 0
    assert "| tiny-int8 | int8 |" in (tmp_path / "report" / "report.md").read_text()


def test_shipped_by_a_name(cli, refused, int8, tiny_safetensors, monkeypatch, tmp_path):
    """Weights that come for one runtime only."""
    from picosam2.runtimes import weights

    folder = tmp_path / "assets" / "weights"
    folder.mkdir(parents=True)
    shutil.copy(int8, folder / "default-int8.onnx")
    monkeypatch.setattr(weights.resources, "files", lambda _package: tmp_path)
    lines = cli("weights").out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["default-int8", "onnx"]]
    assert weights.find_weights("default-int8") == folder / "default-int8.onnx"
    message = refused("export", "onnx", "--weights", "default-int8", "--out", tmp_path / "x.onnx")
    assert "default-int8 do not come for torch: use the runtime onnx" in message


def test_what_cannot_be_quantized(refused, folder, int8, tiny_onnx, tmp_path):
    words = ("quantize", "--store", folder / "store", "--out", tmp_path / "x.onnx", "--weights")
    assert "in 8 bits already" in refused(*words, int8)
    assert "check the path" in refused(*words, tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("not a network")
    assert "is no ONNX file" in refused(*words, tmp_path / "text.onnx")
    (tmp_path / "text.safetensors").write_text("not a network")
    assert "holds no PicoSAM2 weights" in refused(*words, tmp_path / "text.safetensors")
    assert not (tmp_path / "x.onnx").exists()


def test_where_it_cannot_be_written(refused, folder, tiny_onnx, tmp_path):
    words = ("quantize", "--weights", tiny_onnx, "--store", folder / "store", "--out")
    assert "end it in .onnx" in refused(*words, tmp_path / "x.pb")
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refused(*words, tmp_path / "file" / "x.onnx")


def test_stores_that_will_not_do(refused, tiny_onnx, tmp_path):
    words = ("quantize", "--weights", tiny_onnx, "--out", tmp_path / "x.onnx", "--store")
    assert "is not a crop store" in refused(*words, tmp_path)
    make_store(tmp_path, 8, replace(SMALL_STORE, views=("box",)))
    message = refused(*words, tmp_path / "store")
    assert "lacks the view click-near" in message
    assert "--views box,click-near" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [("--method", "magic"), ("--samples", 1), ("--seed", -1), ("--validation-images", -1)],
)
def test_settings_that_make_no_sense(refused, folder, tiny_onnx, tmp_path, option, value):
    words = ("quantize", "--weights", tiny_onnx, "--store", folder / "store")
    assert option.strip("-") in refused(*words, "--out", tmp_path / "x.onnx", option, value)
