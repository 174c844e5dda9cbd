"""`picosam2 finetune`: a whole run with tiny weights, and mistakes that cost no time."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import HEIGHT, WIDTH, guided_config, write_coco
from PIL import Image

pytest.importorskip("torch", reason="fine-tuning needs the extra train")
pytest.importorskip("jinja2", reason="the page needs the extra train")

import torch

import picosam2
from picosam2.models.checkpoint import read_tensors, save_weights
from picosam2.reports.finetune_page import _kept
from picosam2.training.finetune import FinetuneConfig

CONFIG = FinetuneConfig(samples=64, measures=1, measured=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    model = guided_config().build()
    save_weights(path, model, {})
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    source = write_coco(tmp_path, 10)
    source.annotations.rename("a.json")
    source.images.rename("images")
    return tmp_path


def test_a_whole_run(here: Path, weights: Path):
    seen: list[str] = []

    def progress(done: int, total: int | None = None, *, what=None, note: str = "") -> None:
        seen.append(what)

    result = picosam2.finetune(
        "a.json", "images", "out/mine", weights=str(weights), threads=1, config=CONFIG,
        progress=progress,
    )  # fmt: skip
    names = sorted(path.name for path in (here / "out").iterdir())
    assert names == ["mine-int8.onnx", "mine.html", "mine.onnx", "mine.safetensors"]
    assert list(dict.fromkeys(seen)) == [
        "preparing", "measuring before", "training", "calibrating", "exporting", "measuring after",
    ]  # fmt: skip
    assert result.samples == 64
    assert not result.stopped
    facts = read_tensors(result.weights).info
    assert facts["finetune"]["samples"] == 64
    assert set(facts["scorers"]) == {"box", "click"}
    page = result.page.read_text()
    assert "mine: weights for your own images" in page
    assert "only 2 images" in page
    for averaging, kept in ((1.0, "The weights are the new ones: "), (0.4, "are 40.0 % new ones")):
        assert kept in _kept(replace(result, averaging=averaging))
    assert _kept(result) in html.unescape(page)
    assert "data:image/jpeg;base64," in page
    image = np.asarray(Image.open(here / "images" / "000.png"))
    for file in (result.weights, result.onnx, result.int8):
        (mask,) = picosam2.segment(image, boxes=[(10, 10, 60, 60)], weights=file)
        assert mask.mask.shape == (HEIGHT, WIDTH)


def test_the_command_prints_what_it_gained(cli, here: Path, weights: Path):
    done = cli(
        "finetune", "a.json", "images", "--out", "mine", "--weights", weights, "--minutes", 0.05,
        "--threads", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "mIoU on 2 masks in 2 images kept aside"
    assert lines[1].split() == ["before", "after", "INT8"]
    assert [line.split()[0] for line in lines[2:5]] == ["box", "click", "two"]
    assert lines[5:] == ["mine.safetensors", "mine.onnx", "mine-int8.onnx", "mine.html"]
    assert not Path("mine-work").exists()


# -- mistakes -------------------------------------------------------------------------------------


@pytest.fixture
def nothing_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("something that costs time was begun")

    monkeypatch.setattr("picosam2.training.finetune.prepare_own", fail)
    monkeypatch.setattr("picosam2.images.load_image", fail)


def _keep(document: dict, images: int, masks: int) -> None:
    document["images"] = document["images"][:images]
    document["annotations"] = document["annotations"][:masks]


def _same(document: dict) -> None:
    first = document["annotations"][0]
    for entry in document["annotations"]:
        entry |= {key: first[key] for key in ("segmentation", "bbox", "area")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: _keep(d, 10, 3), "there are only 3 masks in 3 images, and at least 8"),
        (lambda d: _keep(d, 1, 1), "there is only one image with masks, and at least 3"),
        (_same, "all 10 masks are the same: check what wrote the annotations"),
        (
            lambda d: [i.update(file_name="x" + i["file_name"]) for i in d["images"]],
            "is missing",
        ),
        (
            lambda d: [i.update(height=30, width=40) for i in d["images"]],
            "no mask in a.json can be used",
        ),
        (lambda d: d.pop("annotations"), "it has no list 'annotations'"),
    ],
)
def test_annotations_that_cannot_be_used(refused, here, nothing_costs, change, message):
    document = json.loads(Path("a.json").read_text())
    change(document)
    Path("a.json").write_text(json.dumps(document))
    before = sorted(here.rglob("*"))
    assert message in refused("finetune", "a.json", "images", "--out", "mine")
    assert sorted(here.rglob("*")) == before


def test_images_of_another_size(refused, here, nothing_costs):
    for path in Path("images").iterdir():
        Image.new("RGB", (30, 20)).save(path)
    message = refused("finetune", "a.json", "images", "--out", "mine")
    assert "is 30x20 pixels, and the annotations are for 96x72" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a.json images --out mine --minutes 0", "a budget of 0 minutes leaves no time to train"),
        ("a.json images --out mine --minutes=-3", "a budget of -3 minutes leaves no time"),
        ("a.json images --out mine --weights paper", "cannot be fine-tuned: start from default"),
        ("a.json images --out mine --weights gone.safetensors", "no weights at gone"),
        ("a.json images --out mine.onnx", "several files are written: give mine"),
        ("a.json images --out images", "images is a folder: give a name in it"),
        ("a.json images --out a.json/mine", "a.json is not a folder"),
        ("a.json images --out mine --resume", "there is no stopped run at mine-work"),
        ("b.json images --out mine", "the annotations b.json do not exist"),
        ("a.json gone --out mine", "the image folder gone does not exist"),
        ("images images --out mine", "is empty, and no labels that are known"),
        ("a.json images", "needs --out NAME"),
    ],
)
def test_mistakes(refused, here, nothing_costs, words, message):
    before = sorted(here.rglob("*"))
    assert message in refused("finetune", *words.split())
    assert sorted(here.rglob("*")) == before


def test_a_run_that_was_stopped_is_not_overwritten(refused, here, nothing_costs):
    Path("mine-work").mkdir()
    Path("mine-work/checkpoint.safetensors").write_text("")
    message = refused("finetune", "a.json", "images", "--out", "mine")
    assert message == (
        "mine-work holds a run that was stopped: add --resume, or remove that folder"
    )
