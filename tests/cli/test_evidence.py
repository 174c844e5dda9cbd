"""`eval` with its further options, `compare`, `robustness`, `clicks` and `report`, end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.color import write_color_onnx
from helpers.sam_onnx import write_sam_onnx
from helpers.tiny import make_store, write_coco

from picosam2._files import sha256_file

pytest.importorskip("torch", reason="evaluation needs torch")
pytest.importorskip("onnx", reason="makes its own weights with onnx")
pytest.importorskip("pycocotools")

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[object, ...]:
    source = write_coco(tmp_path, 4)
    weights = write_color_onnx(tmp_path / "color.onnx")
    return ("--images", source.images, "--annotations", source.annotations, "--weights", weights,
            "--threads", 1)  # fmt: skip


def test_from_measurements_to_a_report(cli, inputs, tmp_path):
    box, click = tmp_path / "box.json", tmp_path / "click.json"
    assert cli("eval", *inputs, "--json", box).code == 0
    assert cli("eval", *inputs, "--protocol", "click", "--first", 3, "--json", click).code == 0
    assert json.loads(click.read_text())["n"] == 3
    curves, clicks = tmp_path / "curves.json", tmp_path / "clicks.json"
    done = cli("robustness", *inputs, "--curve", "blur", "--protocol", "box", "--json", curves)
    assert done.code == 0
    assert "Out of focus" in done.out
    done = cli("clicks", *inputs, "--clicks", 2, "--limit", 2, "--json", clicks)
    assert done.code == 0
    assert "NoC@85" in done.out
    readme = tmp_path / "README.md"
    readme.write_text("<!-- report:begin -->\n<!-- report:end -->\n")
    done = cli("report", box, click, curves, clicks, "--out", tmp_path / "r", "--readme", readme)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [str(tmp_path / "r" / "report.html"), str(readme)]
    page = (tmp_path / "r" / "report.html").read_text()
    assert "data:image/jpeg;base64" in page  # the sample image
    assert "--first 3" in page
    assert str(tmp_path) not in page + (tmp_path / "r" / "report.json").read_text()
    assert "color" in readme.read_text()
    images = inputs[:4]
    done = cli("report", box, "--out", tmp_path / "p", *images)
    assert done.code == 0, done.err
    assert "Objects of COCO" in (tmp_path / "p" / "report.md").read_text()


def test_weights_of_one_file_name_are_all_shown(tmp_path):
    from helpers.configs import CONFIGS, golden

    from picosam2.cli.report import _models

    results = []
    for number, name in enumerate(sorted(CONFIGS)):
        file = tmp_path / ("a/run", "b/run", "c/run")[number] / "weights.safetensors"
        file.parent.mkdir(parents=True)
        shutil.copy(golden(name, ".safetensors"), file)
        facts = {"name": str(file), "sha256": sha256_file(file), "runtime": "torch"}
        results.append({"weights": {**facts, "precision": "fp32"}})
    models = _models([*results, results[0]])
    assert list(models) == ["weights fp32", "run/weights fp32", "weights fp32 (2)"]
    shown = [model.runtime.info.weights_sha256 for model in models.values()]
    assert shown == [result["weights"]["sha256"] for result in results]


def test_compare_says_whether_it_helped(cli, inputs, refused, tmp_path):
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    assert cli("eval", *inputs, "--json", a).code == 0
    assert cli("eval", *inputs, "--jitter", 0.3, "--json", b).code == 0
    done = cli("compare", a, b, "--json", tmp_path / "c.json")
    assert done.code == 0
    assert "95 % interval over images" in done.out
    assert json.loads((tmp_path / "c.json").read_text())["n"] == 4
    assert "no result file" in refused("compare", a, tmp_path / "none.json")


def test_a_leak_is_warned_of(cli, inputs, tmp_path):
    store = make_store(tmp_path / "train", 3)
    done = cli("eval", *inputs, "--check-leak", store.path, "--json", tmp_path / "a.json")
    assert done.code == 0
    assert "warning: 3 of the 4 images" in done.err
    assert json.loads((tmp_path / "a.json").read_text())["leak"]["met"] == 3


def test_a_peer_that_is_not_there(refused, inputs, tmp_path):
    pytest.importorskip("transformers", reason="peers need the extra sam2")
    words = [*inputs[:4], "--peer", f"sam2:{tmp_path}"]
    assert "holds no model" in refused("eval", *words)
    assert "of this project" in refused("eval", *words, "--flip")


def test_clicks_at_a_peer_are_compared_with_clicks_at_weights(cli, inputs, refused, tmp_path):
    folder = write_sam_onnx(tmp_path / "sam")
    ours, theirs, other = (tmp_path / f"{name}.json" for name in ("ours", "theirs", "other"))
    words = ("clicks", *inputs, "--clicks", 3, "--json")
    assert cli(*words, ours).code == 0
    on = ("clicks", *inputs[:4], "--clicks", 3, "--json")  # without --weights
    assert cli(*on, theirs, "--peer", f"onnx:{folder}").code == 0
    peer = json.loads(theirs.read_text())
    assert peer["weights"]["precision"] == "fp32"
    assert peer["weights"]["decoder_sha256"]
    assert peer["decode_ms_per_prompt"] > 0
    done = cli("compare", theirs, ours, "--json", tmp_path / "c.json")
    assert done.code == 0, done.err
    assert "clicks from click: 4 objects on 4 images" in done.out
    document = json.loads((tmp_path / "c.json").read_text())
    mine = json.loads(ours.read_text())
    for count in range(3):
        assert document["miou"][count]["a"] == pytest.approx(peer["miou"][count], abs=1e-4)
        assert document["miou"][count]["b"] == pytest.approx(mine["miou"][count], abs=1e-4)
    assert document["noc"]["85"]["b"] == mine["noc"]["85"]["clicks"]
    assert cli(*words, other, "--start", "box").code == 0
    assert "the same --start" in refused("compare", ours, other)
    assert cli("eval", *inputs, "--json", other).code == 0
    assert "pass two results of" in refused("compare", ours, other)


def test_images_of_images_need_both(cli, inputs, refused, tmp_path):
    assert cli("eval", *inputs, "--json", tmp_path / "a.json").code == 0
    message = refused("report", tmp_path / "a.json", "--out", tmp_path / "r", "--images", tmp_path)
    assert "both --images and --annotations" in message


def test_domains_give_a_table_numbers_and_a_drawing(cli, inputs, refused, tmp_path):
    source = write_coco(tmp_path / "other", 2, start=50)
    place = tmp_path / "domains" / "shapes"
    place.mkdir(parents=True)
    source.images.rename(place / "images")
    source.annotations.rename(place / "instances.json")
    out, svg = tmp_path / "d.json", tmp_path / "d.svg"
    words = ("eval", "--domains", place.parent, *inputs[4:])
    done = cli(*words, "--json", out, "--plot", svg)
    assert done.code == 0, done.err
    assert "mean over sets" in done.out
    document = json.loads(out.read_text())
    assert document["kind"] == "domains"
    assert document["peak_memory_mb"] > 10
    assert "best guess without pixels" in svg.read_text()
    done = cli("compare", out, out, "--json", tmp_path / "c.json")
    assert done.code == 0
    assert "over 1 sets +0.0000" in done.out
    assert "leave --images" in refused(*words, "--images", place)
    assert "should end in .svg" in refused(*words, "--plot", tmp_path / "d.png")
    assert "give --images and --annotations, or --domains" in refused("eval", *inputs[4:])
    assert "--plot is for --domains" in refused("eval", *inputs, "--plot", svg)


def test_compare_tells_costs(cli, inputs, tmp_path):
    out = tmp_path / "a.json"
    assert cli("eval", *inputs, "--json", out).code == 0
    done = cli("compare", out, out)
    assert "ms per prompt, all in all: A " in done.out
    assert "memory at the peak, MB: A " in done.out
    assert "weights, MB: A " in done.out
