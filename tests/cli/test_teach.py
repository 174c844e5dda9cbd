"""`picosam2 teach`: a tiny random SAM 2 through every command from images to a cache."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.tiny import make_store, write_coco

pytest.importorskip("torch", reason="teachers run in torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with annotations and their store: six images, three a part."""
    path = tmp_path_factory.mktemp("teach")
    make_store(path, 6)
    return path


@pytest.fixture(scope="module")
def sam2(folder: Path) -> Path:
    """A folder with a tiny random SAM 2."""
    pytest.importorskip("transformers", reason="needs the extra sam2")
    from helpers.sam import tiny_sam2

    tiny_sam2().save_pretrained(folder / "sam2")
    return folder / "sam2"


def words(folder: Path, teacher: str, out: Path, *more: object) -> tuple[object, ...]:
    source = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    return (
        "teach", "--teacher", teacher, "--store", folder / "store", *source, "--out", out,
        "--device", "cpu", *more,
    )  # fmt: skip


def test_from_sam2_to_a_cache(cli: Any, folder: Path, sam2: Path, tmp_path: Path) -> None:
    from picosam2.data.store import Store
    from picosam2.distillation.cache import UNSEEN, TeacherCache

    out = tmp_path / "cache"
    more = ("--prompt", "both", "--choose", "truth", "--agree", 0.3)
    trial = cli(*words(folder, f"sam2:{sam2}", out, *more, "--limit-shards", 1))
    assert trial.code == 0, trial.err
    assert "1 part written, 0 there already" in trial.out
    assert "3 objects of 3 images, 1 of 2 parts" in trial.out
    done = cli(*words(folder, f"sam2:{sam2}", out, *more))
    assert done.code == 0, done.err
    assert "1 part written, 1 there already" in done.out
    assert "6 objects of 6 images, 2 of 2 parts" in done.out
    assert "6/6 images, " in done.err
    assert done.err.rstrip().endswith("images/s, 0:00:00 left")
    store = Store(folder / "store")
    cache = TeacherCache(out, store, verify=True)
    assert cache.teacher["name"] == f"sam2:{sam2}"
    assert (cache.teacher["prompt"], cache.teacher["choose"]) == ("both", "truth")
    assert cache.records["valid"].all()
    np.testing.assert_array_equal(cache.records["agrees"], cache.records["iou"] >= 0.3)
    logits = cache.gather(np.arange(len(cache)))
    seen = logits != UNSEEN
    assert 0.3 < seen.mean() < 1
    assert logits[seen].astype(float).std() > 1
    report = json.loads((out / "report.json").read_text())
    assert report["objects"] == 6
    assert {path.stem for path in out.glob("*.png")} == {"histogram", "best", "worst", "disputed"}
    refusal = cli(*words(folder, f"sam2:{sam2}", out, "--choose", "truth", "--agree", 0.3))
    assert refusal.code == 2
    assert "(both, truth; " in refusal.err
    assert "(box, truth; " in refusal.err


def test_from_sam2_to_a_student(cli: Any, folder: Path, sam2: Path, tmp_path: Path) -> None:
    """Teach, learn a few steps from the cache, and use what came of it."""
    from picosam2.models.checkpoint import read_tensors

    cache, out = tmp_path / "cache", tmp_path / "run"
    assert cli(*words(folder, f"sam2:{sam2}", cache, "--agree", 0)).code == 0
    training = (
        "train", "--recipe", "debug", "--store", folder / "store", "--out", out, "--no-validate",
        "--device", "cpu", "--set", "train.samples=32", "--set", "train.batch=8",
        "--set", "train.log_every=1", "--set", "distill.confidence=predicted",
    )  # fmt: skip
    done = cli(*training, "--teacher", cache)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert all(line["teacher"] > 0 for line in rows)
    assert all(0 < line["teacher_weight"] < 1 for line in rows)
    weights = out / "weights.safetensors"
    assert read_tensors(weights).info["teacher"]["prompt"] == "box"
    image = folder / "shapes-images" / "000.png"
    made = cli("segment", image, "--box", "20,20,70,60", "--weights", weights, "--out", tmp_path)
    assert made.code == 0, made.err
    assert (tmp_path / "000-overlay.png").exists()
    again = cli(*training, "--resume")
    assert again.code == 2
    assert "taught by another teacher's cache, or by none" in again.err
    stranger = cli(*training, "--teacher", folder / "store")
    assert stranger.code == 2
    assert "is not a teacher cache" in stranger.err


