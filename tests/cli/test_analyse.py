"""`analyse` on a tiny store: the page, the images beside it, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.color import write_color_onnx
from helpers.tiny import make_store, write_coco
from PIL import Image

pytest.importorskip("torch", reason="evaluation needs torch")
pytest.importorskip("onnx", reason="makes its own weights with onnx")
pytest.importorskip("matplotlib", reason="draws with matplotlib")
pytest.importorskip("pycocotools")

from picosam2.data.store import StoreConfig, prepare

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[object, ...]:
    store = make_store(tmp_path, 10)
    weights = write_color_onnx(tmp_path / "color.onnx")
    return ("--store", store.path, "--weights", weights, "--threads", 1)


@pytest.mark.parametrize("protocol", ["box", "click"])
def test_a_page_with_its_images(cli, inputs, tmp_path, protocol):
    out, numbers = tmp_path / "pages" / "errors.md", tmp_path / "errors.json"
    done = cli("analyse", *inputs, "--protocol", protocol, "--out", out, "--json", numbers)
    assert done.code == 0, done.err
    names = [out, out.with_name("errors-worst.jpg"), out.with_name("errors-classes.svg")]
    assert done.out.splitlines()[-3:] == [str(name) for name in names]
    assert sorted(out.parent.iterdir()) == sorted(names)
    page = out.read_text()
    assert page.splitlines()[0] == (
        "Made by `picosam2 analyse --weights color.onnx --store store "
        f"--protocol {protocol} --out errors.md`."
    )
    assert str(tmp_path) not in page + names[2].read_text()
    for link in re.findall(r"\]\((.+?)\)", page):
        assert (out.parent / link).is_file()
    document = json.loads(numbers.read_text())
    assert document["kind"] == "analysis"
    assert document["protocol"] == protocol
    assert document["n"] == len(document["items"]) == sum(row["n"] for row in document["causes"])
    assert (
        f"| 1 | shapes | {min(document['items'], key=lambda item: item['iou'])['file']} |" in page
    )
    with Image.open(names[1]) as sheet:
        assert sheet.format == "JPEG"


def test_a_page_for_others_shows_no_images(cli, inputs, tmp_path):
    out = tmp_path / "pages" / "errors.md"
    assert cli("analyse", *inputs, "--limit", 2, "--no-sheet", "--out", out).code == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["errors-classes.svg", "errors.md"]
    assert "--no-sheet" in out.read_text()
    assert "worst.jpg" not in out.read_text()


def test_the_same_page_again(cli, inputs, tmp_path):
    for folder in ("a", "b"):
        words = ("--limit", 2, "--out", tmp_path / folder / "errors.md")
        assert cli("analyse", *inputs, *words).code == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert "--limit 2" in (tmp_path / "a" / "errors.md").read_text()


def test_what_cannot_be_analysed(refused, inputs, tmp_path):
    out = ("--out", tmp_path / "errors.md")
    store, weights = inputs[:2], inputs[2:4]
    assert "end it in .md" in refused("analyse", *inputs, "--out", tmp_path / "errors.html")
    assert "is not a crop store" in refused("analyse", "--store", tmp_path / "no", *weights, *out)
    assert "no.onnx" in refused("analyse", *store, "--weights", tmp_path / "no.onnx", *out)
    source = write_coco(tmp_path / "more", 2)
    prepare([source], tmp_path / "none", StoreConfig(context=64, validation=0), workers=1)
    message = refused("analyse", "--store", tmp_path / "none", *weights, *out)
    assert "keeps no images for validation" in message
    assert not (tmp_path / "errors.md").exists()
