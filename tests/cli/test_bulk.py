"""`picosam2 segment` over folders: every source of prompts, every output, stopping and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.color import flat_scene, write_color_onnx
from PIL import Image

from picosam2 import masks
from picosam2.cli.main import run
from picosam2.io import formats
from picosam2.tasks.bulk import coco
from picosam2.tasks.bulk.images import Job
from picosam2.tasks.bulk.journal import JOURNAL
from picosam2.tasks.bulk.run import _Work

pytest.importorskip("onnx")

IMAGE, TRUTH = flat_scene()
POINTS = {"disc": [80, 84], "square": [224, 72], "bar": [160, 192]}
BOXES = {name: masks.bbox(mask) for name, mask in TRUTH.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_onnx(tmp_path_factory.mktemp("weights") / "color.onnx")


@pytest.fixture
def annotated(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        Image.fromarray(IMAGE).save(folder / name)
    return folder


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def prompts_for(*images: str) -> list[dict[str, Any]]:
    return [
        {"image": image, "points": [point], "class": name}
        for image in images
        for name, point in POINTS.items()
    ]


def detections() -> dict[str, Any]:
    """A detector's result: the three boxes in a.png, one in c.png, with ids of its own."""
    where = [("disc", 40), ("square", 40), ("bar", 40), ("disc", 90)]
    boxes = [
        (*BOXES[name][:2], *np.subtract(BOXES[name][2:], BOXES[name][:2])) for name, _ in where
    ]
    return {
        "images": [
            {"id": 40, "file_name": "a.png", "height": 240, "width": 320},
            {"id": 90, "file_name": "c.png", "height": 240, "width": 320},
        ],
        "categories": [{"id": 7, "name": "disc"}, {"id": 9, "name": "other"}],
        "annotations": [
            {
                "id": 100 + number,
                "image_id": image,
                "category_id": 7 if name == "disc" else 9,
                "bbox": [float(v) for v in box],
                "score": 0.5,
            }
            for number, ((name, image), box) in enumerate(zip(where, boxes, strict=True))
        ],
    }


def coco_masks(path: Path) -> dict[str, list[np.ndarray]]:
    document = json.loads(path.read_text())
    names = {entry["id"]: entry["file_name"] for entry in document["images"]}
    collected: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
    for entry in document["annotations"]:
        collected[names[entry["image_id"]]].append(formats.coco_mask(entry, 240, 320))
    return collected


def test_boxes_become_masks(tmp_path: Path, annotated: Path, weights: Path) -> None:
    boxes, out = write(tmp_path / "detections.json", detections()), tmp_path / "masks.json"
    assert run([
        "segment", str(annotated), "--boxes", str(boxes), "--format", "coco", "--out", str(out),
        "--weights", str(weights),
    ]) == 0  # fmt: skip
    document = json.loads(out.read_text())
    assert [entry["id"] for entry in document["images"]] == [40, 90]
    assert [entry["file_name"] for entry in document["images"]] == ["a.png", "sub/c.png"]
    assert [entry["id"] for entry in document["annotations"]] == [100, 101, 102, 103]
    assert [entry["category_id"] for entry in document["annotations"]] == [7, 9, 9, 7]
    assert all(entry["prompt_score"] == 0.5 for entry in document["annotations"])
    for mask, truth in zip(coco_masks(out)["a.png"], TRUTH.values(), strict=True):
        assert masks.iou(mask, truth) > 0.9
    assert not out.with_name("masks.json.part").exists()


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_prompt_files(tmp_path: Path, annotated: Path, weights: Path, kind: str) -> None:
    entries = prompts_for("a.png", "sub/c.png")
    rows = [f"{e['image']},{e['points'][0][0]},{e['points'][0][1]}" for e in entries]
    content = entries if kind == "json" else "\n".join(["image,x,y", *rows])
    prompts, out = write(tmp_path / f"p.{kind}", content), tmp_path / "out"
    command = [
        "segment", str(annotated), "--prompts", str(prompts), "--out", str(out), "--format", "ids",
        "--weights", str(weights),
    ]  # fmt: skip
    assert run(command) == 0
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.png")) == [
        "a-ids.png", "sub/c-ids.png",
    ]  # fmt: skip
    read_back = formats.read_ids_png((out / "a-ids.png").read_bytes())
    for mask, truth in zip(read_back, TRUTH.values(), strict=True):
        assert masks.iou(mask, truth) > 0.8


