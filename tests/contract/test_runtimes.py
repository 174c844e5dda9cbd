"""One suite for every runtime: the same crops give the same logits, in any batch, and it says what
it runs. Foreign files are refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.configs import CONFIGS, golden
from onnx import TensorProto, helper

from picosam2._files import sha256_file
from picosam2.errors import ImageError, MissingExtraError, PicoSAM2Error, WeightsError
from picosam2.export.imx500.raw_input import RawInput
from picosam2.export.int8.calibration import Crops, observe, ranges
from picosam2.export.int8.onnx_int8 import described, quantize_graph
from picosam2.export.onnx import described as said_of
from picosam2.export.onnx import export_onnx, weights_facts
from picosam2.images import normalize
from picosam2.io.sample_image import sample, sample_objects
from picosam2.models.checkpoint import load_weights
from picosam2.models.network import PicoSAM2
from picosam2.predictor import Predictor
from picosam2.prompts import Prompt
from picosam2.runtimes.device_file import DeviceFile, device_file, read_device_file
from picosam2.runtimes.executorch import ExecuTorchRuntime
from picosam2.runtimes.litert import LiteRtRuntime
from picosam2.runtimes.metadata import METADATA_KEY
from picosam2.runtimes.onnx import OnnxRuntime, _overflows
from picosam2.runtimes.openvino import OpenVinoRuntime
from picosam2.runtimes.protocol import Runtime
from picosam2.runtimes.torch import TorchRuntime
from picosam2.runtimes.weights import (
    ENDINGS,
    RUNTIMES,
    find_weights,
    load_runtime,
    read_facts,
    shipped,
    shipped_files,
)

# How to open a runtime, and the file that it opens.
OPEN: dict[str, tuple[Callable[[Path], Runtime], str]] = {
    "onnx": (OnnxRuntime, "weights.onnx"),
    "onnx on one thread": (lambda path: OnnxRuntime(path, threads=1), "weights.onnx"),
    "onnx in 8 bits": (OnnxRuntime, "weights-int8.onnx"),
    "torch": (TorchRuntime.load, "weights.safetensors"),
    "openvino": (OpenVinoRuntime, "weights.onnx"),
    "openvino on one thread": (lambda path: OpenVinoRuntime(path, threads=1), "weights.onnx"),
    "litert": (LiteRtRuntime, "weights.tflite"),
    "litert on one thread": (lambda path: LiteRtRuntime(path, threads=1), "weights.tflite"),
    "litert in integers": (LiteRtRuntime, "weights-int8.tflite"),
    "executorch": (ExecuTorchRuntime, "weights.pte"),
    "executorch on one thread": (lambda path: ExecuTorchRuntime(path, threads=1), "weights.pte"),
}
PACKAGES = {"openvino": "openvino", "litert": "ai_edge_litert", "executorch": "executorch"}


def needs(name: str) -> None:
    """Skip where the package of the runtime `name` is not installed."""
    package = PACKAGES.get(name.split()[0])
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"the Python package {package} is not installed")


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of one configuration in every runtime's format."""
    folder = tmp_path_factory.mktemp("weights")
    weights = folder / "weights.safetensors"
    for ending in (".safetensors", ".tflite", ".pte"):
        shutil.copy(golden(request.param, ending), weights.with_suffix(ending))
    shutil.copy(golden(request.param, "-int8.tflite"), folder / "weights-int8.tflite")
    assert load_weights(weights).config == CONFIGS[request.param]
    export_onnx(load_weights(weights), folder / "weights.onnx", weights_facts(weights))
    write_int8(folder / "weights.onnx", folder / "weights-int8.onnx")
    return folder


def write_int8(source: Path, target: Path) -> None:
    """The same weights in 8 bits, calibrated on the kind of noise that is asked here."""
    runtime, graph = OnnxRuntime(source), onnx.load(source)
    pixels = crops_for(runtime, 16, seed=5)
    crops = Crops(pixels=pixels, channels=np.zeros(len(pixels), np.int64))
    limits = ranges(observe(graph, crops), "minmax")
    rounded = quantize_graph(graph, limits, crops)
    onnx.save(described(rounded, runtime.info.facts, {"method": "minmax"}), target)


def in_8_bits(runtime: Runtime) -> bool:
    return "quantization" in runtime.info.facts


