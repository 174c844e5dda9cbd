"""`picosam2 export imx500`, as far as it goes without Sony's tools."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")

RECIPE = ("export", "imx500", "--check", "--recipe", "paper")


def test_a_check_says_layer_by_layer_what_it_costs(cli, tiny_onnx):
    done = cli("export", "imx500", "--check", "--weights", tiny_onnx)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].split() == ["layer", "operator", "gives", "MiB", "then"]
    assert any(line.startswith("encoder.0.0") for line in lines)
    assert "of 8.00 MiB (estimated)" in done.out
    assert lines[-1] == "nothing is known that keeps it off the sensor"


def test_a_check_takes_trained_weights(cli, tiny_onnx, tiny_safetensors):
    of_onnx = cli("export", "imx500", "--check", "--weights", tiny_onnx)
    of_safetensors = cli("export", "imx500", "--check", "--weights", tiny_safetensors)
    assert of_onnx.out == of_safetensors.out


def test_a_check_takes_a_recipe(cli):
    pytest.importorskip("torch")
    done = cli(*RECIPE, "--set", "model.input_size=128", "--set", "model.logits=2")
    assert done.code == 0
    assert "about 5.3" in done.out


def test_a_check_takes_a_finder(cli):
    pytest.importorskip("torch")
    done = cli("export", "imx500", "--check", "--recipe", "finder")
    assert done.code == 2
    assert "does not fit into the sensor" in done.err
    smaller = ("--recipe", "finder", "--set", "model.input_size=256")
    done = cli("export", "imx500", "--check", *smaller)
    assert done.code == 0
    assert "nothing is known that keeps it off" in done.out


def test_a_check_that_fails_names_the_layer(cli):
    pytest.importorskip("torch")
    done = cli(*RECIPE, "--set", "model.input_size=256")
    assert done.code == 2
    assert "decoder.3.0" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("picosam2: the network does not fit into the sensor: about ")
    assert "decoder.3.0 (Conv) makes 80x256x256 (stored as 96 channels)" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give --out, or --check"),
        (("--store", "s"), "give --out, or --check"),
        (("--store", "s", "--out", "o", "--recipe", "paper"), "go with --check"),
        (("--check", "--set", "model.logits=2"), "give --recipe too"),
        (("--check", "--weights", "defualt"), "no weights named defualt"),
        (("--check", "--weights", "none.onnx"), "check the path"),
        (("--check", "--recipe", "none"), "no recipe 'none'"),
        (("--check", "--recipe", "paper", "--set", "model.size=3"), "unknown key 'size'"),
        (("--weights-share", "0.2", "--store", "s", "--out", "o"), "weights-share"),
    ],
)
def test_command_lines_that_make_no_sense(words, says, refused):
    assert says in refused("export", "imx500", *words)


def test_what_is_no_store(refused, tiny_safetensors, tmp_path):
    pytest.importorskip("torch")
    words = ("--weights", tiny_safetensors, "--store", tmp_path, "--out", tmp_path / "out")
    message = refused("export", "imx500", *words)
    assert "Java" in message or "is not a crop store" in message
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_holds_no_weights_to_quantize(refused, tiny_onnx, tmp_path):
    pytest.importorskip("torch")
    words = ("--weights", tiny_onnx, "--store", tmp_path, "--out", tmp_path / "out")
    assert "give the safetensors file it is from" in refused("export", "imx500", *words)


def test_an_export_prints_what_matters(cli, tiny_safetensors, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from picosam2.export.imx500 import export as module

    request = {}

    def export(weights, store, out, config, **options):
        request.update(options, weights=weights, store=store, config=config)
        options["progress"](3, 3, what="calibrating")
        measured = {"protocol": "box", "dataset": "coco", "int8": 0.7654, "difference": -0.0012}
        report = {
            "memory": {"used": 3_727_840, "total": 8_388_480},
            "latency": {"ms": 13.76},
            "measured": [measured],
            "quantization": {"samples": config.samples},
        }
        return module.SensorExport(folder=out, report=report)

    monkeypatch.setattr(module, "export_imx500", export)
    words = ("--weights", tiny_safetensors, "--store", tmp_path, "--out", tmp_path / "out")
    more = ("--gptq", 5, "--weights-share", 0.5, "--samples", 64, "--seed", 3, "--tools", tmp_path)
    done = cli("export", "imx500", *words, *more)
    assert done.code == 0
    assert done.err == "calibrating: 3/3 steps\n"
    first, second, third = done.out.splitlines()
    zip_file = tmp_path / "out" / "packerOut.zip"
    assert first == f"{zip_file}: 3.56 of 8.00 MiB, about 13.8 ms a crop (estimated)"
    assert second == "box, coco: mIoU 0.7654, -0.12 points against FP32"
    assert third == f"more in {tmp_path / 'out' / 'report.md'}"
    assert request["store"] == tmp_path
    config = request["config"]
    assert (config.gptq, config.weights_share, config.samples, config.seed) == (5, 0.5, 64, 3)
    assert request["weights"] == tiny_safetensors
    assert request["tools"] == tmp_path
    without = cli("export", "imx500", "--weights", tiny_safetensors, "--out", tmp_path / "out")
    assert request["store"] is None
    assert without.out.splitlines()[1] == (
        "calibrated with 256 augmented crops of the bundled sample image: give --store to "
        "calibrate with training images"
    )
