"""From images and masks to a mask, with every command on the way, on images made here."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from helpers.tiny import write_coco
from PIL import Image

pytest.importorskip("torch", reason="trains with torch")

FIELDS = {
    "protocol", "dataset", "n", "miou", "miou_ci95", "hit_rate", "by_size", "baselines",
    "ms_per_prompt", "weights_sha256",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images of one disc each with COCO annotations, one of them not an image."""
    path = tmp_path_factory.mktemp("pipeline")
    write_coco(path, 10)
    (path / "shapes-images" / "003.png").write_text("not an image")
    return path


@pytest.fixture(scope="module")
def run():
    from picosam2.cli.main import run

    return lambda *words: run([str(word) for word in words])


@pytest.fixture(scope="module")
def store(folder, run):
    source = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    words = ("--context", 64, "--validation", 0.4, "--workers", 1, "--out", folder / "store")
    assert run("data", "prepare", *source, *words) == 0
    return folder / "store"


TRAINING = (
    "train", "--recipe", "debug", "--device", "cpu",
    "--set", "train.samples=64", "--set", "train.batch=8", "--set", "train.validate_every=4",
    "--set", "train.log_every=2", "--set", "train.validation_photos=2",
    "--set", "train.save_every=4", "--set", "model.widths=[4, 8]", "--set", "model.input_size=32",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(folder, store, run):
    assert run(*TRAINING, "--store", store, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def onnx(folder, trained, run):
    pytest.importorskip("onnx")
    out = folder / "tiny.onnx"
    assert run("export", "onnx", "--weights", trained / "weights.safetensors", "--out", out) == 0
    return out


def measured(folder, onnx, *words):
    return (
        "eval", "--weights", onnx, "--images", folder / "shapes-images",
        "--annotations", folder / "shapes.json", "--threads", 1, *words,
    )  # fmt: skip


def test_a_packaged_recipe_leaves_out_sources_that_the_store_lacks(cli, store, tmp_path):
    words = ("train", "--recipe", "unet", "--store", store, "--device", "cpu", "--no-validate")
    words += ("--set", "model.widths=[4, 8]", "--set", "train.batch=8")
    words += ("--set", "model.bottleneck=8", "--set", "model.decoder=[8, 4]")
    words += ("--set", "model.input_size=32", "--set", "train.samples=16")
    words += ("--set", "train.coarse_share=0")
    done = cli(*words, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "the recipe weighs sources that the store lacks, which are left out: coco" in done.err
    again = cli(*words, "--out", tmp_path / "run", "--resume")
    assert again.code == 0, again.err
    wrong = cli(*words, "--out", tmp_path / "wrong", "--set", "train.sources={coco=2.0}")
    assert wrong.code == 2
    assert "the store has no 'coco'; it has shapes" in wrong.err


def test_preparing_names_what_it_leaves_out(cli, folder, store):
    source = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    words = ("--context", 64, "--validation", 0.4, "--workers", 1, "--out", store)
    done = cli("data", "prepare", *source, *words)
    assert done.code == 0
    assert "9 images, 9 objects, 27 crops; 0 crowds skipped, 1 part there" in done.out
    assert "images or annotations left out (1):\n  image 003.png: " in done.err


def test_a_store_is_not_overwritten_by_another(refused, folder, store):
    source = ("--coco", folder / "shapes.json", folder / "shapes-images")
    message = refused("data", "prepare", *source, "--out", store)
    assert "holds a store made from other sources or settings" in message


def test_preparing_nothing(refused, tmp_path):
    assert "there is nothing to prepare" in refused("data", "prepare", "--out", tmp_path / "s")


def test_fetching_a_data_set(cli, monkeypatch, tmp_path):
    from picosam2.data import download

    request = {}

    def fetch(dataset, out, *, progress, **options):
        request.update(options, dataset=dataset, out=out)
        progress(5_000_000, 5_000_000, what="val2017.zip")
        return (download.Fetched(part="val", url="http://x", sha256="ab", folder=out, files=5000),)

    monkeypatch.setattr(download, "download", fetch)
    words = ("coco", "--out", tmp_path, "--part", "val", "--part", "annotations")
    done = cli("data", "download", *words, "--no-keep-archives", "--mirror", "http://x")
    assert done.code == 0
    assert done.out == f"val: 5,000 files in {tmp_path}, sha256 ab\n"
    assert done.err == "val2017.zip: 5.0/5.0 MB\n"
    assert request == {
        "dataset": "coco", "out": tmp_path, "parts": ["val", "annotations"],
        "base_url": "http://x", "keep_archives": False,
    }  # fmt: skip


def test_a_part_that_does_not_exist(refused, tmp_path):
    message = refused("data", "download", "lvis", "--out", tmp_path, "--part", "test")
    assert "lvis has no part 'test'" in message


def test_checking_a_store(cli, store):
    done = cli("data", "check", store)
    assert done.code == 0
    assert "is whole" in done.out
    assert "9 objects of shapes" in done.out
    assert "9 crops click-near" in done.out


def test_a_damaged_store(refused, store, tmp_path):
    copy = shutil.copytree(store, tmp_path / "copy")
    shard = next(copy.glob("*.crops.npy"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert "damaged (its checksum differs)" in refused("data", "check", copy)
    assert "is not a crop store" in refused("data", "check", tmp_path)


def test_looking_at_a_store(cli, refused, store, tmp_path):
    out = tmp_path / "sheet.png"
    assert cli("data", "show", store, "--out", out, "--count", 6).out == f"{out}: 6 crops\n"
    with Image.open(out) as sheet:
        assert sheet.size == (3 * 68 + 4, 2 * 68 + 4)
    done = cli("data", "show", store, "--out", tmp_path / "box.jpg", "--view", "box")
    assert done.out.endswith("9 crops\n")
    assert "no view 'square'" in refused("data", "show", store, "--out", out, "--view", "square")
    assert "end it in .png or .jpg" in refused("data", "show", store, "--out", tmp_path / "x.gif")


def test_what_a_training_leaves(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    validations = [line["validation"] for line in lines if "validation" in line]
    assert len(validations) == 2
    for actual in validations:
        assert actual["photos"] == 2
        assert 0 <= actual["box_miou"] <= 1
        assert 0 <= actual["click_miou"] <= actual["click_best"] <= 1
    with Image.open(trained / "curves.png") as curves, Image.open(trained / "validation.png") as v:
        assert curves.size == (1000, 400)
        assert np.asarray(v).std() > 10


def test_a_run_is_not_overwritten_but_resumed(cli, refused, store, trained):
    again = (*TRAINING, "--store", store, "--out", trained)
    assert "holds a run: add --resume" in refused(*again)
    done = cli(*again, "--resume")
    assert done.code == 0
    assert str(trained / "weights.safetensors") in done.out


def test_a_damaged_checkpoint(refused, store, trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "run")
    checkpoint = copy / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    message = refused(*TRAINING, "--store", store, "--out", copy, "--resume")
    assert "checkpoint.safetensors is damaged" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.lrr=1", "unknown key 'lrr'"),
        ("trian.lr=1", "unknown key 'trian'"),
        ("train.lr", "changes nothing: write, for instance, train.lr=0.001"),
        ("lr=1", "changes nothing"),
        ("train.lr=fast", "train: lr must be float, not 'fast'"),
        ("train.lr.high=1", "lr is one value, not a table"),
        ("train.lr=7", "`lr` must be in (0, 1]"),
        ("train.schedule=linear", "`schedule` must be one of cosine, constant"),
    ],
)
def test_a_setting_that_does_not_exist(refused, store, tmp_path, change, message):
    words = ("--store", store, "--out", tmp_path / "run", "--set", change)
    assert message in refused("train", "--recipe", "debug", *words)
    assert not (tmp_path / "run").exists()


def test_settings_are_typed():
    from picosam2.training.config import changed_recipe

    changes = ["train.lr=0.5", "train.sources.shapes=2", "train.compile=true", "model.logits=2",
               "train.schedule = constant", "augment.click_scale=[0.5, 0.5]"]  # fmt: skip
    recipe = changed_recipe("debug", changes)
    assert recipe.train.lr == 0.5
    assert recipe.train.sources == {"shapes": 2.0}
    assert recipe.train.compile is True
    assert recipe.train.schedule == "constant"
    assert recipe.model.logits == 2
    assert recipe.augment.click_scale == (0.5, 0.5)
    assert recipe.model.widths == (8, 16)


def test_a_recipe_with_unknown_keys(refused, store, tmp_path):
    recipe = tmp_path / "mine.toml"
    words = ("--store", store, "--out", tmp_path / "run", "--recipe")
    recipe.write_text("[train]\nlearning = 3\n")
    assert "unknown key 'learning'" in refused("train", *words, recipe)
    recipe.write_text("[train\n")
    assert "is not TOML" in refused("train", *words, recipe)
    assert "there is no recipe 'mine'" in refused("train", *words, "mine")
    assert "cannot be read" in refused("train", *words, tmp_path / "gone.toml")


def test_a_store_without_validation_images_trains_all_the_same(cli, folder, tmp_path):
    source = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    words = ("--context", 64, "--validation", 0, "--workers", 1, "--out", tmp_path / "store")
    assert cli("data", "prepare", *source, *words).code == 0
    done = cli(*TRAINING, "--store", tmp_path / "store", "--out", tmp_path / "run")
    assert done.code == 0
    assert "picosam2: the store has no validation images to measure on" in done.err
    assert "the recipe debug shows that everything runs, and learns nothing" in done.err
    assert not (tmp_path / "run" / "validation.png").exists()


def test_a_store_that_is_not_there(refused, tmp_path):
    words = ("--store", tmp_path / "gone", "--out", tmp_path / "run")
    assert "is not a crop store" in refused("train", "--recipe", "debug", *words)


@pytest.mark.parametrize("protocol", ["box", "click", "paper-point", "paper-roi"])
def test_measuring(cli, folder, onnx, tmp_path, protocol):
    out = tmp_path / "result.json"
    done = cli(*measured(folder, onnx, "--protocol", protocol, "--json", out))
    assert done.code == 0
    assert "9 in 9 images" in done.out
    assert "baseline ellipse" in done.out
    assert "image 003.png" in done.err
    document = json.loads(out.read_text())
    assert set(document) >= FIELDS
    assert (document["protocol"], document["n"]) == (protocol, 9)
    assert document["problems"][0].startswith("image 003.png")


def test_measuring_the_first_objects(cli, folder, onnx):
    done = cli(*measured(folder, onnx, "--limit", 2, "--jitter", 0.1))
    assert "2 in 2 images" in done.out


def test_measuring_nothing(refused, folder, onnx, tmp_path):
    words = ("--weights", onnx, "--images", tmp_path, "--annotations")
    assert "does not exist" in refused("eval", *words, tmp_path / "gone.json")
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": []}')
    assert "nothing to measure" in refused("eval", *words, tmp_path / "empty.json")


def test_exporting_to_another_name(refused, trained, tmp_path):
    words = ("export", "onnx", "--weights", trained / "weights.safetensors", "--out")
    assert "end it in .onnx" in refused(*words, tmp_path / "x.pb")
    for kind, ending in (("litert", ".tflite"), ("executorch", ".pte")):
        words = ("export", kind, "--weights", trained / "weights.safetensors", "--out")
        assert f"end it in {ending}" in refused(*words, tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [("litert", "litert_torch", "export-litert"), ("executorch", "executorch", "executorch")],
)
def test_exporting_without_the_converter(
    kind, module, extra, refused, trained, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    out = tmp_path / f"x{'.tflite' if kind == 'litert' else '.pte'}"
    words = ("export", kind, "--weights", trained / "weights.safetensors", "--out", out)
    assert f"pip install '.[{extra}]'" in refused(*words)
    assert not out.exists()


def test_exporting_what_is_no_weights(refused, trained, tmp_path):
    words = ("export", "onnx", "--out", tmp_path / "x.onnx", "--weights")
    assert "no weights" in refused(*words, tmp_path / "gone.safetensors")
    assert refused(*words, trained / "metrics.jsonl")
    assert not (tmp_path / "x.onnx").exists()


def test_segmenting_with_the_weights(cli, folder, onnx, tmp_path):
    image = folder / "shapes-images" / "000.png"
    done = cli("segment", image, "--point", "48,36", "--weights", onnx, "--out", tmp_path)
    assert done.code == 0
    assert (tmp_path / "000-overlay.png").exists()


def test_calibrating(cli, folder, store, trained, tmp_path):
    out = tmp_path / "calibrated.safetensors"
    words = ("calibrate", "--weights", trained / "weights.safetensors", "--store", store)
    done = cli(*words, "--out", out, "--clicks", 1, "--threads", 1)
    assert done.code == 0
    assert "click: mIoU" in done.out
    assert "box: mIoU" in done.out
    from picosam2.predictor import Predictor

    facts = Predictor(out).runtime.info.facts
    assert set(facts["scorers"]) == {"click", "box"}
    assert facts["calibration"]["click"]["best"] >= facts["calibration"]["click"]["chosen"]


def test_calibrating_without_a_store(refused, trained, tmp_path):
    words = ("calibrate", "--weights", trained / "weights.safetensors", "--store", tmp_path)
    assert "is not a crop store" in refused(*words, "--out", tmp_path / "x.safetensors")


GUIDED = """
[model]
encoder = "tiny-lite"
widths = [6, 6, 8, 8]
bottleneck = 8
decoder = [8, 8, 6, 4]
input_size = 64
logits = 2
guidance = true
[train]
samples = 24
batch = 4
log_every = 2
save_every = 3
precision = "fp32"
"""


@pytest.fixture(scope="module")
def image_store(folder, run):
    source = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    out = folder / "images"
    assert run("data", "images", *source, "--validation", 0.3, "--workers", 1, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def unguided(folder):
    import torch
    from helpers.configs import CONFIGS

    from picosam2.models.checkpoint import save_weights

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CONFIGS["half size"].build()
    save_weights(folder / "unguided.safetensors", model, {"click_windows": "ladder"})
    return folder / "unguided.safetensors"


def test_whole_images_are_kept(cli, folder, tmp_path):
    source = ("--source", "shapes", folder / "shapes.json", folder / "shapes-images")
    done = cli("data", "images", *source, "--workers", 1, "--out", tmp_path / "images")
    assert done.code == 0
    assert "9 images" in done.out
    assert "9 objects" in done.out
    assert "003.png" in done.err


def test_training_corrections_from_simulated_clicks(cli, image_store, unguided, tmp_path):
    """Train, average with the start, calibrate: the weights take guidance and say so."""
    recipe = tmp_path / "guided.toml"
    recipe.write_text(GUIDED)
    words = ("train", "--recipe", recipe, "--images", image_store, "--init", unguided)
    words = (*words, "--lesson", unguided)
    done = cli(*words, "--out", tmp_path / "run", "--device", "cpu")
    assert done.code == 0, done.err
    weights = tmp_path / "run" / "weights.safetensors"
    assert done.out.strip() == str(weights)
    with Image.open(tmp_path / "run" / "curves.png") as curves:
        assert curves.size == (500, 400)  # nothing was validated, so the loss alone
    again = cli(*words, "--out", tmp_path / "run", "--device", "cpu", "--resume")
    assert again.code == 0, again.err
    other = cli(*words[:-1], weights, "--out", tmp_path / "run", "--device", "cpu", "--resume")
    assert other.code == 2
    assert "learned other weights' answers" in other.err

    from picosam2.runtimes.torch import TorchRuntime

    assert TorchRuntime.load(weights).info.guidance
    scored = tmp_path / "scored.safetensors"
    done = cli("calibrate", "--weights", weights, "--store", image_store, "--out", scored)
    assert done.code == 0, done.err
    assert TorchRuntime.load(scored).info.metadata.scorers.keys() == {"click", "box"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs --images STORE and --init WEIGHTS"),
        (("--images", "images"), "needs --images STORE and --init WEIGHTS"),
        (("--images", "images", "--init", "default", "--store", "s"), "takes no --store"),
        (("--images", "images", "--init", "default", "--device", "cuda"), "runs on a processor"),
        (("--images", "gone", "--init", "default"), "is not an image store"),
        (("--images", "i", "--init", "default", "--lesson", "gone"), "no weights named gone"),
    ],
)
def test_a_guided_recipe_says_what_it_needs(refused, tmp_path, words, message):
    command = ("train", "--recipe", "default-guided", *words, "--out", tmp_path / "run")
    assert message in refused(*command)


def test_a_recipe_of_crops_takes_no_images(refused, tmp_path):
    for words in (("--images", tmp_path), ("--store", tmp_path, "--lesson", "default")):
        message = refused("train", "--recipe", "debug", *words, "--out", tmp_path / "run")
        assert "needs --store STORE" in message
