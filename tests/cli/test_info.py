"""`picosam2 info` and `picosam2 weights`."""

from __future__ import annotations

import re

import pytest

from picosam2 import errors
from picosam2._files import sha256_file


def without_torch(monkeypatch):
    real = errors.require

    def require(module, extra):
        if module == "torch":
            raise errors.MissingExtraError("this needs the Python package 'torch'")
        return real(module, extra)

    monkeypatch.setattr(errors, "require", require)


def test_the_network_of_the_paper(cli):
    pytest.importorskip("torch")
    done = cli("info")
    assert done.code == 0
    assert re.search(r"in all +1,262,818 +323\.1 ", done.out)
    assert re.search(r"bottleneck +320x6x6 +85,376 +3\.03 ", done.out)


def test_the_network_of_a_recipe(cli, refused):
    pytest.importorskip("torch")
    assert re.search(r"bottleneck +24x24x24", cli("info", "--recipe", "debug").out)
    assert "there is no recipe 'huge'" in refused("info", "--recipe", "huge")


def test_weights_say_what_they_are(cli, tiny_onnx, tiny_safetensors):
    for path in (tiny_onnx, tiny_safetensors):
        printed = cli("info", "--weights", path).out
        assert printed.startswith(f"{path.name}\n  size: 0.0")
        assert re.search(r"sha256: [0-9a-f]{64}", printed)
        assert "widths: [4, 6]" in printed
        assert re.search(r"head +2x96x96 +10 ", printed)


def test_without_torch_weights_still_say_what_they_are(
    cli, tiny_onnx, tiny_safetensors, monkeypatch
):
    without_torch(monkeypatch)
    for path in (tiny_onnx, tiny_safetensors):
        done = cli("info", "--weights", path)
        assert (done.code, done.err) == (0, "")
        assert "widths: [4, 6]" in done.out
        assert "the table of stages: this needs the Python package 'torch'" in done.out


def test_without_torch_a_recipe_has_no_table(refused, monkeypatch):
    without_torch(monkeypatch)
    assert "this needs the Python package 'torch'" in refused("info", "--recipe", "debug")


def test_long_facts_are_taken_apart_or_counted(capsys):
    from picosam2.cli.info import _described

    facts = {"short": 1, "scorer": {"hidden": list(range(500)), "bias": [0.5]}, "text": "x" * 200}
    lines = _described(facts, "  ")
    assert lines[:4] == ["  short: 1", "  scorer:", "    hidden: 500 values", "    bias: [0.5]"]
    assert lines[4].endswith("...")
    assert max(map(len, lines)) <= 88


def test_one_network_at_a_time(refused, tiny_onnx):
    message = refused("info", "--weights", tiny_onnx, "--recipe", "debug")
    assert "give --weights or --recipe, not both" in message


def test_what_is_shipped(cli, monkeypatch, tmp_path, tiny_onnx):
    from picosam2.runtimes import weights

    printed = cli("weights").out
    for name in (*weights.shipped(), "finder"):
        assert re.search(
            rf"^{name} +onnx +{sha256_file(weights.shipped_files(name)['onnx'])} ",
            printed,
            re.MULTILINE,
        )
    monkeypatch.setattr(weights, "shipped", lambda: [])
    monkeypatch.setattr(weights, "shipped_files", lambda name: {})
    assert "no weights come with this build" in cli("weights").out
    monkeypatch.setattr(weights, "shipped", lambda: ["tiny"])
    monkeypatch.setattr(
        weights, "shipped_files", lambda name: {"onnx": tiny_onnx} if name == "tiny" else {}
    )
    printed = cli("weights").out
    assert printed.splitlines()[0].split() == ["name", "runtime", "sha256", "size"]
    assert re.search(r"tiny +onnx +[0-9a-f]{64} +0\.0\d MB", printed)
