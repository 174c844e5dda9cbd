"""What can be known from arguments is reported before anything costs time."""

from __future__ import annotations

import json

import pytest
from helpers.tiny import write_coco
from PIL import Image

from picosam2.cli import _targets
from picosam2.errors import ConfigError, DataError

pytest.importorskip("torch", reason="most commands need the extra train")


class CostsError(Exception):
    """Something that costs time was begun."""


@pytest.fixture
def nothing_costs(monkeypatch):
    """Opening weights, reading annotations or prompts, and opening videos and stores fail."""

    def fail(*_args, **_options):
        raise CostsError

    for name in (
        "picosam2.predictor.Predictor.__init__",
        "picosam2.evaluation.sam.open_sam",
        "picosam2.distillation.teachers.open_teacher",
        "picosam2.data.datasets.read_annotations",
        "picosam2.data.store.read_annotations",
        "picosam2.data.store.Store.__init__",
        "picosam2.io.video_files.open_frames",
        "picosam2.tasks.bulk.prompts.PromptSource.of_boxes",
        "picosam2.evaluation.domains.read_domains",
    ):
        monkeypatch.setattr(name, fail)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_coco(tmp_path, 1)
    source.annotations.rename("a.json")
    source.images.rename("images")
    (tmp_path / "file").write_text("")
    (tmp_path / "domains").mkdir()
    (tmp_path / "README.md").write_text("no marks")
    (tmp_path / "box.json").write_text(json.dumps({"kind": "robustness"}))
    Image.new("RGB", (8, 8)).save("photo.png")
    return tmp_path


MEASURE = ("--images", "images", "--annotations", "a.json")
PEER = ("--peer", "sam2:nowhere")
SOURCES = ("--coco", "a.json", "images")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval {measure} --json images", "images is a folder"),
        ("eval {measure} {peer} --json file/x.json", "file is not a folder"),
        (
            "eval --images images --annotations b.json {peer}",
            "the annotation file b.json does not exist",
        ),
        ("eval --domains gone {peer}", "there is no folder gone"),
        ("eval --domains domains --plot file/x.svg", "file is not a folder"),
        ("eval --domains domains --protocol click", "leave --protocol and --dataset out"),
        ("eval --domains domains --dataset lvis", "leave --protocol and --dataset out"),
        ("clicks {measure} {peer} --json images", "images is a folder"),
        ("clicks {measure} {peer} --weights paper", "--weights is for weights of this project"),
        ("eval {measure} {peer} --runtime torch --flip", "leave them out with --peer"),
        ("eval --domains images {peer} --weights paper", "leave it out with --peer"),
        ("eval {measure} --check-leak gone", "there is no folder gone"),
        ("eval {measure} --protocol click-inside --jitter 0.1", "leave --jitter out"),
        ("camera net.rpk --size 0x0 --point 5,5", "gives no frames of 0x0"),
        ("clicks {measure} --plot file/x.svg", "file is not a folder"),
        ("robustness {measure} --json images", "images is a folder"),
        ("robustness {measure} --curve bluur", "there is no curve 'bluur'"),
        ("proposals {measure} --json file/x/y.json", "file is not a folder"),
        ("proposals --images gone --annotations a.json", "the image folder gone does not exist"),
        ("analyse --store s --out page.md --json images", "images is a folder"),
        ("compare x.json y.json --json images", "images is a folder"),
        ("report box.json --out file", "file is not a folder"),
        ("report box.json --out r --readme README.md", "README.md needs one line"),
        ("report box.json --out r {measure}", "need a result of `eval --protocol box`"),
        ("calibrate --weights w.safetensors --store s --out images", "end it in .safetensors"),
        ("calibrate --weights w.safetensors --store s --out o.safetensors", "no weights at w"),
        ("quantize --store s --out file/x.onnx", "file is not a folder"),
        ("export onnx --weights default --out file/x.onnx", "file is not a folder"),
        ("export onnx --weights gone.safetensors --out x.onnx", "no weights at gone"),
        ("export imx500 --weights gone.safetensors --store s --out o {sources}", "no weights at"),
        ("export imx500 --store s --out file {sources}", "file is not a folder"),
        (
            "data prepare {sources} --coco b.json images --out s",
            "the annotation file b.json does not exist",
        ),
        ("data prepare {sources} --views bax --out s", "bax"),
        (
            "data images {sources} --lvis a.json gone --out s",
            "the image folder gone does not exist",
        ),
        ("data show s --out images", "images is a folder"),
        ("teach --teacher sam2:x --store s {sources} --out file/x", "file is not a folder"),
        (
            "teach --teacher sam2:x --store s --source n b.json images --out c",
            "file b.json does not exist",
        ),
        ("train --recipe debug --store s --out file", "file is not a folder"),
        ("train --recipe debug --store s --out r --init gone.safetensors", "no weights at gone"),
        ("track v.mp4 --point 1,2 --frame 5 --frames 5 --out o.mp4", "make it 6 or more"),
        ("track v.mp4 --point 1,2 --out file/o.mp4", "file is not a folder"),
        ("track v.mp4 --point 1,2 --out o.mp4 --weights gone", "no weights named gone"),
        ("segment images --boxes a.json --out o.png", "give --out a folder, not o.png"),
        ("segment images --point 1,2 --boxes-format yolo", "add --boxes FILE"),
        ("segment images --prompts p.json --one-object", "leave it out"),
        ("segment images --boxes b.json --separate", "--separate says what --point and --box mean"),
        ("segment images --boxes a.json --out o --weights gone", "no weights named gone"),
        ("segment gone --boxes a.json --out o", "gone is not an image nor a folder"),
        ("segment photo.png --point 1,2 -f mask --out photo.png", "is one of the images"),
        ("camera --simulate sample --no-page --record file/x.mp4", "file is not a folder"),
    ],
)
def test_before_anything_costs_time(refused, here, nothing_costs, words, message):
    values = {"measure": " ".join(MEASURE), "peer": " ".join(PEER), "sources": " ".join(SOURCES)}
    before = sorted(here.rglob("*"))
    assert message in refused(*words.format(**values).split())
    assert sorted(here.rglob("*")) == before


def test_a_teacher_is_not_opened_for_a_cache_that_cannot_be_written(refused, here, nothing_costs):
    words = ("teach", "--teacher", "sam2:x", "--store", "s", *SOURCES, "--out", "file")
    assert "file is not a folder" in refused(*words)


def test_places(here, monkeypatch):
    _targets.check_files(here / "new.json", here / "a" / "b" / "new.json", None)
    _targets.check_folders(here, here / "new", here / "a" / "b", None)
    with pytest.raises(ConfigError, match="is a folder"):
        _targets.check_files(here / "images")
    with pytest.raises(ConfigError, match="file is not a folder"):
        _targets.check_folders(here / "file" / "x")
    with pytest.raises(ConfigError, match="is read by this command"):
        _targets.check_files(here / "images" / ".." / "file", kept=[None, here / "file"])
    (here / "loose").symlink_to(here / "nowhere")
    with pytest.raises(ConfigError, match="loose is not a folder"):
        _targets.check_folders(here / "loose")
    with pytest.raises(DataError, match=r"image folder .* does not exist"):
        _targets.check_sources((here / "a.json", here / "file"))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="new files are not allowed"):
        _targets.check_files(here / "new.json")
