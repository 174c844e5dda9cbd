"""`picosam2 teach`: a tiny random SAM 2 through every command from images to a cache."""

from __future__ import annotations

import json
from pathlib import Path
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
    assert "1 parts written, 0 were there already" in trial.out
    assert "3 objects of 3 images, 1 of 2 parts" in trial.out
    done = cli(*words(folder, f"sam2:{sam2}", out, *more))
    assert done.code == 0, done.err
    assert "1 parts written, 1 were there already" in done.out
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
    assert "1 parts written" in runs[0].out
    assert "objects of" not in runs[0].out
    assert "2 of 2 parts" in runs[1].out
    assert "3/3 images" in runs[0].err
    assert runs[1].err == ""  # one speaks


def test_problems_are_named(cli: Any, tiny_safetensors: Path, tmp_path: Path) -> None:
    make_store(tmp_path, 3)
    (tmp_path / "shapes-images" / "001.png").write_text("no image any more")
    done = cli(*words(tmp_path, f"checkpoint:{tiny_safetensors}", tmp_path / "cache"))
    assert done.code == 0
    assert "1 images could not be shown to the teacher:\n  image 001.png: " in done.err
    assert "1 objects have no usable answer" in done.out


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
