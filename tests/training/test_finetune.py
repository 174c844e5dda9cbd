"""Fine-tuning on one's own masks: what is refused, the split, the schedule, and going on."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import HEIGHT, WIDTH, guided_config, scene, tiny_recipe, write_coco

pytest.importorskip("torch", reason="the extra `train` is not installed")
pytest.importorskip("pycocotools", reason="the extra `train` is not installed")

import torch
from PIL import Image

from picosam2.apps.finetune import _recipe
from picosam2.data.coco import AnnotatedImage, Instance
from picosam2.data.labeled_images import read_labeled_images
from picosam2.data.split import dhash, split, spread
from picosam2.data.store import Store
from picosam2.errors import CheckpointError, ConfigError, DataError
from picosam2.images import load_image
from picosam2.masks import rle_encode
from picosam2.models.checkpoint import read_tensors, save_weights, write_tensors
from picosam2.training import finetune as module
from picosam2.training.config import Recipe, load_recipe
from picosam2.training.finetune import (
    Clock,
    FinetuneConfig,
    OwnImages,
    Stop,
    TimedTrainer,
    _crops_limit,
    check_enough,
    mean_weights,
    prepare_own,
    train_own,
)
from picosam2.training.rehearsal import Rehearsal

SHORT = FinetuneConfig(samples=32, measures=2, measured=4)


def image_of(*masks: np.ndarray, number: int = 1) -> AnnotatedImage:
    """An image that is never opened, with these masks."""
    instances = tuple(
        Instance(
            id=number * 10 + index, image_id=number, category_id=1, height=HEIGHT, width=WIDTH,
            segmentation=rle_encode(mask)["counts"].encode(), area=float(mask.sum()),
        )
        for index, mask in enumerate(masks)
    )  # fmt: skip
    return AnnotatedImage(
        id=number, path=Path(f"{number}.png"), height=HEIGHT, width=WIDTH, source="own",
        instances=instances,
    )  # fmt: skip


def recipe() -> Recipe:
    tiny = tiny_recipe(lr=1e-3)
    return replace(tiny, model=guided_config())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> OwnImages:
    folder = tmp_path_factory.mktemp("own")
    source = write_coco(folder, 12)
    read = read_labeled_images(source.annotations, source.images)
    return prepare_own(read.images, folder / "work", SHORT)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("init") / "weights.safetensors"
    torch.manual_seed(0)
    save_weights(path, recipe().model.build(), {})
    return path


# -- what is refused ------------------------------------------------------------------------------


def test_too_few_masks_or_images():
    discs = [scene(number)[1] for number in range(4)]
    with pytest.raises(DataError, match=r"^there is only one image with masks, and at least 3"):
        check_enough([image_of(*discs)])
    with pytest.raises(DataError, match=r"^there are only 3 masks in 3 images, and at least 8"):
        check_enough([image_of(discs[i], number=i + 1) for i in range(3)])


def test_masks_that_are_all_the_same():
    disc = scene(0)[1]
    with pytest.raises(DataError, match=r"^all 8 masks are the same: check what wrote"):
        check_enough([image_of(disc, disc, number=i) for i in range(4)])
    check_enough([image_of(disc, scene(1)[1], number=i) for i in range(4)])


def test_images_that_look_the_same(tmp_path: Path):
    source = write_coco(tmp_path, 8)
    first = (source.images / "000.png").read_bytes()
    for path in source.images.iterdir():
        path.write_bytes(first)
    read = read_labeled_images(source.annotations, source.images)
    with pytest.raises(DataError, match="look all the same"):
        prepare_own(read.images, tmp_path / "work", SHORT)


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_no_time(minutes: float):
    with pytest.raises(ConfigError, match="leaves no time to train"):
        FinetuneConfig(minutes=minutes)


@pytest.mark.parametrize(
    "change",
    [
        {"held_out": 0},
        {"averaging": 1.5},
        {"measures": 0},
        {"forgetting": -1},
        {"rehearsal": -0.5},
    ],
)
def test_impossible_settings(change: dict[str, float]):
    with pytest.raises(ConfigError):
        FinetuneConfig(**change)


# -- the images -----------------------------------------------------------------------------------


def test_crops_are_of_some_of_many_images_unless_the_others_decide_their_side():
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(1 << 63, size=100)]
    masks, share = [50] * 100, 0.3
    assert _crops_limit(hashes, [6] * 100, 1, share) == 0
    assert _crops_limit(hashes, masks, 1, share) == 20
    assert _crops_limit(hashes, masks, 1, 1e-9) == 0  # nothing to measure on
    chosen = spread(range(100), 20)
    assert 1 not in chosen
    moved = 0
    for seen in chosen:  # an image without crops looks the same, and comes first
        alike = [*hashes]
        alike[1] = hashes[seen] & ~0b111
        sides = split(alike, 1, share)
        alone = split([alike[index] for index in chosen], 1, share)
        is_same = alone == [sides[index] for index in chosen]
        assert _crops_limit(alike, masks, 1, share) == (20 if is_same else 0)
        moved += not is_same
    assert 0 < moved < 20


@pytest.mark.parametrize("enough", [1, 600])
def test_crops_keep_the_images_aside_that_the_store_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: int
):
    monkeypatch.setattr(module, "_CROPS_MASKS", enough)
    source = write_coco(tmp_path, 30)
    images = read_labeled_images(source.annotations, source.images).images
    for _ in range(2):  # and once more, as when a stopped run goes on
        own = prepare_own(images, tmp_path / "work", SHORT)
    kept = {entry["file_name"] for entry in own.store.image_entries if entry["validation"]}
    entries = Store(own.crops).image_entries
    assert len(entries) in (20, 30)
    assert any(entry["validation"] for entry in entries)
    assert all(entry["validation"] == (entry["file_name"] in kept) for entry in entries)


def test_windows_that_no_training_has_are_refused(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, recipe().model.build(), {"geometry": {"box_growth": 3.0}})
    with pytest.raises(ConfigError, match=r"^the weights mine cannot be fine-tuned: `box_growth`"):
        _recipe(path, "mine", SHORT)


def test_windows_are_those_of_the_weights(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    windows = {"box_growth": 1.6, "box_max_aspect": 2.0}
    save_weights(path, recipe().model.build(), {"geometry": windows})
    augment = _recipe(path, "mine", SHORT).augment
    assert (augment.box_growth, augment.box_max_aspect) == (1.6, 2.0)


def test_the_split_is_by_image_and_keeps_the_share(own: OwnImages):
    held_out = own.store.images["validation"]
    assert 2 <= held_out.sum() <= 4
    assert len(own.trained) + held_out.sum() == 12
    assert own.masks == len(own.trained)
    trained = {dhash(np.asarray(Image.open(image.path))) for image in own.trained}
    measured = {dhash(np.asarray(Image.open(image.path))) for image in own.measured}
    assert not trained & measured


@pytest.mark.parametrize(("side", "width"), [(600, 1024), (200, 1152), (40, 1200)])
def test_large_images_are_made_smaller_as_far_as_their_objects_allow(
    tmp_path: Path, side: int, width: int
):
    mask = np.zeros((700, 1200), np.bool_)
    mask[40 : 40 + side, 50 : 50 + side] = True
    path = tmp_path / "1.jpg"
    Image.new("RGB", (1200, 700), "gray").save(path)
    (instance,) = image_of(mask).instances
    annotated = AnnotatedImage(
        id=1, path=path, height=700, width=1200, source="own",
        instances=(replace(instance, height=700, width=1200),),
    )  # fmt: skip
    document: dict[str, list] = {"images": [], "annotations": []}
    assert module._copy(annotated, tmp_path / "work", 1, document)[1] == 1
    (entry,) = document["images"]
    assert entry["width"] == width
    assert load_image(tmp_path / "work" / entry["file_name"]).shape[1] == width
    x, _, across, _ = document["annotations"][0]["bbox"]
    assert across == pytest.approx(side * width / 1200, abs=1)
    assert x == pytest.approx(50 * width / 1200, abs=1)


# -- the training ---------------------------------------------------------------------------------


def test_the_rate_follows_the_time(init: Path):
    from picosam2.models.checkpoint import load_weights

    trainer = TimedTrainer(recipe(), load_weights(init), encoder_rate=0.5)
    config = recipe().train
    trainer.step = config.warmup
    rates = []
    for share in (0.0, 0.5, 1.0, 1.5):
        trainer.share = share
        rates.append(trainer.rate() / config.lr)
    assert rates[0] == 1
    assert rates[1] == pytest.approx((1 + config.final_lr) / 2)
    assert rates[2] == rates[3] == pytest.approx(config.final_lr)
    learned = {group["rate"]: len(group["params"]) for group in trainer.optimizer.param_groups}
    assert {0.5, 1.0} < set(learned)


def test_an_encoder_that_does_not_learn_stays(own: OwnImages, init: Path, tmp_path: Path):
    config = replace(SHORT, encoder_rate=0.0, averaging=1.0)
    trained = train_own(recipe(), config, own, init, tmp_path, clock=Clock(), until=0)
    before, after = load(init), trained.model.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert "encoder" not in changed
    assert "decoder" in changed


@pytest.mark.parametrize(
    ("scores", "share"),
    [((90, 90.5), 0.5), ((90, 80, 89.8), 0.4), ((90, 80, 85, 88, 89.69, 89.7), 0.1),
     ((90, 1, 1, 1, 1, 1), 0.1)],
)  # fmt: skip
def test_the_share_of_new_weights_is_the_largest_that_forgets_no_more_than_allowed(
    own: OwnImages, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    scores: tuple[float, ...], share: float,
) -> None:  # fmt: skip
    coming = iter(scores)
    monkeypatch.setattr(module.SampleScene, "score", lambda *_: next(coming))
    config = replace(SHORT, measures=1, averaging=0.5, forgetting=0.3)
    trained = train_own(recipe(), config, own, init, tmp_path, clock=Clock(), until=0)
    assert trained.averaging == pytest.approx(share)
    assert next(coming, None) is None


def test_all_new_weights_are_kept_where_forgetting_does_not_matter(
    own: OwnImages, init: Path, tmp_path: Path
) -> None:
    config = replace(SHORT, measures=1, averaging=1.0, forgetting=100.0)
    trained = train_own(recipe(), config, own, init, tmp_path, clock=Clock(), until=0)
    assert trained.averaging == 1


def test_rehearsal_keeps_the_answers_to_other_images_nearer(
    own: OwnImages, init: Path, tmp_path: Path
) -> None:
    """The same training with it and without: what is asked on windows that neither was shown."""
    from picosam2.models.checkpoint import load_weights

    lost = {}
    quick = replace(recipe(), train=replace(recipe().train, lr=0.02))
    for weight in (0.0, 20.0):
        config = replace(SHORT, samples=96, measures=1, averaging=1.0, forgetting=100.0,
                         rehearsal=weight)  # fmt: skip
        folder = tmp_path / f"{weight}"
        trained = train_own(quick, config, own, init, folder, clock=Clock(), until=0)
        rehearsal = Rehearsal(load_weights(init), batch=32, seed=99)
        with torch.no_grad():
            lost[weight] = float(rehearsal(trained.model, 0))
    assert lost[20.0] < 0.7 * lost[0.0]


def test_the_sample_scene_says_what_weights_know(init: Path) -> None:
    from picosam2.predictor import Predictor

    known, unknown = Predictor("default", runtime="torch"), Predictor(init, runtime="torch")
    scene = module.SampleScene()
    assert scene.score(known) > 80
    assert scene.score(unknown) < 60
    assert len(scene._shown) == 8 * 3 * 2


def load(path: Path) -> dict[str, torch.Tensor]:
    from picosam2.models.checkpoint import load_weights

    return load_weights(path).state_dict()


def test_the_quicker_precision_is_taken(init: Path, monkeypatch: pytest.MonkeyPatch):
    from picosam2.models.checkpoint import load_weights

    model = load_weights(init)
    monkeypatch.setattr(module, "computes_bf16", lambda device: True)
    for slow, quick in (("bf16", "fp32"), ("fp32", "bf16")):
        calls = iter((0, 9, 0, 9, 0, 1, 0, 1) if slow == "bf16" else (0, 1, 0, 1, 0, 9, 0, 9))
        monkeypatch.setattr("time.perf_counter", lambda calls=calls: float(next(calls)))
        assert module.quicker_precision(model) == quick
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(),
                                                 load(init).values(), strict=True))  # fmt: skip


def test_the_mean_of_weights():
    before, after = {"a": torch.zeros(3), "n": torch.tensor(1)}, {"a": torch.ones(3),
                                                                 "n": torch.tensor(2)}  # fmt: skip
    mean = mean_weights(before, after, 0.25)
    assert mean["a"].tolist() == [0.25] * 3
    assert mean["n"] == 2


def test_samples_are_counted_and_the_best_is_kept(own: OwnImages, init: Path, tmp_path: Path):
    notes: list[str] = []

    def progress(done: int, total: int | None = None, *, what=None, note: str = "") -> None:
        notes.append(note)

    trained = train_own(
        recipe(), SHORT, own, init, tmp_path, clock=Clock(), until=0, progress=progress
    )
    assert trained.steps == 4
    assert trained.samples == 32
    assert not trained.stopped
    assert len(trained.history) == 2
    scores = {line["step"]: (line["box"] + line["click"]) / 2 for line in trained.history}
    assert scores[trained.kept_step] == max(scores.values())
    assert any("box" in note and "so far" in note for note in notes)


def test_a_stopped_run_goes_on(own: OwnImages, init: Path, tmp_path: Path):
    stop = Stop()

    def progress(done: int, total: int | None = None, *, what=None, note: str = "") -> None:
        stop.requested = done >= 2

    first = train_own(
        recipe(), SHORT, own, init, tmp_path, clock=Clock(), until=0, stop=stop, progress=progress
    )
    assert first.stopped
    assert first.steps == 2
    second = train_own(
        recipe(), SHORT, own, init, tmp_path, clock=Clock(tmp_path), until=0, resume=True
    )
    assert second.steps == 4
    assert not second.stopped
    finished = train_own(
        recipe(), SHORT, own, init, tmp_path, clock=Clock(tmp_path), until=0, resume=True
    )
    assert finished.steps == 4
    assert finished.kept_step == second.kept_step
    other = replace(SHORT, averaging=0.1)
    with pytest.raises(CheckpointError, match="made from other images, weights or settings"):
        train_own(recipe(), other, own, init, tmp_path, clock=Clock(tmp_path), until=0, resume=True)
    changed = tmp_path / "changed.safetensors"
    saved = read_tensors(init)
    write_tensors(changed, {name: value + 1 for name, value in saved.tensors.items()}, saved.info)
    with pytest.raises(CheckpointError, match="made from other images, weights or settings"):
        train_own(
            recipe(), SHORT, own, changed, tmp_path, clock=Clock(tmp_path), until=0, resume=True
        )


def test_time_of_stopped_runs_counts(own: OwnImages, init: Path, tmp_path: Path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 130.0
    assert clock.seconds == 30
    train_own(recipe(), SHORT, own, init, tmp_path, clock=clock, until=0)
    now[0] = 1000.0
    assert Clock(tmp_path).seconds == 30


def test_the_time_ends_it(own: OwnImages, init: Path, tmp_path: Path):
    clock = Clock()
    config = replace(SHORT, samples=0, measures=1)
    trained = train_own(
        recipe(), config, own, init, tmp_path, clock=clock, until=clock.seconds + 0.5
    )
    assert trained.steps >= 1
    assert not trained.stopped


def test_ctrl_c_is_a_wish_once():
    before = signal.getsignal(signal.SIGINT)  # a shell's background jobs ignore it
    stop = Stop()
    with stop.on_interrupt():
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_packaged_recipe_is_for_finished_weights():
    packaged = load_recipe("finetune")
    assert packaged.guided.teacher == 0
    assert packaged.train.bce > 0
