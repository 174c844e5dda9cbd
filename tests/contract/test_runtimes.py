"""One suite for every runtime: the same crops give the same logits, in any batch, and it says what
it runs. Foreign files are refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from picosam2.checkpoint import load_weights, save_weights
from picosam2.errors import ImageError, PicoSAM2Error, WeightsError
from picosam2.export.imx500.raw_input import RawInput
from picosam2.export.onnx import described, export_onnx, weights_facts
from picosam2.files import sha256_file
from picosam2.images import normalise
from picosam2.model import ModelConfig, PicoSAM2
from picosam2.runtime import METADATA_KEY, OnnxRuntime, Runtime
from picosam2.torch_runtime import TorchRuntime
from picosam2.weights import find_weights, load_runtime, read_facts, shipped

CONFIGS = {
    "one channel": ModelConfig(widths=(4, 6), bottleneck=8, decoder=(6, 4)),
    "two channels": ModelConfig(
        widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2, input_size=64
    ),
    "everything": ModelConfig(
        widths=(4, 6, 8), bottleneck=8, decoder=(8, 6, 4), logits=2, input_size=64,
        stem="stride2", attention="channel", heads=("iou",),
    ),
}  # fmt: skip
OPEN: dict[str, Callable[[Path], Runtime]] = {
    "onnx": lambda folder: OnnxRuntime(folder / "weights.onnx"),
    "onnx on one thread": lambda folder: OnnxRuntime(folder / "weights.onnx", threads=1),
    "torch": lambda folder: TorchRuntime.load(folder / "weights.safetensors"),
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of one configuration in every runtime's format."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = PicoSAM2(CONFIGS[request.param])
    size = model.config.input_size
    model.train()(torch.randn(8, 3, size, size))
    save_weights(folder / "weights.safetensors", model, {"name": request.param, "scorers": {}})
    weights = folder / "weights.safetensors"
    export_onnx(load_weights(weights), folder / "weights.onnx", weights_facts(weights))
    return folder


@pytest.fixture(params=sorted(OPEN))
def runtime(request: pytest.FixtureRequest, folder: Path) -> Runtime:
    return OPEN[request.param](folder)


def crops_for(runtime: Runtime, count: int, seed: int = 0) -> np.ndarray:
    side = runtime.info.input_size
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 3, 64, 65])
def test_any_batch(count: int, runtime: Runtime, folder: Path) -> None:
    crops = crops_for(runtime, count)
    logits = runtime(crops)
    config = load_weights(folder / "weights.safetensors").config
    side = config.input_size // (2 if config.stem == "stride2" else 1)
    assert logits.shape == (count, runtime.info.channels, side, side)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_a_crops_logits_do_not_depend_on_its_batch(runtime: Runtime) -> None:
    crops = crops_for(runtime, 70)
    together = runtime(crops)
    for index in (0, 1, 63, 64, 69):
        alone = runtime(crops[index : index + 1])
        np.testing.assert_allclose(together[index], alone[0], atol=1e-4)


def test_the_same_crops_give_the_same_logits(runtime: Runtime) -> None:
    crops = crops_for(runtime, 5)
    np.testing.assert_array_equal(runtime(crops), runtime(crops))


def test_crops_need_not_lie_side_by_side_and_are_not_changed(runtime: Runtime) -> None:
    crops = crops_for(runtime, 6)
    before = crops.copy()
    np.testing.assert_array_equal(runtime(crops[::-2]), runtime(crops[::-2].copy()))
    flipped = crops[:2, :, ::-1]
    np.testing.assert_array_equal(runtime(flipped), runtime(np.ascontiguousarray(flipped)))
    np.testing.assert_array_equal(crops, before)


def test_logits_belong_to_the_caller(runtime: Runtime) -> None:
    crops = crops_for(runtime, 2)
    first = runtime(crops)
    kept = first.copy()
    runtime(255 - crops)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # and may be written to


def test_it_is_the_network(runtime: Runtime, folder: Path) -> None:
    """Against the module itself on normalised crops."""
    crops = crops_for(runtime, 4, seed=3)
    model = load_weights(folder / "weights.safetensors")
    with torch.inference_mode():
        expected = model(torch.from_numpy(normalise(crops)))["logits"].numpy()
    np.testing.assert_allclose(runtime(crops), expected, atol=1e-4)


def test_it_says_what_it_runs(runtime: Runtime, folder: Path) -> None:
    config = load_weights(folder / "weights.safetensors").config
    info = runtime.info
    assert info.name in ("onnx", "torch")
    assert info.input_size == config.input_size
    assert info.channels == config.logits
    file = folder / {"onnx": "weights.onnx", "torch": "weights.safetensors"}[info.name]
    assert info.weights_sha256 == sha256_file(file)
    assert info.facts["name"] in CONFIGS
    assert tuple(info.facts["model"]["widths"]) == config.widths
    assert info.facts == read_facts(file)


@pytest.mark.parametrize("wrong", [np.zeros((1, 3, 96, 96), np.uint8), np.zeros((96, 96, 3))])
def test_what_is_no_batch_of_crops(wrong: np.ndarray, runtime: Runtime) -> None:
    with pytest.raises(ImageError):
        runtime(wrong)


def test_runtimes_agree(folder: Path) -> None:
    runtimes = [open_it(folder) for open_it in OPEN.values()]
    crops = crops_for(runtimes[0], 8, seed=9)
    first, *others = (runtime(crops) for runtime in runtimes)
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-4)


def plain_numbers(weights: Path, path: Path, **facts: Any) -> Path:
    """An ONNX file that normalises its crops itself, as those for sensors do."""
    raw = RawInput(load_weights(weights))
    size = raw.network.config.input_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            raw, (torch.zeros(1, 3, size, size),), str(path), opset_version=17, dynamo=False,
            input_names=["image"], output_names=raw.output_names(),
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )  # fmt: skip
    model = onnx.load(path)
    said = {**described(raw.network, {}), **facts}
    said["preprocessing"] = {**said["preprocessing"], "inside": True}
    helper.set_model_props(model, {METADATA_KEY: json.dumps(said)})
    onnx.save(model, path)
    return path


def test_a_graph_that_normalises_itself_gets_plain_numbers(folder: Path, tmp_path: Path) -> None:
    runtime = OnnxRuntime(plain_numbers(folder / "weights.safetensors", tmp_path / "raw.onnx"))
    crops = crops_for(runtime, 70, seed=5)
    expected = OnnxRuntime(folder / "weights.onnx")(crops)
    np.testing.assert_allclose(runtime(crops), expected, atol=1e-4)
    with pytest.raises(ImageError):
        runtime(crops[0])


@pytest.mark.parametrize("exact", [False, True])
def test_an_exact_graph_is_run_as_it_is(
    exact: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fusing quantizers into operators rounds otherwise than what the graph stands for."""
    levels: list[object] = []
    session = onnxruntime.InferenceSession

    def note(path: str, options: onnxruntime.SessionOptions, **more: Any) -> Any:
        levels.append(options.graph_optimization_level)
        return session(path, options, **more)

    path = plain_numbers(folder / "weights.safetensors", tmp_path / "raw.onnx", exact=exact)
    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    OnnxRuntime(path)
    none = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert (levels[-1] == none) is exact