def assert_near(actual: np.ndarray, expected: np.ndarray, runtime: Runtime) -> None:
    """Equal to 1e-4; in 8 bits, to a sixth of what the logits spread, or half where sums saturate.

    `runtime` gave the actual ones. OpenVINO lets 16-bit sums saturate on x86 without VNNI.
    """
    if in_8_bits(runtime):
        saturates = runtime.info.name == "openvino" and _overflows()
        parts = 2 if saturates else 6
        assert np.sqrt(((actual - expected) ** 2).mean()) < expected.std() / parts
    else:
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.fixture(params=sorted(OPEN))
def runtime(request: pytest.FixtureRequest, folder: Path) -> Runtime:
    needs(request.param)
    open_it, file = OPEN[request.param]
    return open_it(folder / file)


def crops_for(runtime: Runtime, count: int, seed: int = 0) -> np.ndarray:
    side = runtime.info.input_size
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("count", [1, 3, 64, 65])
def test_any_batch(count: int, runtime: Runtime, folder: Path) -> None:
    crops = crops_for(runtime, count)
    logits = runtime(crops)
    config = load_weights(folder / "weights.safetensors").config
    side = config.input_size // config.stride
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


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda runtime: pickle.loads(pickle.dumps(runtime))]
)
def test_a_copy_runs_the_same_network(
    copied: Callable[[Runtime], Runtime], runtime: Runtime
) -> None:
    crops = crops_for(runtime, 3)
    other = copied(runtime)
    assert other.info == runtime.info
    np.testing.assert_array_equal(other(crops), runtime(crops))


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
    """Against the module itself on normalized crops."""
    crops = crops_for(runtime, 4, seed=3)
    model = load_weights(folder / "weights.safetensors")
    with torch.inference_mode():
        expected = model(torch.from_numpy(normalize(crops)))["logits"].numpy()
    assert_near(runtime(crops), expected, runtime)


def test_it_says_what_it_runs(runtime: Runtime, folder: Path) -> None:
    config = load_weights(folder / "weights.safetensors").config
    info = runtime.info
    assert info.name in RUNTIMES
    assert info.input_size == config.input_size
    assert info.output_size == config.output_size == runtime(crops_for(runtime, 1)).shape[-1]
    assert info.channels == config.logits
    file = folder / f"weights{ENDINGS[info.name]}"
    if in_8_bits(runtime):
        file = file.with_stem("weights-int8")
    assert info.weights_sha256 == sha256_file(file)
    assert info.facts["name"] in CONFIGS
    assert tuple(info.facts["model"]["widths"]) == config.widths
    assert info.facts == read_facts(file)


@pytest.mark.parametrize("wrong", [np.zeros((1, 3, 96, 96), np.uint8), np.zeros((96, 96, 3))])
def test_what_is_no_batch_of_crops(wrong: np.ndarray, runtime: Runtime) -> None:
    with pytest.raises(ImageError):
        runtime(wrong)


def test_runtimes_agree(runtime: Runtime, folder: Path) -> None:
    crops = crops_for(runtime, 8, seed=9)
    reference = OnnxRuntime(folder / "weights.onnx")
    assert_near(runtime(crops), reference(crops), runtime)


