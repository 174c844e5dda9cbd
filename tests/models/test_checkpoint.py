"""Weights and checkpoints: what is written is read, what is foreign or damaged is refused."""

from __future__ import annotations

import json
import os
import pickle
import random
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from picosam2.errors import CheckpointError, WeightsError
from picosam2.models.checkpoint import load_weights, read_tensors, save_weights, write_tensors
from picosam2.models.network import RETIRED, ModelConfig, PicoSAM2

SMALL = ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4), input_size=32, logits=2)


@pytest.fixture
def model() -> PicoSAM2:
    torch.manual_seed(0)
    model = PicoSAM2(SMALL)
    model.train()(torch.randn(4, 3, 32, 32))  # running statistics that are not the default
    return model


@pytest.fixture
def path(model: PicoSAM2, tmp_path: Path) -> Path:
    save_weights(tmp_path / "weights.safetensors", model, {"step": 7, "recipe": {"lr": 0.1}})
    return tmp_path / "weights.safetensors"


def test_weights_come_back_as_they_were(model: PicoSAM2, path: Path) -> None:
    loaded = load_weights(path)
    assert loaded.config == SMALL
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    crops = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(crops)["logits"], model.eval()(crops)["logits"])
    assert read_tensors(path).info["step"] == 7


def test_loaded_weights_can_be_trained(path: Path) -> None:
    model = load_weights(path).train()
    model(torch.randn(2, 3, 32, 32))["logits"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_half_precision_is_half_the_size_and_read_as_single(
    model: PicoSAM2, path: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half.safetensors"
    save_weights(half, model, {}, half=True)
    tensors = read_tensors(half).tensors
    assert tensors["head.weight"].dtype == torch.float16
    assert sum(t.nbytes for t in tensors.values()) < 0.55 * sum(
        t.nbytes for t in read_tensors(path).tensors.values()
    )
    loaded = load_weights(half)
    assert all(t.dtype in (torch.float32, torch.int64) for t in loaded.state_dict().values())
    torch.testing.assert_close(loaded.head.weight, model.head.weight, rtol=1e-3, atol=1e-4)


def test_the_same_weights_give_the_same_bytes(model: PicoSAM2, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(other, model, {"recipe": {"lr": 0.1}, "step": 7})
    assert other.read_bytes() == path.read_bytes()


def test_tensors_of_any_layout(tmp_path: Path) -> None:
    tensors = {"channels_last": torch.arange(24.0).view(1, 2, 3, 4).to(
        memory_format=torch.channels_last), "turned": torch.arange(6).view(2, 3).T}  # fmt: skip
    write_tensors(tmp_path / "t.safetensors", tensors, {})
    tensors_read = read_tensors(tmp_path / "t.safetensors").tensors
    assert all(torch.equal(tensors_read[name], tensor) for name, tensor in tensors.items())


def test_every_damaged_byte_is_noticed(model: PicoSAM2, path: Path) -> None:
    """Also where the file could still be read, and would answer something else."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(0)
    places = [draw.randrange(len(data)) for _ in range(150)] + [start, len(data) - 1]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            load_weights(path)
    path.write_bytes(data)
    load_weights(path)


def test_a_file_without_a_hash_is_an_older_one_of_ours(model: PicoSAM2, tmp_path: Path) -> None:
    info = {"model": asdict(SMALL), "step": 3}
    save_file(model.state_dict(), tmp_path / "old.safetensors", {"picosam2": json.dumps(info)})
    load_weights(tmp_path / "old.safetensors")
    assert read_tensors(tmp_path / "old.safetensors").info["step"] == 3


def test_facts_whose_keys_are_numbers(tmp_path: Path) -> None:
    info = {"by size": {10: 1.5, 9: float("nan")}}
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(()), "y": torch.zeros(0, 2)}, info)
    actual = read_tensors(tmp_path / "a.safetensors").info
    assert set(actual["by size"]) == {"10", "9"}


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        read_tensors(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="check the path"):
        load_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_cut_short(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        read_tensors(path)
    with pytest.raises(WeightsError, match="holds no PicoSAM2 weights"):
        load_weights(path)


class Bomb:
    """What unpickling would run."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was opened",)


def test_a_pickle_is_never_opened(model: PicoSAM2, tmp_path: Path) -> None:
    for name, data in (
        ("plain.safetensors", pickle.dumps(Bomb())),
        ("plain.pt", pickle.dumps(Bomb())),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError, match="holds no PicoSAM2 weights"):
            load_weights(tmp_path / name)
    torch.save(model.state_dict(), tmp_path / "torch.safetensors")
    with pytest.raises(WeightsError, match="holds no PicoSAM2 weights"):
        load_weights(tmp_path / "torch.safetensors")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        load_weights(tmp_path)


def test_another_projects_file(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(WeightsError, match="was not written by this project"):
        load_weights(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="was not written by this project"):
        load_weights(path)


@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "5", "null"])
def test_a_description_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"picosam2": text})
    with pytest.raises(CheckpointError, match="damaged"):
        read_tensors(path)
    with pytest.raises(WeightsError):
        load_weights(path)


