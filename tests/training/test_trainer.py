"""The trainer: steps, files, resuming after a kill, several processes, and when it must stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers.tiny import SMALL_STORE, KnowsTheTruth, make_cache, make_store, tiny_recipe
from helpers.variants import VariantConfig, iou_loss
from torch import nn

from picosam2.data.augment import NO_AUGMENT, Batch
from picosam2.data.batches import BatchLoader, Sampler
from picosam2.data.store import BOX, CLICK, Store
from picosam2.distillation.in_loop import InLoopTeacher
from picosam2.errors import CheckpointError, ConfigError, WeightsError
from picosam2.images import normalize
from picosam2.models.checkpoint import load_weights, read_tensors, save_weights, write_tensors
from picosam2.models.network import RETIRED, ModelConfig, PicoSAM2, channel
from picosam2.runtimes.protocol import RuntimeInfo
from picosam2.training import trainer as trainer_module
from picosam2.training.config import Recipe, TrainConfig, load_recipe
from picosam2.training.losses import DistillConfig
from picosam2.training.syncbn import GlobalBatchNorm2d, synchronize_batchnorm
from picosam2.training.trainer import (
    Processes,
    Trainer,
    TrainingError,
    compute_loss,
    learning_rate,
    started_from,
    teacher_lookup,
    train,
)

SCRIPT = Path(__file__).parents[1] / "helpers" / "train_tiny.py"
ALONE = Processes(rank=0, world=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("trainer"))


def in_a_process(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run the helper script on one thread."""
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def lines(out: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without what depends on the clock."""
    collected = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "samples_per_s"} for line in collected]


def a_batch(recipe: Recipe, store: Store, step: int = 0) -> Batch:
    sampler = Sampler(store, recipe.train.batch, seed=recipe.train.seed)
    feed = BatchLoader(
        store, sampler, recipe.augment, size=recipe.crop_size, seed=recipe.train.seed,
        start=step, stop=step + 1,
    )  # fmt: skip
    return next(iter(feed))


# --- steps --------------------------------------------------------------------------------------


def test_the_schedule_rises_then_falls_along_a_cosine() -> None:
    config = TrainConfig(samples=1000, batch=10, lr=0.01, final_lr=0.1, warmup=20)
    rates = np.array([learning_rate(step, config) for step in range(config.steps)])
    np.testing.assert_allclose(rates[:20], 0.01 * np.arange(1, 21) / 20)
    assert rates.argmax() in (19, 20)
    assert (np.diff(rates[20:]) < 0).all()
    assert rates[60] == pytest.approx(0.01 * 0.55)  # half-way down to the final tenth
    assert rates[-1] == pytest.approx(0.001, rel=0.02)
    assert learning_rate(config.steps, config) == pytest.approx(0.001)


def test_a_constant_schedule_and_no_warm_up() -> None:
    config = TrainConfig(samples=100, batch=10, lr=0.01, warmup=0, schedule="constant")
    assert {learning_rate(step, config) for step in range(10)} == {0.01}


def test_a_warm_up_longer_than_the_training_only_rises() -> None:
    config = TrainConfig(samples=100, batch=10, lr=0.01, warmup=100)
    rates = [learning_rate(step, config) for step in range(10)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.001)


def test_each_sample_trains_its_own_channel() -> None:
    output = torch.arange(24.0).view(3, 2, 2, 2)
    chosen = channel(output, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(chosen, torch.stack((output[0, 0], output[1, 1], output[2, 0])))
    torch.testing.assert_close(channel(output[:, :1], torch.tensor([0, 1, 0])), output[:, 0])


def test_the_average_follows_the_weights(store: Store) -> None:
    recipe = tiny_recipe(ema=0.9)
    trainer = Trainer(recipe, ALONE)
    before = {k: v.clone() for k, v in trainer.average.state_dict().items()}
    trainer.train_step(a_batch(recipe, store))
    decay = 2 / 11  # (1 + step) / (10 + step) while that is below 0.9
    for name, new in trainer.model.state_dict().items():
        kept = trainer.average.state_dict()[name]
        if new.is_floating_point():
            torch.testing.assert_close(kept, decay * before[name] + (1 - decay) * new)
        else:
            assert torch.equal(kept, new)
    trainer.step = 10_000
    before = {k: v.clone() for k, v in trainer.average.state_dict().items()}
    trainer._update_average()
    name = "head.weight"
    expected = 0.9 * before[name] + 0.1 * trainer.model.state_dict()[name]
    torch.testing.assert_close(trainer.average.state_dict()[name], expected)


def test_without_an_average_the_weights_themselves_are_kept(store: Store) -> None:
    recipe = tiny_recipe(ema=0.0)
    trainer = Trainer(recipe, ALONE)
    trainer.train_step(a_batch(recipe, store))
    for name, new in trainer.model.state_dict().items():
        assert torch.equal(trainer.average.state_dict()[name], new)


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    decayed, plain = Trainer(tiny_recipe(), ALONE).optimizer.param_groups
    assert decayed["weight_decay"] > 0
    assert plain["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])


def test_the_loss_is_the_weighted_sum_of_its_parts(store: Store) -> None:
    recipe = tiny_recipe(bce=0.3, dice=2.0)
    trainer = Trainer(recipe, ALONE)
    loss, parts = compute_loss(trainer.model, a_batch(recipe, store), recipe.train)
    assert set(parts) == {"bce", "dice"}
    torch.testing.assert_close(loss, 0.3 * parts["bce"] + 2.0 * parts["dice"])


@pytest.mark.parametrize(
    "model",
    [
        {"heads": ("iou",)},
        {"stem": "stride2", "input_size": 64},
        {"dilation": 2, "attention": "self", "activation": "hard-swish", "down": "depthwise"},
    ],
)
def test_variants_train_and_resume(model: dict[str, Any], store: Store, tmp_path: Path) -> None:
    recipe = tiny_recipe(samples=32)
    tiny = asdict(recipe.model) | model
    recipe = replace(recipe, model=VariantConfig(**tiny))
    train(
        replace(recipe, train=replace(recipe.train, samples=16)), store, tmp_path / "half",
        further=iou_loss,
    )  # fmt: skip
    first = train(recipe, store, tmp_path / "run", further=iou_loss)
    state = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    Trainer(recipe, ALONE).load_state(state.tensors, 4)  # every parameter has optimizer state
    assert load_weights(first, VariantConfig).config == recipe.model
    assert ("iou" in lines(tmp_path / "run")[-1]) == ("heads" in model)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_a_handful_of_samples(precision: str, store: Store) -> None:
    """The debug recipe's network, shown the same few objects again and again."""
    recipe = load_recipe("debug")
    config = replace(
        recipe.train, samples=40 * 12, batch=12, warmup=5, lr=0.02, clip=0, precision=precision
    )
    recipe = replace(recipe, train=config, augment=NO_AUGMENT)
    recipe = replace(recipe, model=replace(recipe.model, input_size=48))
    trainer = Trainer(recipe, ALONE)
    batch = a_batch(recipe, store)

    def iou() -> float:
        with torch.inference_mode():
            logits = trainer.model(batch.image_B3SS)["logits"][:, 0]
        result, truth = logits > 0, batch.target_BSS > 0.5
        return float(((result & truth).sum() / (result | truth).sum()).item())

    first = iou()
    losses = [trainer.train_step(batch)["loss"] for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert iou() > max(0.8, first + 0.2)


# --- a run's files ------------------------------------------------------------------------------


def test_a_run_writes_what_it_says(store: Store, tmp_path: Path) -> None:
    recipe = tiny_recipe(validate_every=3)
    messages = []
    path = train(
        recipe, store, tmp_path / "run", on_step=messages.append,
        validate=lambda model: {"box": {"miou": 0.5}, "training": model.training},
    )  # fmt: skip
    result = lines(tmp_path / "run")
    steps = [line for line in result if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert set(steps[0]) == {"step", "samples", "loss", "bce", "dice", "grad_norm", "lr"}
    assert steps[-1]["samples"] == 48
    validations = [line for line in result if "validation" in line]
    assert [line["step"] for line in validations] == [3, 6]
    assert validations[0]["validation"] == {"box": {"miou": 0.5}, "training": False}
    assert [progress.step for progress in messages] == [1, 2, 3, 4, 5, 6]
    assert all(progress.steps == 6 for progress in messages)
    model = load_weights(path)
    assert model.config == recipe.model
    info = read_tensors(path).info
    assert info["step"] == 6
    assert info["store"] == store.fingerprint
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["samples"] == 48
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    store: Store, tmp_path: Path
) -> None:
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        path = train(tiny_recipe(samples=16, seed=seed), store, tmp_path / name)
        runs.append(read_tensors(path).tensors)
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])
    assert any(not torch.equal(runs[0][k], runs[2][k]) for k in runs[0])