def test_a_checkpoint_teaches(
    cli: Any, folder: Path, tiny_safetensors: Path, tmp_path: Path
) -> None:
    spec = f"checkpoint:{tiny_safetensors}"
    done = cli(*words(folder, spec, tmp_path / "cache", "--precision", "fp32"))
    assert done.code == 0, done.err
    assert f"{spec}: 6 objects of 6 images, 2 of 2 parts" in done.out


def test_processes_of_torchrun(
    cli: Any, folder: Path, tiny_safetensors: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    runs = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        runs.append(cli(*words(folder, f"checkpoint:{tiny_safetensors}", tmp_path / "cache")))
    assert [done.code for done in runs] == [0, 0]
    assert "1 part written" in runs[0].out
    assert "objects of" not in runs[0].out
    assert "2 of 2 parts" in runs[1].out
    assert "3/3 images" in runs[0].err
    assert runs[1].err == ""  # one speaks


def test_problems_are_named(cli: Any, tiny_safetensors: Path, tmp_path: Path) -> None:
    make_store(tmp_path, 3)
    (tmp_path / "shapes-images" / "001.png").write_text("no image any more")
    done = cli(*words(tmp_path, f"checkpoint:{tiny_safetensors}", tmp_path / "cache"))
    assert done.code == 0
    assert "images that could not be shown to the teacher (1):\n  image 001.png: " in done.err
    assert "1 object without a usable answer" in done.out


def test_what_is_refused(
    refused: Any, folder: Path, tiny_safetensors: Path, tmp_path: Path
) -> None:
    spec, out = f"checkpoint:{tiny_safetensors}", tmp_path / "cache"
    assert "names no teacher" in refused(*words(folder, "sam9:x", out))
    assert "no weights at" in refused(*words(folder, f"checkpoint:{tmp_path}/x.safetensors", out))
    assert "answers boxes" in refused(*words(folder, spec, out, "--prompt", "point"))
    nothing = ("teach", "--teacher", spec, "--store", folder / "store", "--out", out)
    assert "nothing to teach about: add --coco FILE DIR" in refused(*nothing)
    other = write_coco(tmp_path, 2)
    assert "is not a crop store" in refused(*words(tmp_path, spec, out))
    more = ("--coco", other.annotations, other.images)
    assert "was not made from" in refused(*words(folder, spec, out, *more))
    (out / "cache.json").write_text("{}")
    assert "has another format" in refused(*words(folder, spec, out))


def test_a_model_of_the_wrong_kind(refused: Any, folder: Path, sam2: Path, tmp_path: Path) -> None:
    message = refused(*words(folder, f"sam:{sam2}", tmp_path / "cache"))
    assert f"holds a model of type sam2: say sam2:{sam2}" in message
    assert "holds no model" in refused(*words(folder, f"sam2:{folder}", tmp_path / "cache"))


def test_without_a_network(
    refused: Any, folder: Path, sam2: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refused(*words(folder, "sam2:facebook/sam2.1-hiera-tiny", tmp_path / "cache"))
    assert "there is no folder facebook/sam2.1-hiera-tiny, and no model of that name" in message


# --- what nobody annotated ----------------------------------------------------------------------


@pytest.fixture
def patch_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finder of colored patches instead of the shipped one."""
    from helpers.box_finder import PatchFinder

    finder: Any = PatchFinder()
    finder.info = SimpleNamespace(weights_sha256="0" * 64)
    monkeypatch.setattr("picosam2.runtimes.finder.opened_finder", lambda: finder)


@pytest.fixture
def color_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that goes by color, whatever is asked for."""
    from helpers.dense_tiny import ColorTeacher

    monkeypatch.setattr("picosam2.distillation.teachers.open_teacher", lambda *_: ColorTeacher())


def dense_words(out: Path, *more: object, teacher: str = "checkpoint:x") -> tuple[object, ...]:
    return ("teach", "--dense", "--teacher", teacher, "--out", out, "--device", "cpu", *more)


@pytest.mark.usefixtures("patch_finder", "color_teacher")
def test_from_images_to_a_store_and_a_student(cli: Any, tmp_path: Path) -> None:
    """Two sources and a folder; the store has both kinds, and training draws from both."""
    from helpers.dense_tiny import write_images, write_source

    from picosam2.data.store import Store

    source = write_source(tmp_path, 5)
    evaluated = write_images(tmp_path / "evaluated", 1, start=2)
    loose = write_images(tmp_path / "loose", 2, start=6)
    patches = ("--source", "patches", source.annotations, source.images)
    out = tmp_path / "dense"
    more = (*patches, "--images", loose, "--exclude", evaluated)
    done = cli(*dense_words(out, *more))
    assert done.code == 0, done.err
    assert "1 part written, 0 there already" in done.out
    assert "14 new masks in 6 images" in done.out
    assert "7/7 images, " in done.err
    assert "images or annotations left out (1):\n  image 002.png: shows what" in done.err
    files = [out / "annotations" / "patches.json", out / "annotations" / "loose.json"]
    for file, images in zip(files, (source.images, loose), strict=True):
        assert f"    --source dense-{file.stem} {file} {images}\n" in done.out
    assert {path.name for path in out.glob("*.png")} == {"confidence.png", "masks.png"}
    again = cli(*dense_words(out, *more))
    assert "0 parts written, 1 there already" in again.out
    store = tmp_path / "store"
    taken = ("--source", "dense", files[0], source.images, "--source", "loose", files[1], loose)
    made = cli("data", "prepare", *patches, *taken, "--context", 64, "--out", store)
    assert made.code == 0, made.err
    assert Store(store).source_names == ("dense-loose", "dense-patches", "patches")
    measured = tmp_path / "measured.json"
    leak = cli(
        "eval", "--weights", "default-int8", "--protocol", "box", "--images", loose,
        "--annotations", files[1], "--check-leak", store, "--json", measured,
    )  # fmt: skip
    assert leak.code == 0, leak.err
    assert "2 of the 2 images measured on are in the training store" in leak.err + leak.out
    trained = cli(
        "train", "--recipe", "debug", "--store", store, "--out", tmp_path / "run",
        "--no-validate", "--device", "cpu", "--set", "train.samples=16", "--set", "train.batch=8",
        "--set", "train.sources={dense-loose=0.5}",
    )  # fmt: skip
    assert trained.code == 0, trained.err


@pytest.mark.usefixtures("patch_finder", "color_teacher")
def test_an_evaluated_set_alone_gives_nothing(cli: Any, tmp_path: Path) -> None:
    from helpers.dense_tiny import write_images

    loose = write_images(tmp_path / "loose", 2)
    done = cli(*dense_words(tmp_path / "d", "--images", loose, "--exclude", loose))
    assert done.code == 0
    assert done.out.endswith("0 new masks in 0 images\n")
    assert "images or annotations left out (2):" in done.err
    assert not (tmp_path / "d" / "annotations").exists()


@pytest.mark.usefixtures("patch_finder", "color_teacher")
def test_dense_processes_of_torchrun(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers.dense_tiny import write_images

    loose = write_images(tmp_path / "loose", 33)
    monkeypatch.setenv("WORLD_SIZE", "2")
    results = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        results.append(cli(*dense_words(tmp_path / "dense", "--images", loose)))
    assert [done.code for done in results] == [0, 0]
    assert [done.out.count("new masks") for done in results] == [0, 1]
    assert "99 new masks in 33 images" in results[1].out
    assert results[1].err == ""


@pytest.mark.usefixtures("patch_finder")
def test_a_checkpoint_teaches_dense(cli: Any, tiny_onnx: Path, tmp_path: Path) -> None:
    from helpers.dense_tiny import write_images

    loose = write_images(tmp_path / "loose", 1)
    spec = f"checkpoint:{tiny_onnx}"
    words = dense_words(tmp_path / "d", "--images", loose, "--confidence", 0, teacher=spec)
    done = cli(*words)
    assert done.code == 0, done.err
    assert "1 part written" in done.out
    other = ("--images", loose, "--confidence", 0.3)
    refusal = cli(*dense_words(tmp_path / "d", *other, teacher=spec))
    assert refusal.code == 2
    assert "holds dense masks with other settings: choose another folder" in refusal.err


@pytest.mark.usefixtures("patch_finder")
def test_a_sam_pair_teaches_dense(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="writes its own model with onnx")
    from helpers.dense_tiny import write_images
    from helpers.sam_onnx import write_sam_onnx

    loose = write_images(tmp_path / "loose", 1)
    pair = write_sam_onnx(tmp_path / "sam")
    done = cli(*dense_words(tmp_path / "d", "--images", loose, teacher=f"onnx:{pair}"))
    assert done.code == 0, done.err
    (pair / "decoder.onnx").replace(pair / "sam.onnx")  # as another package names it
    refusal = cli(*dense_words(tmp_path / "e", "--images", loose, teacher=f"onnx:{pair}"))
    assert refusal.code == 2
    assert "decoder.onnx: check the path, or give onnx:ENCODER,DECODER" in refusal.err
    named = f"onnx:{pair / 'encoder.onnx'},{pair / 'sam.onnx'}"
    assert cli(*dense_words(tmp_path / "d", "--images", loose, teacher=named)).code == 0
    (pair / "encoder.onnx").write_bytes((pair / "sam.onnx").read_bytes())
    (pair / "sam.onnx").replace(pair / "decoder.onnx")
    refusal = cli(*dense_words(tmp_path / "e", "--images", loose, teacher=f"onnx:{pair}"))
    assert refusal.code == 2
    assert "is no encoder of SAM: it must take" in refusal.err
    assert not (tmp_path / "e").exists()


@pytest.fixture
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs time fails: opening teachers, finders and stores, and reading annotations."""

    def fail(*_args: object, **_options: object) -> None:
        raise AssertionError("something that costs time was begun")

    for name in (
        "picosam2.distillation.teachers.open_teacher",
        "picosam2.runtimes.finder.opened_finder",
        "picosam2.distillation.dense.read_annotations",
        "picosam2.data.store.Store.__init__",
    ):
        monkeypatch.setattr(name, fail)


@pytest.mark.usefixtures("nothing_is_opened")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--out d --coco shapes.json shapes-images", "give either --store STORE, to ask about"),
        ("--dense --store s --out d --images shapes-images", "give either --store STORE"),
        ("--dense --out d", "there is nothing to teach about: add --images DIR, --coco"),
        ("--dense --out d --images gone", "the image folder gone does not exist"),
        ("--dense --out d --images empty", "there is no image in empty"),
        ("--dense --out d --images shapes.json", "the image folder shapes.json does not exist"),
        ("--dense --out d --images shapes-images --exclude gone", "the image folder gone does"),
        ("--dense --out d --images shapes-images --images shapes-images", "two sources are named"),
        ("--dense --out d --source ../x shapes.json shapes-images", "go to a file of its name"),
        ("--dense --out d --coco gone.json shapes-images", "file gone.json does not exist"),
        ("--dense --out store --images shapes-images", "holds no dense masks: choose another"),
        ("--dense --out shapes.json --images shapes-images", "shapes.json is not a folder"),
        ("--dense --out d --images shapes-images --limit-shards 1", "--limit-shards goes with"),
        ("--dense --out d --images shapes-images --prompt point", "--prompt goes with --store"),
        ("--dense --out d --images shapes-images --choose truth", "--choose goes with --store"),
        ("--dense --out d --images shapes-images --agree 0.7", "--agree goes with --store"),
        ("--store s --out d --images shapes-images", "--images goes with --dense: leave it out"),
        ("--store s --out d --exclude shapes-images", "--exclude goes with --dense"),
        ("--store s --out d --confidence 0.6", "--confidence goes with --dense"),
        ("--store s --out d --boxes 9", "--boxes goes with --dense"),
        ("--dense --out d --images shapes-images --confidence 2", "--confidence"),
        ("--dense --out d --images shapes-images --boxes 0", "--boxes"),
    ],
)  # fmt: skip
def test_arguments_are_checked_before_anything_costs_time(
    refused: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str,
    says: str,
) -> None:  # fmt: skip
    for name in ("store", "shapes.json", "shapes-images"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert says in refused("teach", "--teacher", "checkpoint:x", *words.split())
    assert not (tmp_path / "d").exists()


@pytest.mark.usefixtures("patch_finder", "color_teacher")
def test_dense_masks_are_no_store_and_no_cache(
    refused: Any, cli: Any, folder: Path, tmp_path: Path
) -> None:
    from helpers.dense_tiny import write_images

    dense = tmp_path / "dense"
    assert cli(*dense_words(dense, "--images", write_images(tmp_path / "i", 1))).code == 0
    shapes = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    as_store = ("teach", "--teacher", "checkpoint:x", "--store", dense, *shapes)
    assert "is not a crop store" in refused(*as_store, "--out", tmp_path / "c")
    assert "holds no cache: choose another folder" in refused(*words(folder, "checkpoint:x", dense))
    training = ("train", "--recipe", "debug", "--device", "cpu", "--out", tmp_path / "run")
    assert "is not a crop store" in refused(*training, "--store", dense)
    as_cache = (*training, "--store", folder / "store", "--teacher", dense)
    assert "is not a teacher cache" in refused(*as_cache)