def test_a_checkpoint_is_no_weights_file(model: PicoSAM2, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_tensors(path, {f"model.{k}": v for k, v in model.state_dict().items()}, {"step": 3})
    with pytest.raises(WeightsError, match="names no model: a run keeps its weights"):
        load_weights(path)


@pytest.mark.parametrize(
    "stated",
    [
        None, [], "text", {"widths": "wide"}, {"width": [1]}, {"widths": [4, 6]},
        {"input_size": 33}, {"stem": "other"}, {"logits": "two"}, {"heads": [3]},
    ],
)  # fmt: skip
def test_a_model_that_cannot_be(stated: Any, model: PicoSAM2, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    write_tensors(path, model.state_dict(), {"model": stated})
    with pytest.raises(WeightsError, match="holds no PicoSAM2 weights"):
        load_weights(path)


def described(model: PicoSAM2, path: Path, **changes: Any) -> Path:
    """The model's own tensors under another description."""
    facts = {"widths": [4, 6], "bottleneck": 8, "decoder": [6, 4], "input_size": 32, "logits": 2}
    write_tensors(path, model.state_dict(), {"model": {**facts, **changes}})
    return path


@pytest.mark.parametrize("change", [{"widths": [4, 8]}, {"logits": 1}])
def test_another_architecture(change: dict[str, Any], model: PicoSAM2, tmp_path: Path) -> None:
    path = described(model, tmp_path / "other.safetensors", **change)
    with pytest.raises(WeightsError, match="another architecture"):
        load_weights(path)


def test_settings_of_older_versions(model: PicoSAM2, tmp_path: Path) -> None:
    """At what every network has now they mean nothing; else it is a network of another kind."""
    path = described(model, tmp_path / "old.safetensors", **RETIRED)
    assert load_weights(path).config == SMALL
    for name, value in (("stem", "stride2"), ("heads", ["iou"]), ("kernel", 5)):
        path = described(model, tmp_path / f"{name}.safetensors", **{**RETIRED, name: value})
        with pytest.raises(WeightsError, match=f"`{name}` = .* no longer builds: train"):
            load_weights(path)


@pytest.mark.parametrize("width", [100_000, 10**9, 10**30])
def test_a_description_cannot_ask_for_memory(width: int, model: PicoSAM2, tmp_path: Path) -> None:
    path = described(model, tmp_path / "bomb.safetensors", widths=[width, width], bottleneck=width)
    tracemalloc.start()
    with pytest.raises(WeightsError):
        load_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_missing_and_surplus_tensors(model: PicoSAM2, tmp_path: Path) -> None:
    state = model.state_dict()
    info = json.loads(json.dumps({"model": {"widths": [4, 6], "bottleneck": 8, "decoder": [6, 4],
                                            "input_size": 32, "logits": 2}}))  # fmt: skip
    path = tmp_path / "odd.safetensors"
    for tensors in (
        {k: v for k, v in state.items() if k != "head.bias"},
        {**state, "surplus": torch.zeros(3)},
        {},
    ):
        write_tensors(path, tensors, info)
        with pytest.raises(WeightsError, match="another architecture"):
            load_weights(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, model: PicoSAM2, tmp_path: Path) -> None:
    with torch.no_grad():
        model.head.weight[0, 0] = value
    save_weights(tmp_path / "broken.safetensors", model, {})
    with pytest.raises(WeightsError, match=r"not finite, in head\.weight"):
        load_weights(tmp_path / "broken.safetensors")


def test_whole_numbers_in_place_of_fractions_are_converted(model: PicoSAM2, tmp_path: Path) -> None:
    state = {
        name: tensor.long() if name == "head.bias" else tensor
        for name, tensor in model.state_dict().items()
    }
    path = tmp_path / "whole.safetensors"
    write_tensors(path, state, {"model": {"widths": [4, 6], "bottleneck": 8, "decoder": [6, 4],
                                          "input_size": 32, "logits": 2}})  # fmt: skip
    assert load_weights(path).head.bias.dtype == torch.float32


def test_a_failed_write_leaves_the_old_file(
    model: PicoSAM2, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_weights(path, model, {"not": object()})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_others_may_read_weights_as_they_may_read_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