def test_tensorboard_events_hold_what_is_logged(store: Store, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    train(
        tiny_recipe(samples=16, log_every=1), store, out, tensorboard=True,
        validate=lambda _: {"box_miou": 0.25},
    )  # fmt: skip
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    logged = [line for line in lines(out) if "loss" in line]
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [line["step"] for line in logged]
    assert [event.value for event in losses] == pytest.approx([line["loss"] for line in logged])


def test_starting_from_weights(store: Store, tmp_path: Path) -> None:
    first = train(tiny_recipe(samples=16), store, tmp_path / "first")
    recipe = tiny_recipe(samples=8, lr=1e-9, ema=0.0)
    second = train(recipe, store, tmp_path / "second", init=first)
    before, after = read_tensors(first).tensors, read_tensors(second).tensors
    torch.testing.assert_close(before["head.weight"], after["head.weight"])


def test_one_logit_channel_starts_from_that_of_clicks(store: Store, tmp_path: Path) -> None:
    config = tiny_recipe().model
    two = PicoSAM2(replace(config, logits=2)).eval()
    path = tmp_path / "two.safetensors"
    save_weights(path, two, {})
    first = started_from(path, replace(config, logits=1))
    crops = torch.randn(2, 3, config.input_size, config.input_size)
    with torch.inference_mode():
        torch.testing.assert_close(first(crops)["logits"][:, 0], two(crops)["logits"][:, CLICK])
    recipe = tiny_recipe(samples=8)
    train(replace(recipe, model=replace(config, logits=1)), store, tmp_path / "run", init=path)
    three = replace(recipe, model=replace(config, logits=3))
    with pytest.raises(ConfigError, match="another network"):
        train(three, store, tmp_path / "three", init=path)


def test_starting_from_another_network_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_weights(path, PicoSAM2(ModelConfig(widths=(4, 4), decoder=(4, 4), bottleneck=4)), {})
    with pytest.raises(ConfigError, match="another network"):
        train(tiny_recipe(), store, tmp_path / "run", init=path)
    with pytest.raises(WeightsError, match="no weights at"):
        train(tiny_recipe(), store, tmp_path / "run", init=tmp_path / "none.safetensors")


def test_a_folder_that_holds_a_run_is_not_overwritten(store: Store, tmp_path: Path) -> None:
    train(tiny_recipe(samples=8), store, tmp_path / "run")
    with pytest.raises(CheckpointError, match="--resume"):
        train(tiny_recipe(samples=8), store, tmp_path / "run")


def test_a_view_that_the_store_lacks(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="native"):
        train(tiny_recipe(views={"native": 1.0}), store, tmp_path / "run")


# --- resuming -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps that nothing happened to, in a process of its own."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    done = in_a_process(store.path, out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [1, 5])
def test_killed_and_resumed_gives_the_weights_of_an_unbroken_run(
    kill_at: int, store: Store, unbroken: Path, tmp_path: Path
) -> None:
    """kill -9 after a checkpoint (every 2 steps), and before there is one."""
    broken = tmp_path / "broken"
    killed = in_a_process(store.path, broken, "--kill-at", kill_at)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert lines(broken)[-1]["step"] == kill_at
    # What a kill in the middle of a line leaves behind.
    with (broken / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "los')
    resumed = in_a_process(store.path, broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("checkpoint.safetensors", "weights.safetensors"):
        first, other = read_tensors(unbroken / name), read_tensors(broken / name)
        assert first.info == other.info
        assert first.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(first.tensors[k], other.tensors[k]) for k in first.tensors)
    assert lines(unbroken) == lines(broken)


def test_resuming_drops_the_metrics_of_steps_taken_again(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(samples=48), store, out)
    whole = lines(out)
    saved = {name: (out / name).read_bytes() for name in ("checkpoint.safetensors",)}

    class StopError(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.step == 5:
            raise StopError

    other = tmp_path / "other"
    with pytest.raises(StopError):
        train(tiny_recipe(samples=48), store, other, on_step=stop)
    assert [line["step"] for line in lines(other)] == [1, 2, 3, 4, 5]
    train(tiny_recipe(samples=48), store, other, resume=True)
    assert lines(other) == whole
    assert (other / "checkpoint.safetensors").read_bytes() == saved["checkpoint.safetensors"]


def test_resuming_a_finished_run_changes_nothing(store: Store, tmp_path: Path) -> None:
    path = train(tiny_recipe(samples=16), store, tmp_path / "run")
    kept = path.read_bytes()
    assert train(tiny_recipe(samples=16), store, tmp_path / "run", resume=True) == path
    assert path.read_bytes() == kept


@pytest.mark.parametrize("left", ["older", "none", "half"])
def test_weights_that_a_kill_left_behind_are_made_from_the_checkpoint(
    left: str, store: Store, tmp_path: Path
) -> None:
    """The checkpoint is written first; the weights of the same step may not have been."""
    out = tmp_path / "run"
    weights = train(tiny_recipe(samples=16, save_every=1), store, out)
    whole = weights.read_bytes()
    if left == "older":
        older = train(tiny_recipe(samples=8), store, tmp_path / "older").read_bytes()
        weights.write_bytes(older)
    elif left == "half":
        weights.write_bytes(whole[: len(whole) // 2])
    else:
        weights.unlink()
    assert train(tiny_recipe(samples=16, save_every=1), store, out, resume=True) == weights
    assert weights.read_bytes() == whole


def test_a_step_is_saved_before_it_is_measured(store: Store, tmp_path: Path) -> None:
    """A kill while the last step is measured costs the measurement, which resuming makes up for."""
    recipe, out = tiny_recipe(samples=16, save_every=100), tmp_path / "run"

    def interrupted(_model: PicoSAM2) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, store, out, validate=interrupted)
    assert read_tensors(out / "checkpoint.safetensors").info["step"] == 2
    for _ in range(2):  # once is enough
        train(recipe, store, out, resume=True, validate=lambda _: {"box_miou": 0.25})
    measured = [line["validation"] for line in lines(out) if "validation" in line]
    assert measured == [{"box_miou": 0.25}]


def test_a_finished_run_can_be_extended(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(samples=16), store, out)
    weights = train(tiny_recipe(samples=32), store, out, resume=True)
    assert read_tensors(weights).info["step"] == 4
    assert read_tensors(weights).info["recipe"]["train"]["samples"] == 32
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(samples=24), store, out, resume=True)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(samples=64, lr=0.5), store, out, resume=True)


def test_resuming_where_nothing_was_starts_anew(store: Store, tmp_path: Path) -> None:
    train(tiny_recipe(samples=8), store, tmp_path / "run", resume=True)
    assert len(lines(tmp_path / "run")) == 1


def test_resuming_with_another_recipe_or_store_is_refused(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(samples=16), store, out)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(samples=16, lr=1e-3), store, out, resume=True)
    other = make_store(tmp_path / "other", 4, replace(SMALL_STORE, seed=3))
    with pytest.raises(CheckpointError, match="another store"):
        train(tiny_recipe(samples=16), other, out, resume=True)


def test_resuming_from_a_damaged_checkpoint_says_so(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(samples=16), store, out)
    file = out / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        train(tiny_recipe(samples=16), store, out, resume=True)
    # A weights file in its place names the same recipe, but has nothing to go on from.
    file.write_bytes((out / "weights.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="another network"):
        train(tiny_recipe(samples=16), store, out, resume=True)


def test_a_checkpoint_of_other_settings_than_todays_goes_on(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(samples=16), store, out)
    tensors = read_tensors(out / "checkpoint.safetensors")
    recipe = tensors.info["recipe"]
    del recipe["model"]["encoder"], recipe["train"]["schedule"]
    recipe["model"] |= RETIRED  # of before they went
    recipe["train"]["iou"] = 1.0
    augment = tensors.info["recipe"]["augment"]
    augment["colour"], augment["grey"] = augment.pop("color"), augment.pop("gray")
    write_tensors(out / "checkpoint.safetensors", tensors.tensors, tensors.info)
    train(tiny_recipe(samples=16), store, out, resume=True)
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(samples=16, schedule="constant"), store, out, resume=True)


def test_an_infinite_setting_survives_resuming(store: Store, tmp_path: Path) -> None:
    recipe = tiny_recipe(samples=8)
    assert recipe.augment.box_max_aspect == float("inf")
    train(recipe, store, tmp_path / "run")
    json.loads((tmp_path / "run" / "recipe.json").read_text(), parse_constant=pytest.fail)
    train(recipe, store, tmp_path / "run", resume=True)


# --- stopping -----------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoint(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trainer_module.compute_loss
    count = 0

    def breaks(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        loss, parts = honest(*arguments)
        return (loss * float("nan") if count == 4 else loss), parts

    monkeypatch.setattr(trainer_module, "compute_loss", breaks)
    with pytest.raises(TrainingError, match="at step 3"):
        train(tiny_recipe(save_every=1), store, tmp_path / "run")
    tensors = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert tensors.info["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in tensors.tensors.values())
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3]
    assert not [t for t in threading.enumerate() if "picosam2-feed" in t.name]


def test_a_gradient_that_is_not_finite_changes_nothing(store: Store) -> None:
    recipe = tiny_recipe()
    trainer = Trainer(recipe, ALONE)
    batch = a_batch(recipe, store)
    before = {k: v.clone() for k, v in trainer.model.named_parameters()}
    batch.image_B3SS[0, 0, 0, 0] = float("inf")
    with pytest.raises(TrainingError, match="at step 0"):
        trainer.train_step(batch)
    assert all(torch.equal(before[k], v) for k, v in trainer.model.named_parameters())
    assert trainer.step == 0


def test_a_failed_write_keeps_the_old_checkpoint(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train(tiny_recipe(samples=16), store, out)
    kept = (out / "checkpoint.safetensors").read_bytes()

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    run = trainer_module._Run(out, tiny_recipe(), store.fingerprint, ALONE, False, None)
    trainer = Trainer(tiny_recipe(samples=16), ALONE)
    run._settings = {}
    with pytest.raises(CheckpointError, match=r"cannot be written .*No space.*make room there"):
        run.save(trainer)
    assert (out / "checkpoint.safetensors").read_bytes() == kept
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


# --- several processes --------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(store: Store, tmp_path: Path) -> None:
    first, two, report = tmp_path / "one", tmp_path / "two", tmp_path / "norm"
    train(tiny_recipe(samples=24), store, first, device="cpu")
    result = in_a_process(
        store.path, two, "--samples", 24, "--batch-norm", report,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert max(map(float, report.read_text().split())) < 2e-5
    alone, shared = lines(first), lines(two)
    assert [line["step"] for line in shared] == [1, 2, 3]
    for a, b in zip(alone, shared, strict=True):
        for name, tolerance in (("loss", 1e-5), ("bce", 1e-5), ("dice", 1e-5), ("grad_norm", 1e-2)):
            assert b[name] == pytest.approx(a[name], rel=tolerance), (name, a["step"])
        assert b["lr"] == a["lr"]
    # Adam's first steps follow the gradient's sign: where that is near zero, rounding shows.
    a, b = (read_tensors(run / "weights.safetensors").tensors for run in (first, two))
    gaps = torch.cat([(a[k] - b[k]).abs().flatten() for k in a if a[k].is_floating_point()])
    assert gaps.median() < 1e-5
    assert gaps.max() < 2e-3


@pytest.mark.slow
def test_processes_wait_for_a_validation_longer_than_collectives_may_take(
    store: Store, tmp_path: Path
) -> None:
    done = in_a_process(
        store.path, tmp_path / "run", "--samples", 32, "--slow-validation", 12,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in lines(tmp_path / "run") if "validation" in line] == [2, 4]


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def test_processes_wait_for_a_validation_that_a_killed_run_owes(
    store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = in_a_process(store.path, out, "--samples", 16, "--no-validation", launcher=TWO)
    assert done.returncode == 0, done.stderr
    done = in_a_process(
        store.path, out, "--samples", 16, "--resume", "--slow-validation", 12, launcher=TWO
    )
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in lines(out) if "validation" in line] == [2]


def test_a_validation_that_fails_ends_every_process(store: Store, tmp_path: Path) -> None:
    """None waits for the others without end; what was trained is kept."""
    out = tmp_path / "run"
    done = in_a_process(store.path, out, "--samples", 32, "--failing-validation", launcher=TWO)
    assert done.returncode != 0
    assert "nothing to measure" in done.stderr
    assert read_tensors(out / "checkpoint.safetensors").info["step"] == 2


def test_a_batch_that_cannot_be_shared(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    @contextmanager
    def three(_device: str) -> Any:
        yield Processes(rank=0, world=3, device=torch.device("cpu"))

    monkeypatch.setattr(trainer_module, "processes", three)
    with pytest.raises(ConfigError, match="multiple"):
        train(tiny_recipe(), store, tmp_path / "run")


def test_global_batch_norm_alone_is_batch_norm(tmp_path: Path) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        x = torch.randn(4, 3, 5, 6) * 2 + 100  # a mean far from zero must not cost precision
        plain, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        model = nn.Sequential(other)
        synchronize_batchnorm(model)
        assert type(model[0]) is GlobalBatchNorm2d
        for mode in (True, False):
            plain.train(mode)
            model.train(mode)
            torch.testing.assert_close(model(x), plain(x), rtol=1e-4, atol=1e-4)
            for name, value in plain.state_dict().items():
                torch.testing.assert_close(other.state_dict()[name], value)
        half = model.train()(x.bfloat16())
        assert half.dtype == torch.bfloat16
    finally:
        dist.destroy_process_group()


# --- with a teacher -----------------------------------------------------------------------------


def test_a_batch_brings_what_the_teacher_says_of_its_samples(store: Store, tmp_path: Path) -> None:
    cache = make_cache(tmp_path, store, KnowsTheTruth())
    recipe = replace(tiny_recipe(), augment=NO_AUGMENT, distill=DistillConfig(confidence="product"))
    sampler = Sampler(store, 8, seed=0)
    feed = BatchLoader(
        store, sampler, recipe.augment, size=recipe.crop_size, seed=0, stop=1,
        teacher=teacher_lookup(cache, recipe.distill),
    )  # fmt: skip
    batch = next(iter(feed))
    assert batch.teacher_BSS is not None
    assert batch.teacher_weight_B is not None
    expected = torch.from_numpy(np.where(batch.row_B % 2 == 0, np.float32(0.72), 0))
    torch.testing.assert_close(batch.teacher_weight_B, expected)
    inside, outside = batch.target_BSS > 0.99, batch.target_BSS < 0.01
    assert (batch.teacher_BSS[inside] > 5.5).all()
    assert (batch.teacher_BSS[outside] < -5.5).all()


def test_a_student_learns_from_its_teacher_alone(store: Store, tmp_path: Path) -> None:
    """With all the weight on a teacher that says the opposite, the opposite is learned."""
    cache = make_cache(tmp_path / "cache", store, KnowsTheTruth(sure=-6.0))
    cache.records["iou"], cache.records["agrees"] = 1.0, True
    cache.records["predicted_iou"] = 1.0
    recipe = replace(tiny_recipe(samples=160, lr=0.02, ema=0.5), augment=NO_AUGMENT)
    model = load_weights(train(recipe, store, tmp_path / "run", teacher=cache))
    batch = a_batch(recipe, store)
    with torch.inference_mode():
        logits = channel(model(batch.image_B3SS)["logits"], batch.kind_B)
    assert ((logits > 0) == (batch.target_BSS < 0.5)).float().mean() > 0.6
    first, last = lines(tmp_path / "run")[0], lines(tmp_path / "run")[-1]
    assert last["teacher"] < first["teacher"]
    assert last["teacher_weight"] == 1


def test_a_teacher_without_weight_changes_nothing(store: Store, tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", store, KnowsTheTruth())
    recipe = replace(tiny_recipe(samples=32), distill=DistillConfig(share=0))
    alone = load_weights(train(recipe, store, tmp_path / "alone"))
    taught = load_weights(train(recipe, store, tmp_path / "taught", teacher=cache))
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, taught.state_dict()[name]), name


def test_a_taught_run_goes_on_with_its_own_teacher_only(store: Store, tmp_path: Path) -> None:
    first = make_cache(tmp_path / "first", store, KnowsTheTruth("first"))
    second = make_cache(tmp_path / "second", store, KnowsTheTruth("second"))
    recipe, half = tiny_recipe(samples=64), tmp_path / "half"
    whole = train(recipe, store, tmp_path / "whole", teacher=first)

    class StopError(Exception):
        pass

    def stop(now: trainer_module.TrainingStep) -> None:
        if now.step == 5:
            raise StopError

    with pytest.raises(StopError):
        train(recipe, store, half, teacher=first, on_step=stop)
    for other in (second, None):
        with pytest.raises(CheckpointError, match="another teacher's cache, or by none"):
            train(recipe, store, half, teacher=other, resume=True)
    broken = load_weights(train(recipe, store, half, teacher=first, resume=True))
    for name, tensor in load_weights(whole).state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[name]), name
    facts = read_tensors(whole).info["teacher"]
    assert facts == {"fingerprint": "first", "cache": first.fingerprint}  # its name may be a path


# --- with a teacher in the loop -----------------------------------------------------------------


class RedIsTheObject:
    """A runtime that calls red pixels the object, whatever the prompt, and keeps what it sees."""

    def __init__(self, channels: int = 2, sure: float = 6.0) -> None:
        self.info = RuntimeInfo(
            name="red", input_size=48, channels=channels, weights_sha256="red", facts={},
            output_size=24,
        )  # fmt: skip
        self.sure, self.seen = sure, []

    def __call__(self, crops, guidance=None):
        self.seen.append(crops)
        red = crops[:, ::2, ::2, 0] > 127
        logits = np.where(red, np.float32(self.sure), np.float32(-self.sure))[:, None]
        return np.repeat(logits, self.info.channels, 1) * np.linspace(
            1, 0.5, self.info.channels, dtype=np.float32
        ).reshape(-1, 1, 1)


def a_red_batch(
    elsewhere_B: torch.Tensor | None = None,
    off_center_B: torch.Tensor | None = None,
    *,
    covered: int = 16,
    red: slice = slice(0, 16),
) -> Batch:
    """Two crops of 32 pixels with red columns, and an object in the first columns; a box and a
    click.
    """
    image_BSS3 = np.zeros((2, 32, 32, 3), np.uint8)
    image_BSS3[:, red, red, 0] = 255
    if red.start == 0:
        image_BSS3[:, :, red, 0] = 255
    return Batch(
        image_B3SS=torch.from_numpy(normalize(image_BSS3)),
        target_BSS=(torch.arange(32) < covered).float().expand(2, 32, 32),
        kind_B=torch.tensor([BOX, CLICK]),
        row_B=np.array([0, 1]),
        elsewhere_B=elsewhere_B,
        off_center_B=off_center_B,
    )


def test_a_teacher_in_the_loop_sees_the_crops_and_answers_by_kind() -> None:
    runtime = RedIsTheObject()
    taught = InLoopTeacher(runtime)(a_red_batch(), 0.25)
    (seen,) = runtime.seen
    assert seen.shape == (2, 48, 48, 3)
    assert seen.dtype == np.uint8
    assert (seen[:, :, :22] == (255, 0, 0)).all()
    assert (seen[:, :, 26:] == 0).all()
    assert taught.teacher_BSS is not None
    assert taught.teacher_BSS.shape == (2, 32, 32)
    torch.testing.assert_close(taught.teacher_BSS[0, :, :14], torch.full((32, 14), 6.0))
    torch.testing.assert_close(taught.teacher_BSS[1, :, 18:], torch.full((32, 14), -3.0))
    assert taught.teacher_weight_B is not None
    torch.testing.assert_close(taught.teacher_weight_B, torch.tensor([0.25, 0.25]))


@pytest.mark.parametrize(("covered", "agreement"), [(16, 1.0), (20, 0.8), (31, 16 / 31), (32, 0.5)])
def test_a_teacher_in_the_loop_counts_as_far_as_it_agrees(covered: int, agreement: float) -> None:
    batch = a_red_batch(covered=covered)
    weight_B = InLoopTeacher(RedIsTheObject())(batch, 0.5).teacher_weight_B
    assert weight_B is not None
    torch.testing.assert_close(weight_B, torch.tensor([agreement / 2] * 2))


def test_a_teacher_that_means_another_object_does_not_count() -> None:
    taught = InLoopTeacher(RedIsTheObject())(a_red_batch(covered=7), 0.5)
    assert taught.teacher_weight_B is not None
    assert taught.teacher_weight_B.tolist() == [0, 0]
    assert taught.value_B is not None
    assert taught.value_B.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("red", "trusted"),
    [
        (slice(8, 24), 1.0),
        (slice(3, 29), 1.0),
        (slice(0, 16), 0.0),  # it reaches the border
        (slice(15, 17), 0.0),  # it is too small
    ],
)
def test_things_without_a_truth_are_trusted_if_they_fit(red: slice, trusted: float) -> None:
    batch = a_red_batch(torch.tensor([False, True]), red=red, covered=0)
    taught = InLoopTeacher(RedIsTheObject(channels=1))(batch, 0.5)
    assert taught.value_B is not None
    assert taught.value_B[0] == 1
    assert taught.value_B[1].item() == pytest.approx(trusted, abs=0.25 * trusted)


def test_the_value_of_a_sample_weighs_its_loss(store: Store) -> None:
    recipe = tiny_recipe()
    model, batch = recipe.model.build().eval(), a_batch(recipe, store)
    count = len(batch.kind_B)
    first = (torch.arange(count) == 0).float()
    with torch.no_grad():
        whole, half, nothing, alone = (
            compute_loss(model, replace(batch, value_B=value_B), recipe.train)[0]
            for value_B in (None, torch.full((count,), 0.5), torch.zeros(count), first)
        )
    torch.testing.assert_close(half, whole / 2)
    assert nothing == 0
    assert 0 < alone < whole


def test_where_nothing_is_annotated_the_teacher_alone_counts() -> None:
    batch = a_red_batch(torch.tensor([False, True]))
    taught = InLoopTeacher(RedIsTheObject(channels=1))(batch, 0.25)
    assert taught.teacher_weight_B is not None
    assert taught.teacher_weight_B.tolist() == [0.25, 1.0]


def test_where_the_click_is_not_the_center_the_truth_alone_counts() -> None:
    batch = a_red_batch(off_center_B=torch.tensor([True, False]))
    taught = InLoopTeacher(RedIsTheObject())(batch, 0.25)
    assert taught.teacher_weight_B is not None
    assert taught.teacher_weight_B.tolist() == [0.0, 0.25]


class AlwaysASquare(RedIsTheObject):
    """A runtime that calls the middle of every crop the object."""

    def __call__(self, crops, guidance=None):
        logits = np.full((len(crops), self.info.channels, 24, 24), -self.sure, np.float32)
        logits[:, :, 6:18, 6:18] = self.sure
        return logits


def test_a_student_learns_what_a_teacher_in_the_loop_says(store: Store, tmp_path: Path) -> None:
    """Clicks are put anywhere, so that no annotation counts."""
    recipe = tiny_recipe(samples=960, lr=0.02, ema=0.5)
    recipe = replace(
        recipe,
        augment=replace(NO_AUGMENT, elsewhere=1.0),
        train=replace(recipe.train, views={"click-near": 1.0}),
    )
    teacher = InLoopTeacher(AlwaysASquare())
    model = load_weights(train(recipe, store, tmp_path / "run", teacher=teacher))
    taught = teacher(a_batch(recipe, store), 1.0)
    assert taught.value_B is not None
    assert (taught.value_B > 0.8).all()
    with torch.inference_mode():
        logits = channel(model(taught.image_B3SS)["logits"], taught.kind_B)
    assert taught.teacher_BSS is not None
    assert ((logits > 0) == (taught.teacher_BSS > 0)).float().mean() > 0.82
    assert read_tensors(tmp_path / "run" / "weights.safetensors").info["teacher"] == {
        "in_loop": "red"
    }


def test_clicks_elsewhere_need_a_teacher_in_the_loop(store: Store, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe(), augment=replace(NO_AUGMENT, elsewhere=0.5))
    cache = make_cache(tmp_path / "cache", store, KnowsTheTruth())
    for teacher in (None, cache):
        with pytest.raises(ConfigError, match="name a teacher that says what is there"):
            train(recipe, store, tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_a_run_taught_in_the_loop_goes_on_with_the_same_weights_only(
    store: Store, tmp_path: Path
) -> None:
    recipe, out = tiny_recipe(samples=32), tmp_path / "run"
    train(recipe, store, out, teacher=InLoopTeacher(RedIsTheObject()))
    other = InLoopTeacher(RedIsTheObject())
    other.fingerprint = "blue"
    more = replace(recipe, train=replace(recipe.train, samples=48))
    for teacher in (other, None):
        with pytest.raises(CheckpointError, match="taught by another teacher"):
            train(more, store, out, teacher=teacher, resume=True)


@pytest.mark.parametrize("spec", ["checkpoint:", "sam2:x", "default"])
def test_other_teachers_cannot_be_asked_in_the_loop(spec: str) -> None:
    with pytest.raises(ConfigError, match="names no teacher for the loop"):
        InLoopTeacher.load(spec)


def test_weights_in_8_bits_can_teach_in_the_loop() -> None:
    taught = InLoopTeacher.load("checkpoint:default-int8", "cpu")(a_red_batch(), 0.5)
    assert taught.teacher_BSS is not None
    assert torch.isfinite(taught.teacher_BSS).all()