def test_what_is_done_is_left_out(
    tmp_path: Path, annotated: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write(tmp_path / "p.json", prompts_for("a.png", "b.png"))
    command = [
        "segment", str(annotated), "--prompts", str(prompts), "--out", str(tmp_path / "out"),
        "--weights", str(weights),
    ]  # fmt: skip
    assert run(command) == 0
    first = (tmp_path / "out/a-overlay.png").stat().st_mtime_ns
    (tmp_path / "out/b-overlay.png").unlink()
    capsys.readouterr()
    assert run(command) == 0
    assert "3 masks of 1 image, 1 done already" in capsys.readouterr().out
    assert (tmp_path / "out/a-overlay.png").stat().st_mtime_ns == first
    assert run([*command, "--overwrite"]) == 0
    assert (tmp_path / "out/a-overlay.png").stat().st_mtime_ns > first


def test_images_written_among_the_images_are_none_of_them(
    annotated: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "segment", str(annotated), "--point", "80,84", "--out", str(annotated / "masks"),
        "--weights", str(weights),
    ]  # fmt: skip
    assert run(command) == 0
    assert run(command) == 0
    assert "0 images, 3 done already" in capsys.readouterr().out


def test_a_stopped_run_goes_on(
    tmp_path: Path, annotated: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, out = (
        write(tmp_path / "p.json", prompts_for("a.png", "b.png", "sub/c.png")),
        "masks.json",
    )
    command = [
        "segment", str(annotated), "--prompts", str(prompts), "--out", str(tmp_path / out),
        "--weights", str(weights), "--threads", "1",
    ]  # fmt: skip
    real = _Work.segment

    def stops(self: _Work, job: Job) -> Any:
        if job.name == "b.png":
            raise KeyboardInterrupt
        return real(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(_Work, "segment", stops)
        assert run(command) == 130
    part = tmp_path / (out + coco.PART)
    lines = part.read_text().splitlines()
    assert json.loads(lines[1])["name"] == "a.png"
    part.write_text("\n".join(lines[:2]) + '\n{"name": "b.p')  # killed while it wrote

    seen: list[str] = []

    def watched(self: _Work, job: Job) -> Any:
        seen.append(job.name)
        return real(self, job)

    monkeypatch.setattr(_Work, "segment", watched)
    assert run(command) == 0
    assert seen == ["b.png", "sub/c.png"]
    assert list(coco_masks(tmp_path / out)) == ["a.png", "b.png", "sub/c.png"]
    seen.clear()
    before = (tmp_path / out).read_bytes()
    assert run(command) == 0
    assert seen == []
    assert (tmp_path / out).read_bytes() == before


@pytest.mark.parametrize("form", ["coco", "coco-polygons", "labelme", "svg", "yolo", "mask"])
def test_a_run_that_has_nothing_left_to_do_changes_no_byte(
    tmp_path: Path, annotated: Path, weights: Path, form: str
) -> None:
    out = tmp_path / "out"
    command = ["segment", str(annotated), "--box", "40,44,120,124", "--format", form,
               "--out", str(out), "--weights", str(weights)]  # fmt: skip
    contents = []
    for _ in range(2):
        assert run(command) == 0
        written = [path for path in out.rglob("*") if path.is_file() and path.name != JOURNAL]
        contents.append({path: path.read_bytes() for path in written})
    assert contents[0] == contents[1]
    assert contents[0]


def test_another_run_does_not_mix_in(
    tmp_path: Path, annotated: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks.json"
    command = ["segment", str(annotated), "--out", str(out), "--weights", str(weights)]
    assert run([*command, "--point", "80,84"]) == 0
    assert run([*command, "--point", "224,72"]) == 2
    assert "other prompts" in capsys.readouterr().err
    assert run([*command, "--point", "80,84", "--flip"]) == 2
    assert "other prompts" in capsys.readouterr().err
    assert run([*command, "--point", "224,72", "--overwrite"]) == 0
    out.write_text('{"images": []}')
    assert run([*command, "--point", "224,72"]) == 2
    assert "no result of this command" in capsys.readouterr().err


def test_bad_images_and_prompts_are_named_at_the_end(
    tmp_path: Path, annotated: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (annotated / "broken.jpg").write_bytes(b"no image")
    entries = [
        *prompts_for("a.png", "broken.jpg", "gone.png"),
        {"image": "b.png", "points": [[9999, 5]], "object": "far"},
        {"image": "b.png", "box": [200, 20, 700, 130]},
    ]
    prompts = write(tmp_path / "p.json", entries)
    out = tmp_path / "masks.json"
    assert run([
        "segment", str(annotated), "--prompts", str(prompts), "--out", str(out),
        "--weights", str(weights),
    ]) == 2  # fmt: skip
    printed = capsys.readouterr().err
    assert "left out (3)" in printed
    for text in (
        "broken.jpg: ",
        "gone.png: there is no such image",
        "b.png, object far: the point",
    ):
        assert text in printed
    assert {name: len(actual) for name, actual in coco_masks(out).items()} == {
        "a.png": 3,
        "b.png": 1,
    }


@pytest.mark.parametrize(
    ("form", "files"),
    [
        ("overlay", ["a-overlay.png"]),
        ("mask", ["a-mask-1.png", "a-mask-2.png", "a-mask-3.png"]),
        ("cutout", ["a-cutout-1.png", "a-cutout-2.png", "a-cutout-3.png"]),
        ("json", ["a.json"]),
        ("indexed", ["a-indexed.png"]),
        ("svg", ["a.svg"]),
        ("yolo", ["a.txt", "classes.txt"]),
        ("labelme", ["a.json"]),
        ("coco-polygons", ["masks.json"]),
    ],
)
def test_every_format(
    tmp_path: Path, annotated: Path, weights: Path, form: str, files: list[str]
) -> None:
    prompts = write(tmp_path / "p.json", prompts_for("a.png"))
    command = [
        "segment", str(annotated), "--prompts", str(prompts), "--out", str(tmp_path / "out"),
        "--format", form, "--weights", str(weights), "--tolerance", "0",
    ]  # fmt: skip
    assert run(command) == 0
    assert run(command) == 0
    out = tmp_path / "out"
    journal = [] if form == "coco-polygons" else [JOURNAL]
    assert sorted(path.name for path in out.iterdir()) == [*journal, *files]
    if form == "yolo":
        read_back = formats.read_yolo((out / "a.txt").read_text(), 240, 320)
        assert [each.label for each in read_back] == ["1", "2", "0"]
        assert (out / "classes.txt").read_text().split() == ["bar", "disc", "square"]
    elif form == "labelme":
        document = json.loads((out / "a.json").read_text())
        assert document["imagePath"] == "../photos/a.png"
        assert [each.label for each in formats.read_labelme(document)] == list(TRUTH)
    elif form == "coco-polygons":
        assert masks.iou(coco_masks(out / files[0])["a.png"][0], TRUTH["disc"]) > 0.8


def test_round_trip_through_labelme_and_yolo(
    tmp_path: Path, annotated: Path, weights: Path
) -> None:
    """What one run writes another takes for boxes."""
    prompts = write(tmp_path / "p.json", prompts_for("a.png", "b.png"))
    for form in ("labelme", "yolo"):
        folder = tmp_path / form
        common = ["segment", str(annotated), "--weights", str(weights)]
        assert (
            run([*common, "--prompts", str(prompts), "--out", str(folder), "--format", form]) == 0
        )
        out = tmp_path / f"{form}.json"
        assert run([*common, "--boxes", str(folder), "--out", str(out)]) == 0
        names = {entry["name"] for entry in json.loads(out.read_text())["categories"]}
        assert names == {"bar", "disc", "square"}
        assert len(coco_masks(out)["b.png"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompts", "p.json", "--boxes", "p.json"], "not both"),
        (["--prompts", "p.json", "--point", "1,2"], "not several"),
        (["--prompts", "p.json", "--multimask"], "--multimask"),
        (["--prompts", "p.json", "--out", "x.png"], "give --out a folder"),
        (["--prompts", "p.json", "--out", "x.png", "--format", "coco"], "end it in .json"),
        (["--prompts", "p.json", "--out", "-"], "standard output"),
        (["--prompts", "p.json", "--out", "photos"], "another folder"),
        (["--prompts", "elsewhere.json"], "no image is named"),
        ([], "nothing is pointed at"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    annotated: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.json", prompts_for("a.png"))
    write(tmp_path / "elsewhere.json", prompts_for("z.png"))
    assert run(["segment", "photos", "--weights", str(weights), *options]) == 2
    assert message in capsys.readouterr().err


def test_images_without_a_folder_and_names_that_clash(
    tmp_path: Path, annotated: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = write(tmp_path / "p.json", prompts_for("a.png"))
    tail = ["--prompts", str(prompts), "--weights", str(weights), "--out", str(tmp_path / "o")]
    assert run(["segment", str(annotated / "a.png"), *tail]) == 0
    assert run(["segment", str(annotated / "no.png"), *tail]) == 2
    (tmp_path / "empty").mkdir()
    assert run(["segment", str(tmp_path / "empty"), *tail]) == 2
    assert run(["segment", str(annotated), str(annotated / "a.png"), *tail]) == 2
    Image.fromarray(IMAGE).save(annotated / "a.jpg")
    assert run(["segment", str(annotated), *tail]) == 2
    printed = capsys.readouterr().err
    assert "no image in" in printed
    assert "have one name" in printed
    assert "would both be written" in printed
