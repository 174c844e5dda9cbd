"""One suite for every runtime: the same crops give the same logits, in any batch, and it says what
it runs. Foreign files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from picosam2.checkpoint import load_weights, save_weights
from picosam2.errors import ImageError, PicoSAM2Error, WeightsError
from picosam2.export.onnx import export_onnx, weights_facts
from picosam2.files import sha256_file
from picosam2.images import normalise
from picosam2.model import ModelConfig, PicoSAM2
from picosam2.predictor import Predictor
from picosam2.prompts import Prompt
from picosam2.quantize.calibration import observe, ranges
from picosam2.quantize.onnx_int8 import described, quantize_graph
from picosam2.runtime import METADATA_KEY, OnnxRuntime, Runtime, _overflows
from picosam2.samples import sample, sample_objects
from picosam2.torch_runtime import TorchRuntime
from picosam2.weights import find_weights, load_runtime, read_facts, shipped, shipped_files

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
    "onnx in 8 bits": lambda folder: OnnxRuntime(folder / "weights-int8.onnx"),
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
    write_int8(folder / "weights.onnx", folder / "weights-int8.onnx")
    return folder


def write_int8(source: Path, target: Path) -> None:
    """The same weights in 8 bits, calibrated on the kind of noise that is asked here."""
    runtime, graph = OnnxRuntime(source), onnx.load(source)
    crops = crops_for(runtime, 16, seed=5)
    found = ranges(observe(graph, crops), "minmax")
    rounded = quantize_graph(graph, found, crops[:1])
    onnx.save(described(rounded, runtime.info.facts, {"method": "minmax"}), target)


def in_8_bits(runtime: Runtime) -> bool:
    return "quantization" in runtime.info.facts


def assert_near(found: np.ndarray, expected: np.ndarray, runtime: Runtime) -> None:
    """Equal to 1e-4; in 8 bits, to a sixth of what the logits spread."""
    if in_8_bits(runtime):
        assert np.sqrt(((found - expected) ** 2).mean()) < expected.std() / 6
    else:
        np.testing.assert_allclose(found, expected, atol=1e-4)


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
    assert_near(runtime(crops), expected, runtime)


def test_it_says_what_it_runs(runtime: Runtime, folder: Path) -> None:
    config = load_weights(folder / "weights.safetensors").config
    info = runtime.info
    assert info.name in ("onnx", "torch")
    assert info.input_size == config.input_size
    assert info.channels == config.logits
    file = folder / {"onnx": "weights.onnx", "torch": "weights.safetensors"}[info.name]
    if in_8_bits(runtime):
        file = folder / "weights-int8.onnx"
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
    first = runtimes[0](crops)
    for runtime in runtimes[1:]:
        assert_near(runtime(crops), first, runtime)


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


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("flags : sse2 avx avx2 fma", True),
        ("flags : avx2 avx512f", True),
        ("flags : avx2 avx512f avx512_vnni", False),
        ("flags : avx2 avx_vnni", False),
        ("flags : sse2 avx", False),
        ("Features : fp asimd asimddp", False),
        (None, False),
    ],
)
def test_processors_whose_sums_overflow(
    said: str | None, expected: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if said is not None:
        file.write_text(f"processor : 0\n{said}\n")
    assert _overflows(file) == expected
    if expected:  # the exact way gives what a processor gives whose sums are exact anyhow
        crops = crops_for(OnnxRuntime(folder / "weights-int8.onnx"), 3)
        logits = OnnxRuntime(folder / "weights-int8.onnx")(crops)
        monkeypatch.setattr("picosam2.runtime._overflows", lambda: True)
        np.testing.assert_array_equal(OnnxRuntime(folder / "weights-int8.onnx")(crops), logits)


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
    first, *others = (load_runtime(name, kind) for kind in shipped_files(name))
    crops = crops_for(first, 4)
    logits = first(crops)
    assert np.isfinite(logits).all()
    for other in others:
        np.testing.assert_allclose(other(crops), logits, atol=1e-2)


@pytest.mark.parametrize("name", [name for name in shipped() if name.endswith("-int8")] or ["none"])
def test_shipped_int8_is_the_shipped_network(name: str) -> None:
    """It was made from the FP32 file beside it, is small, and masks the same pixels."""
    if name not in shipped():
        pytest.skip("no weights in 8 bits are shipped yet")
    small, whole = find_weights(name), find_weights(name.removesuffix("-int8"))
    assert read_facts(small)["quantization"]["fp32_sha256"] == sha256_file(whole), (
        f"{small.name} was made from other weights: run `picosam2 quantize` again"
    )
    assert small.stat().st_size <= 1_400_000
    one, other = Predictor(small, threads=1), Predictor(whole, threads=1)
    facts = dict(one.runtime.info.facts)
    del facts["quantization"]
    assert facts == other.runtime.info.facts
    prompts = [Prompt(box=found.box) for found in sample_objects()]
    masks = [predictor(sample(), prompts=prompts) for predictor in (one, other)]
    for a, b in zip(*masks, strict=True):
        assert (a.mask & b.mask).sum() > 0.9 * (a.mask | b.mask).sum()


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 8, b"\x10" + b"\0" * 7 + b'{"__metadata__":', b"\0" * 99]
)
def test_facts_of_a_file_that_has_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(data)
    with pytest.raises(PicoSAM2Error):
        read_facts(path)