def test_threads_do_not_disturb_each_other(runtime: Runtime) -> None:
    crops = crops_for(runtime, 12, seed=4)
    expected = runtime(crops)
    actual: list[np.ndarray | None] = [None] * 4

    def work(number: int) -> None:
        actual[number] = np.concatenate([runtime(crops[i : i + 2]) for i in range(0, 12, 2)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(actual))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for logits in actual:
        assert logits is not None
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def plain_numbers(weights: Path, path: Path, **facts: Any) -> Path:
    """An ONNX file that normalizes its crops itself, as those for sensors do."""
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
    stated = {**said_of(raw.network, {}), **facts}
    stated["preprocessing"] = {**stated["preprocessing"], "inside": True}
    helper.set_model_props(model, {METADATA_KEY: json.dumps(stated)})
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


def test_an_int8_file_in_openvino(folder: Path, tmp_path: Path) -> None:
    """Quantized, dequantized (QDQ): the same file in both runtimes, to a few steps of rounding."""
    needs("openvino")
    path = quantized(folder / "weights.onnx", tmp_path / "int8.onnx")
    first, second = OnnxRuntime(path), OpenVinoRuntime(path)
    crops = crops_for(first, 4, seed=5)
    expected, actual = first(crops), second(crops)
    spread = float(expected.std())
    allowed = 0.1 if _overflows() else 0.02
    assert np.abs(actual - expected).mean() < allowed * spread
    unlike = np.abs(expected - OnnxRuntime(folder / "weights.onnx")(crops)).mean()
    assert 1e-4 * spread < unlike < 0.3 * spread  # it is another file, of the same network


def quantized(source: Path, path: Path) -> Path:
    """An ONNX file in INT8, calibrated on noise."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    side = OnnxRuntime(source).info.input_size

    class Noise(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            crops = np.random.default_rng(1).integers(0, 256, (8, side, side, 3), np.uint8)
            self.left = [{"image": normalize(crops[i : i + 1])} for i in range(8)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    quantization.quantize_static(source, path, Noise(), per_channel=True)
    model = onnx.load(path)
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    if METADATA_KEY not in {entry.key for entry in model.metadata_props}:
        stated = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
        helper.set_model_props(model, stated)
    # Another tool has changed the graph, so the hash of the old one must go.
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            facts = json.loads(entry.value)
            del facts["graph_sha256"]
            entry.value = json.dumps(facts)
    onnx.save(model, path)
    return path


# --- files that are not ours: sealed ones -------------------------------------------------------

SEALED_RUNTIMES: dict[str, tuple[Callable[[Path], Runtime], str]] = {
    name: OPEN[name] for name in ("litert", "executorch")
}


@pytest.fixture(params=sorted(SEALED_RUNTIMES))
def sealed(request: pytest.FixtureRequest, folder: Path) -> tuple[str, DeviceFile]:
    """A runtime's name, and what a file for it holds."""
    needs(request.param)
    return request.param, read_device_file(folder / OPEN[request.param][1], request.param)


def write(path: Path, name: str, content: bytes) -> Path:
    path = path / f"odd{ENDINGS[name]}"
    path.write_bytes(content)
    return path


def refuses(path: Path, name: str, says: str) -> None:
    open_it, _ = SEALED_RUNTIMES[name]
    with pytest.raises(WeightsError, match=says) as caught:
        open_it(path)
    assert "\n" not in str(caught.value)


def test_sealed_files_that_are_missing_foreign_or_damaged(
    sealed: tuple[str, DeviceFile], folder: Path, tmp_path: Path
) -> None:
    name, held = sealed
    whole = (folder / OPEN[name][1]).read_bytes()
    changed = bytearray(whole)
    changed[len(held.model) // 2] ^= 1
    refuses(tmp_path / "none", name, "check the path")
    refuses(tmp_path, name, "check the path")
    for content in (b"", b"hello", b"<html>404</html>", held.model, whole[:-7], b"PK" * 40):
        refuses(write(tmp_path, name, content), name, f"picosam2 export {name}")
    refuses(write(tmp_path, name, bytes(changed)), name, "is damaged")


def test_sealed_files_whose_model_is_none(sealed: tuple[str, DeviceFile], tmp_path: Path) -> None:
    name, held = sealed
    foreign = device_file(b"no model" * 50, held.facts, held.facts["file"])
    refuses(write(tmp_path, name, foreign), name, "cannot run")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"input_size": 32}, "does not take crops of 32 pixels"),
        ({"channels": 7}, "does not take crops of"),
        ({"input_size": "wide"}, "does not say what it needs to"),
        ({"channels": None}, "does not say what it needs to"),
    ],
)
def test_sealed_files_that_say_what_is_not_so(
    facts: dict[str, Any], says: str, sealed: tuple[str, DeviceFile], tmp_path: Path
) -> None:
    name, held = sealed
    made = device_file(held.model, {**held.facts, **facts}, held.facts["file"])
    refuses(write(tmp_path, name, made), name, says)


def test_a_sealed_file_of_the_other_runtime(folder: Path, tmp_path: Path) -> None:
    for name, other in (("litert", "executorch"), ("executorch", "litert")):
        if importlib.util.find_spec(PACKAGES[name]) is None:
            continue
        path = write(tmp_path, name, (folder / OPEN[other][1]).read_bytes())
        refuses(path, name, f"is a model for {other}, not for {name}")


