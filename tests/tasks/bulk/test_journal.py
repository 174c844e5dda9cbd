"""A run over a folder does again what differs, and replaces nothing that it did not write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.color import flat_scene, write_color_onnx
from PIL import Image

from picosam2.errors import ConfigError
from picosam2.prompts import Box, Point, Prompt
from picosam2.tasks.bulk.journal import _VERSION, JOURNAL
from picosam2.tasks.bulk.prompts import PromptSource
from picosam2.tasks.bulk.run import BulkResult, segment_many

pytest.importorskip("onnx")

PIXELS, TRUTH = flat_scene()
PLANTED = (
    '{"image": "a.png", "format": "cutout", "key": "", "size": %s, "stat": [0, 0], '
    '"files": {"%s": "0"}, "done": true}'
)
DISC, SQUARE, BAR = Point(80, 84), Point(224, 72), Point(160, 192)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_onnx(tmp_path_factory.mktemp("weights") / "color.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS).save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.fixture
def run(images: Path, tmp_path: Path, weights: Path) -> Any:
    def call(*points: Point, **options: Any) -> BulkResult:
        source = options.pop("source", None) or PromptSource.same([Prompt((p,)) for p in points])
        options = {"out": tmp_path / "out", "format": "cutout", "weights": str(weights), **options}
        return segment_many([images], source, workers=1, **options)

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != JOURNAL}


def test_other_prompts_are_done_again(run: Any, tmp_path: Path) -> None:
    run(DISC)
    first = contents(tmp_path / "out")
    again = run(DISC)
    assert (again.images, again.done_before) == (0, 2)
    assert contents(tmp_path / "out") == first
    other = run(SQUARE)
    assert (other.images, other.done_before, other.problems) == (2, 0, ())
    assert contents(tmp_path / "out").keys() == first.keys()
    assert contents(tmp_path / "out") != first


@pytest.mark.parametrize(
    ("change", "again"), [("flip", 2), ("tolerance", 2), ("weights", 2), ("image", 1), ("gone", 1)]
)
def test_what_differs_is_done_again(
    run: Any, tmp_path: Path, images: Path, weights: Path, change: str, again: int
) -> None:
    run(DISC)
    options: dict[str, Any] = {"flip": {"flip": True}, "tolerance": {"tolerance": 2.0}}.get(
        change, {}
    )
    if change == "weights":
        import onnx

        model = onnx.load(weights)
        model.producer_version = "other"
        onnx.save(model, tmp_path / "other.onnx")
        options = {"weights": str(tmp_path / "other.onnx")}
    elif change == "image":
        Image.fromarray(PIXELS[:, ::-1]).save(images / "a.png")
    elif change == "gone":
        (tmp_path / "out/b-cutout.png").unlink()
    assert run(DISC, **options).images == again
    assert run(DISC, **options).images == 0


def test_files_of_objects_that_are_no_more_go(run: Any, tmp_path: Path) -> None:
    run(DISC, SQUARE, BAR)
    assert len(contents(tmp_path / "out")) == 6
    (tmp_path / "out/a-cutout-3.png").write_bytes(b"edited")
    run(DISC, SQUARE)
    assert sorted(contents(tmp_path / "out")) == [
        "a-cutout-1.png", "a-cutout-2.png", "a-cutout-3.png",  # the third was edited: it stays
        "b-cutout-1.png", "b-cutout-2.png",
    ]  # fmt: skip


def test_an_image_that_was_half_done_is_done_again(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first of three files."""
    from picosam2.tasks.output_plan import OutputPlan

    real, count = OutputPlan.write, 0

    def stops(self: OutputPlan, path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count >= 2:
            raise KeyboardInterrupt
        real(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(OutputPlan, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            run(DISC, SQUARE, BAR)
    assert list(contents(tmp_path / "out")) == ["a-cutout-1.png"]
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes() + b'{"image": "b.p')  # killed while it wrote a line
    again = run(DISC, SQUARE, BAR)
    assert (again.images, again.problems) == (2, ())
    assert len(contents(tmp_path / "out")) == 6


def test_a_rerun_that_was_stopped_leaves_nothing_behind(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before a file is replaced, once for each image, and finished by the third run."""
    from picosam2.tasks.output_plan import OutputPlan

    def stops(*_: Any) -> None:
        raise KeyboardInterrupt

    run(DISC, SQUARE, BAR)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(OutputPlan, "write", stops)
            with pytest.raises(KeyboardInterrupt):
                run(BAR, DISC)
    again = run(BAR, DISC)
    assert (again.images, again.problems) == (2, ())
    assert sorted(contents(tmp_path / "out")) == [
        "a-cutout-1.png", "a-cutout-2.png", "b-cutout-1.png", "b-cutout-2.png",
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["json", "labelme", "yolo", "svg", "overlay"])
def test_a_file_of_somebody_else_is_kept(run: Any, tmp_path: Path, form: str) -> None:
    ending = {"yolo": ".txt", "svg": ".svg", "overlay": "-overlay.png"}.get(form, ".json")
    (tmp_path / "out").mkdir()
    (tmp_path / f"out/a{ending}").write_text("by hand")
    result = run(DISC, format=form)
    assert (tmp_path / f"out/a{ending}").read_text() == "by hand"
    assert result.images == 1
    assert "a.png: " in result.problems[0]
    assert "add --overwrite" in result.problems[0]
    assert run(DISC, format=form, overwrite=True).problems == ()
    assert (tmp_path / f"out/a{ending}").read_bytes() != b"by hand"


def test_corrections_by_hand_are_kept(run: Any, tmp_path: Path) -> None:
    run(DISC, format="labelme")
    edited = tmp_path / "out/a.json"
    document = json.loads(edited.read_text())
    document["shapes"][0]["label"] = "my own"
    edited.write_text(json.dumps(document))
    assert run(DISC, format="labelme").done_before == 2
    other = run(SQUARE, format="labelme")
    assert other.images == 1
    assert "was changed since" in other.problems[0]
    assert "my own" in edited.read_text()


def test_another_format_replaces_what_a_run_wrote(run: Any, tmp_path: Path) -> None:
    run(DISC, format="json")
    assert run(DISC, format="labelme").images == 2
    assert "shapes" in json.loads((tmp_path / "out/a.json").read_text())
    assert run(DISC, format="json").images == 2
    assert "masks" in json.loads((tmp_path / "out/a.json").read_text())


def test_labels_that_were_edited_in_a_folder_of_boxes(run: Any, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("a", "b"):
        (labels / f"{name}.txt").write_text("0 0.25 0.35 0.3 0.4\n")
    source = PromptSource.of_boxes(labels, "yolo")
    assert run(source=source).images == 2
    (labels / "b.txt").write_text("0 0.7 0.3 0.3 0.4\n")
    assert run(source=PromptSource.of_boxes(labels, "yolo")).images == 1
    one_file = {"out": tmp_path / "all.json", "format": "coco"}
    assert run(source=PromptSource.of_boxes(labels, "yolo"), **one_file).images == 2
    (labels / "a.txt").write_text("0 0.7 0.3 0.3 0.4\n")
    with pytest.raises(ConfigError, match="other prompts"):
        run(source=PromptSource.of_boxes(labels, "yolo"), **one_file)


def test_the_users_own_classes_file_is_kept(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/classes.txt").write_text("cat\ndog\n")
    result = run(DISC, format="yolo")
    assert "classes.txt was not written by this command" in result.problems[0]
    assert (tmp_path / "out/classes.txt").read_text() == "cat\ndog\n"


@pytest.mark.parametrize(
    "text",
    [
        "{}\n",
        "no json\n",
        '{"picosam2_journal": 9}\n',
        "[" * 9999 + "\n",
        f'{{"picosam2_journal": {_VERSION}}}\n{PLANTED % ("[1, 1]", "../own.png")}\n',
        f'{{"picosam2_journal": {_VERSION}}}\n{PLANTED % ("[Infinity, 1]", "a.png")}\n',
    ],
)
def test_a_file_that_is_no_journal(run: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_text(text)
    with pytest.raises(ConfigError, match="is not a journal"):
        run(DISC)


def test_linked_folders_are_entered(run: Any, tmp_path: Path, images: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(PIXELS).save(elsewhere / "c.png")
    (images / "linked").symlink_to(elsewhere)
    (images / "loop").symlink_to(images)
    (images / "broken.png").symlink_to(tmp_path / "nothing.png")
    (images / "self.png").symlink_to(images / "self.png")
    result = run(DISC)
    assert result.images == 3
    assert (tmp_path / "out/linked/c-cutout.png").exists()
    itself, broken = result.problems
    assert "self.png: it cannot be read" in itself
    assert broken.startswith("broken.png: it is a link to")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other limits")
@pytest.mark.parametrize("length", [245, 251, 230])
def test_a_long_name_is_one_images_problem(
    run: Any, tmp_path: Path, images: Path, length: int
) -> None:
    Image.fromarray(PIXELS).save(images / ("x" * (length - 4) + ".png"))
    result = run(DISC)
    assert result.images == (2 if length == 251 else 3)
    if length == 251:
        assert len(result.problems) == 1
        assert "name" in result.problems[0]
    assert np.asarray(Image.open(tmp_path / "out/a-cutout.png")).shape == (240, 320, 4)


def test_boxes_that_cannot_be_used_are_named_again(run: Any) -> None:
    source = PromptSource.same([Prompt((DISC,)), Prompt(box=Box(900, 900, 950, 950))])
    assert len(run(source=source).problems) == 2
    again = run(source=source)
    assert (again.done_before, len(again.problems)) == (2, 2)