def test_torch_leaves_the_model_as_it_was() -> None:
    model = PicoSAM2(CONFIGS["one channel"]).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    runtime = TorchRuntime(model)
    runtime(crops_for(runtime, 2))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# --- files that are not ours --------------------------------------------------------------------


def graph(
    path: Path, facts: str | None, *, shape: list[Any] | None = None, output: str = "logits"
) -> Path:
    """An ONNX file that copies its input, with these facts."""
    shape = shape or ["batch", 3, 96, 96]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["image"], [output])],
            "copy",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    if facts is not None:
        helper.set_model_props(model, {METADATA_KEY: facts})
    onnx.save(model, path)
    return path


GOOD = json.dumps({"input_size": 96, "channels": 3})


def test_a_minimal_file_of_ours_is_opened(tmp_path: Path) -> None:
    runtime = OnnxRuntime(graph(tmp_path / "m.onnx", GOOD))
    crops = crops_for(runtime, 2)
    np.testing.assert_array_equal(runtime(crops), normalise(crops))


@pytest.mark.parametrize(
    ("facts", "changes", "says"),
    [
        (None, {}, "is not a PicoSAM2 model"),
        ("{", {}, "does not say what it needs to"),
        ("[]", {}, "does not say what it needs to"),
        ("{}", {}, "does not say what it needs to"),
        ('{"input_size": "wide", "channels": 1}', {}, "does not say what it needs to"),
        (GOOD, {"shape": ["batch", 3, 64, 64]}, "does not take crops of 96 pixels"),
        (GOOD, {"shape": ["batch", 96, 96, 3]}, "does not take crops of 96 pixels"),
        (GOOD, {"shape": ["batch", 3]}, "does not take crops of 96 pixels"),
        ('{"input_size": 96, "channels": 1, "preprocessing": "none"}', {}, "does not say what"),
        (GOOD, {"output": "mask"}, "does not take crops of 96 pixels to logits"),
    ],
)
def test_foreign_onnx_files(
    facts: str | None, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=says):
        OnnxRuntime(graph(tmp_path / "m.onnx", facts, **changes))


def test_damaged_and_missing_onnx_files(folder: Path, tmp_path: Path) -> None:
    data = (folder / "weights.onnx").read_bytes()
    for name, content in (
        ("empty", b""),
        ("cut", data[: len(data) // 2]),
        ("text", b"hello"),
        ("page", b"<html>404</html>"),
    ):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            OnnxRuntime(path)
    with pytest.raises(WeightsError, match="check the path"):
        OnnxRuntime(tmp_path / "none.onnx")
    with pytest.raises(WeightsError, match="check the path"):
        OnnxRuntime(tmp_path)


# --- names and paths ----------------------------------------------------------------------------


def test_the_ending_chooses_the_runtime(folder: Path) -> None:
    assert load_runtime(folder / "weights.onnx").info.name == "onnx"
    assert load_runtime(folder / "weights.safetensors").info.name == "torch"
    assert load_runtime(folder / "weights.safetensors", "torch", threads=1).info.name == "torch"
    with pytest.raises(WeightsError, match=r"torch runs no \.onnx file"):
        load_runtime(folder / "weights.onnx", "torch")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights named defualt"):
        find_weights("defualt")
    with pytest.raises(WeightsError, match="check the path"):
        find_weights(tmp_path / "none.onnx")
    with pytest.raises(WeightsError, match="no runtime 'tensorrt'"):
        find_weights("default", "tensorrt")
    with pytest.raises(WeightsError):
        find_weights("../weights/default")


@pytest.mark.parametrize("name", shipped() or ["none"])
def test_shipped_weights_run(name: str) -> None:
    if name not in shipped():
        pytest.skip("no weights are shipped yet")
    runtimes = [load_runtime(name, kind) for kind in ("onnx", "torch")]
    crops = crops_for(runtimes[0], 4)
    first, second = (runtime(crops) for runtime in runtimes)
    np.testing.assert_allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\x10" + b"\0" * 7 + b'{"__metadata__":', b"\0" * 99]
)
def test_facts_of_a_file_that_has_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(data)
    with pytest.raises(PicoSAM2Error):
        read_facts(path)