# --- files that are not ours: ONNX --------------------------------------------------------------


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
    np.testing.assert_array_equal(runtime(crops), normalize(crops))


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
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_foreign_onnx_files(
    name: str, facts: str | None, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    needs(name)
    with pytest.raises(WeightsError, match=says):
        OPEN[name][0](graph(tmp_path / "m.onnx", facts, **changes))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_damaged_and_missing_onnx_files(name: str, folder: Path, tmp_path: Path) -> None:
    needs(name)
    open_it, _ = OPEN[name]
    data = (folder / "weights.onnx").read_bytes()
    for stem, content in (
        ("empty", b""),
        ("cut", data[: len(data) // 2]),
        ("text", b"hello"),
        ("page", b"<html>404</html>"),
    ):
        path = tmp_path / f"{stem}.onnx"
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            open_it(path)
    with pytest.raises(WeightsError, match="check the path"):
        open_it(tmp_path / "none.onnx")
    with pytest.raises(WeightsError, match="check the path"):
        open_it(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
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
    line: str | None,
    expected: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "cpuinfo"
    if line is not None:
        file.write_text(f"processor : 0\n{line}\n")
    assert _overflows(file) == expected
    if expected:  # the exact way gives what a processor gives whose sums are exact anyhow
        crops = crops_for(OnnxRuntime(folder / "weights-int8.onnx"), 3)
        logits = OnnxRuntime(folder / "weights-int8.onnx")(crops)
        monkeypatch.setattr("picosam2.runtimes.onnx._overflows", lambda: True)
        np.testing.assert_array_equal(OnnxRuntime(folder / "weights-int8.onnx")(crops), logits)


# --- names and paths ----------------------------------------------------------------------------


def test_the_ending_chooses_the_runtime(folder: Path) -> None:
    assert load_runtime(folder / "weights.onnx").info.name == "onnx"
    assert load_runtime(folder / "weights.safetensors").info.name == "torch"
    assert load_runtime(folder / "weights.safetensors", "torch", threads=1).info.name == "torch"


@pytest.mark.parametrize("name", ["openvino", "litert", "executorch"])
def test_a_runtime_by_its_name(name: str, folder: Path) -> None:
    needs(name)
    file = folder / OPEN[name][1]
    assert load_runtime(file, name, threads=1).info.name == name
    assert load_runtime(file).info.name == (name if name != "openvino" else "onnx")


@pytest.mark.parametrize("name", [name for name in RUNTIMES if name != "onnx"])
def test_a_file_for_another_runtime(name: str, folder: Path) -> None:
    """Told apart by name, so that no extra is needed to say it."""
    for ending in {*ENDINGS.values()} - {ENDINGS[name]}:
        with pytest.raises(WeightsError, match=rf"{name} runs no \{ending} file"):
            load_runtime(folder / f"weights{ending}", name)


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_runtime_that_is_not_installed(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == PACKAGES[name]]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MissingExtraError, match=rf"pip install '\.\[{name}\]'"):
        load_runtime(folder / OPEN[name][1], name)


@pytest.mark.parametrize("name", ["litert", "executorch"])
def test_shipped_weights_have_no_file_for_it(name: str) -> None:
    if "default" not in shipped():
        pytest.skip("no weights are shipped yet")
    with pytest.raises(WeightsError, match=f"picosam2 export {name} --weights default --out"):
        find_weights("default", name)
    if "default-int8" in shipped():  # there is nothing to export it from
        with pytest.raises(WeightsError, match=f"do not come for {name}: use the runtime onnx"):
            find_weights("default-int8", name)


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
    kinds = [k for k in shipped_files(name) if importlib.util.find_spec(PACKAGES.get(k, "onnx"))]
    first, *others = (load_runtime(name, kind) for kind in kinds)
    crops = crops_for(first, 4)
    logits = first(crops)
    assert np.isfinite(logits).all()
    for other in others:
        if in_8_bits(first):  # what is rounded, and when, differs from runtime to runtime
            assert_near(other(crops), logits, other)
        else:
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
    first, other = Predictor(small, threads=1), Predictor(whole, threads=1)
    facts = dict(first.runtime.info.facts)
    del facts["quantization"]
    assert facts == other.runtime.info.facts
    prompts = [Prompt(box=thing.box) for thing in sample_objects()]
    masks = [predictor(sample(), prompts=prompts) for predictor in (first, other)]
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
