"""`picosam2 everything` and `picosam2 proposals`, with a network whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.color import flat_scene, write_color_onnx
from PIL import Image

from picosam2 import masks
from picosam2.cli.main import run
from picosam2.io import formats

pytest.importorskip("onnx")

IMAGE, TRUTH = flat_scene()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_onnx(tmp_path_factory.mktemp("weights") / "color.onnx")


@pytest.fixture
def command(tmp_path: Path, weights: Path) -> list[str]:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    return [
        "everything", str(tmp_path / "a.png"), "--weights", str(weights), "--method", "grid",
        "--points-per-side", "12", "--pred-iou-thresh", "0.2", "--out",
    ]  # fmt: skip


def test_coco(tmp_path: Path, command: list[str]) -> None:
    out = tmp_path / "all.json"
    assert run([*command, str(out), "--format", "coco"]) == 0
    annotations = json.loads(out.read_text())["annotations"]
    assert [each["area"] for each in annotations] == sorted(
        [each["area"] for each in annotations], reverse=True
    )
    decoded = [formats.coco_mask(each, 240, 320) for each in annotations]
    for name, truth in TRUTH.items():
        assert max(masks.iou(mask, truth) for mask in decoded) > 0.8, name


def test_overlay_has_no_prompts_on_it(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, str(tmp_path)]) == 0
    assert "a-overlay.png: " in capsys.readouterr().out
    drawn = np.asarray(Image.open(tmp_path / "a-overlay.png"))
    assert (drawn != IMAGE).any(axis=2).mean() > 0.2


def test_nothing_found(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run([*command, str(tmp_path), "--min-mask-region-area", "99999999", "--format", "ids"]) == 0
    )
    assert "nothing found" in capsys.readouterr().out
    assert formats.read_ids_png((tmp_path / "a-ids.png").read_bytes()) == []


def test_a_finder_that_is_not_there(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command[:5], "finder", "--finder", str(tmp_path / "none.onnx"), "--out"]
    assert run([*words, str(tmp_path)]) == 2
    assert "there are no weights at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "option", "value", "other"),
    [
        ("finder", "--points-per-side", "8", "grid"),
        ("grid", "--max-boxes", "40", "finder"),
        ("grid", "--objectness-thresh", "0.5", "finder"),
        ("grid", "--second-looks", "5", "finder"),
        ("grid", "--finder", "mine.onnx", "finder"),
    ],
)
def test_an_option_of_the_other_method_is_refused(
    capsys: pytest.CaptureFixture[str], method: str, option: str, value: str, other: str
) -> None:
    assert run(["everything", "none.png", "--method", method, option, value]) == 2
    printed = capsys.readouterr().err
    assert f"{method} does not use {option}: leave it out, or add --method {other}" in printed
    files = ["--images", "none", "--annotations", "none.json"]
    assert run(["proposals", *files, "--method", method, option, value]) == 2
    assert f"{method} does not use {option}" in capsys.readouterr().err
    assert run(["proposals", *files, "--method", method, "--against", other, option, value]) == 2
    assert "does not use" not in capsys.readouterr().err


def test_bad_images(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.png").write_bytes(b"no")
    assert run(["everything", str(tmp_path / "b.png"), *command[2:], str(tmp_path)]) == 2
    assert run([command[0], str(tmp_path / "b.png"), *command[1:], str(tmp_path)]) == 2
    assert "1 of 2 images left out" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_proposals(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycocotools")
    image = {"id": 1, "file_name": "a.png", "height": 240, "width": 320}
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": masks.rle_encode(mask)}
        for n, mask in enumerate(TRUTH.values(), 1)
    ]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(formats.coco_document([image], annotations)))
    result = tmp_path / "result.json"
    assert run([
        "proposals", "--images", str(tmp_path), "--annotations", str(truth), *command[2:10],
        "--json", str(result),
    ]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "AR@100" in printed
    assert "grid of boxes as prompts" in printed
    assert json.loads(result.read_text())["methods"]["everything"]["ar@100"] > 0.5


def test_a_folder_goes_on_where_it_stopped(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for name in ("a.png", "inner/b.png"):
        Image.fromarray(IMAGE).save(folder / name)
    (folder / "c.png").write_bytes(b"no")
    words = ["everything", str(folder), *command[2:-1]]
    out = tmp_path / "all.json"
    assert run([*words, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert "masks of 2 images" in captured.out
    assert "c.png" in captured.err
    document = json.loads(out.read_text())
    assert {each["file_name"] for each in document["images"]} == {"a.png", "inner/b.png"}
    assert run([*words, "--out", str(out)]) == 2
    assert "0 masks of 0 images, 2 done already" in capsys.readouterr().out
    assert run([*words, "--out", str(out), "--mask-nms-thresh", "0.5"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run([*words, "--out", str(tmp_path / "drawn")]) == 2
    drawn = np.asarray(Image.open(tmp_path / "drawn" / "inner" / "b-overlay.png"))
    alone = tmp_path / "alone"
    assert run([*command, str(alone)]) == 0
    assert np.array_equal(drawn, np.asarray(Image.open(alone / "a-overlay.png")))
