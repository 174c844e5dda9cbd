"""INT8 files: calibrated, written, described, checked and compared, or not written at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.configs import CONFIGS
from helpers.progress import Recorded
from helpers.tiny import SMALL_STORE, make_store, tiny_recipe
from helpers.variants import VariantConfig
from onnx import TensorProto, numpy_helper

from picosam2.data.coco import read_coco
from picosam2.data.store import Store
from picosam2.errors import StoreError, WeightsError
from picosam2.evaluation.run import evaluate
from picosam2.export.int8 import onnx_int8
from picosam2.export.int8.calibration import CalibrationConfig, choose_crops
from picosam2.export.int8.onnx_int8 import Quantized, QuantizeError, is_int8, quantize
from picosam2.export.onnx import export_onnx
from picosam2.images import normalize
from picosam2.models.encoders import LITE0
from picosam2.models.network import PicoSAM2
from picosam2.predictor import Predictor
from picosam2.runtimes.onnx import OnnxRuntime

CONFIG = CalibrationConfig(samples=12, validation_images=2, seed=3)
FACTS = {"step": 5, "click_windows": "ladder", "geometry": {"box_growth": 1.3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and FP32 weights as ONNX."""
    folder = tmp_path_factory.mktemp("int8")
    make_store(folder, 12)
    export_onnx(tiny_model(), folder / "fp32.onnx", FACTS)
    return folder


def tiny_model(**changes) -> PicoSAM2:
    torch.manual_seed(0)
    model = PicoSAM2(replace(tiny_recipe().model, **changes))
    for _ in range(3):
        model.train()(torch.randn(8, 3, 32, 32))
    return model


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Store(folder / "store")


@pytest.fixture(scope="module")
def made(folder: Path, store: Store) -> Quantized:
    return quantize(folder / "fp32.onnx", store, folder / "new" / "int8.onnx", CONFIG, threads=1)


@pytest.fixture(scope="module")
def graph(made: Quantized) -> onnx.GraphProto:
    return onnx.load(made.path).graph


def test_every_convolution_multiplies_integers(graph: onnx.GraphProto) -> None:
    constants = {initializer.name: initializer for initializer in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2 * 5 + 2 + 2 + 1  # blocks, downs, skips, head
    for node in convolutions:
        weight, image = makers[node.input[1]], makers[node.input[0]]
        assert weight.op_type == image.op_type == "DequantizeLinear"
        values, scales, zeros = (numpy_helper.to_array(constants[n]) for n in weight.input)
        assert values.dtype == np.int8
        assert scales.shape == zeros.shape == values.shape[:1]
        assert not zeros.any()
        assert abs(values.astype(int)).max() <= 127
        if len(node.input) > 2:
            bias = makers[node.input[2]]
            assert numpy_helper.to_array(constants[bias.input[0]]).dtype == np.int32
            per_channel = numpy_helper.to_array(constants[bias.input[1]])
            of_image = numpy_helper.to_array(constants[image.input[1]])
            np.testing.assert_allclose(per_channel, of_image * scales, rtol=1e-5)
        source = makers[image.input[0]]
        while source.op_type in ("Transpose", "Reshape", "Expand"):
            source = makers[source.input[0]]
        assert source.op_type == "QuantizeLinear"
        assert constants[source.input[2]].data_type == TensorProto.UINT8
    floats = [
        initializer
        for initializer in graph.initializer
        if initializer.data_type == TensorProto.FLOAT
    ]
    assert (
        max(np.prod(initializer.dims, dtype=int) for initializer in floats) <= 10
    )  # scales, and nothing else


def test_the_graph_is_lean(made: Quantized, graph: onnx.GraphProto) -> None:
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 17
    assert model.producer_name == "picosam2"
    assert len(model.opset_import) == 1  # nothing but ONNX's own operators
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Relu", "Resize", "Constant"}
    assert not graph.value_info
    read = {name for node in graph.node for name in node.input}
    assert {initializer.name for initializer in graph.initializer} <= read
    for node in graph.node:
        assert set(node.output) <= read | {"logits"}
        assert max(map(len, [*node.input, *node.output])) <= 6
    layers = [node.name for node in graph.node if node.op_type == "Conv"]
    assert {"encoder.0.0", "down.1", "skip.0", "head"} < set(layers)
    text = made.path.read_bytes()
    for word in (b"/work", b"/tmp", b"site-packages", b".py"):
        assert word not in text


def test_it_says_what_the_weights_said(folder: Path, made: Quantized, store: Store) -> None:
    before, after = OnnxRuntime(folder / "fp32.onnx"), OnnxRuntime(made.path)
    facts = dict(after.info.facts)
    stated = facts.pop("quantization")
    assert facts == before.info.facts
    assert facts["geometry"]["box_growth"] == 1.3
    assert stated["fp32_sha256"] == before.info.weights_sha256
    assert stated["store"] == store.fingerprint
    assert stated["method"] == made.method
    assert (stated["crops"], stated["seed"]) == (made.crops, 3)
    assert stated["logit_error"] == pytest.approx(made.compared.logit_error, abs=1e-4)
    assert set(stated["disagreement"]) == {"minmax", "entropy", "percentile"}
    for name, change in made.miou.items():
        assert stated["miou"][name]["int8"] == pytest.approx(change.int8, abs=1e-4)
    json.dumps(stated, allow_nan=False)


def test_what_it_reports(folder: Path, made: Quantized, store: Store) -> None:
    assert made.path == folder / "new" / "int8.onnx"
    assert [path.name for path in made.path.parent.iterdir()] == ["int8.onnx"]
    assert made.bytes == made.path.stat().st_size
    assert made.fp32_bytes == (folder / "fp32.onnx").stat().st_size
    assert made.crops == 12
    assert made.tried[made.method] == min(made.tried.values()) == made.compared.disagreement

    before, after = OnnxRuntime(folder / "fp32.onnx"), OnnxRuntime(made.path)
    crops = choose_crops(store, Predictor(before), 12, 3, held_out=True)
    rows = np.arange(len(crops.pixels))
    first, other = (runtime(crops.pixels)[rows, crops.channels] for runtime in (before, after))
    assert made.compared.logit_error == pytest.approx(
        np.sqrt(((first - other) ** 2).mean()), rel=0.01
    )
    assert 0 < made.compared.relative_error < 0.2
    agreements = []
    for a, b in zip(first > 0, other > 0, strict=True):
        agreements.append((a & b).sum() / (a | b).sum() if (a | b).any() else 1.0)
    assert made.compared.disagreement == pytest.approx(1 - np.mean(agreements), abs=0.002)


def test_miou_is_measured_on_validation_images(folder: Path, made: Quantized, store: Store) -> None:
    read = read_coco(store.path / "validation.json", store.path / "validation")
    images = [read.images[0], read.images[-1]]
    assert set(made.miou) == {"box", "click"}
    for name, change in made.miou.items():
        for path, number in ((folder / "fp32.onnx", change.fp32), (made.path, change.int8)):
            result = evaluate(Predictor(path), images, protocol=name)
            assert number == pytest.approx(result.column("iou").mean(), abs=1e-6)
        assert change.objects == 2
        assert change.change == change.int8 - change.fp32


def test_integer_kernels_do_what_the_graph_says(made: Quantized) -> None:
    """Fused and unfused differ by the rounding of one level here and there, not by more."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(made.path, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    expected = plain.run(["logits"], {"image": normalize(pixels)})[0]
    actual = OnnxRuntime(made.path)(pixels)
    assert np.abs(actual - expected).mean() < 0.02 * expected.std()


def test_the_same_arguments_give_the_same_bytes(
    folder: Path, made: Quantized, store: Store, tmp_path: Path
) -> None:
    again = quantize(folder / "fp32.onnx", store, tmp_path / "again.onnx", CONFIG, threads=1)
    assert again.path.read_bytes() == made.path.read_bytes()


def test_the_default_networks_encoder(store: Store, tmp_path: Path) -> None:
    """Its blocks are alike inside, and every layer has a name of its own nevertheless."""
    lite = {"encoder": "efficientnet-lite0", "widths": LITE0.widths, "decoder": (8, 8, 6, 6)}
    export_onnx(tiny_model(**lite, input_size=32), tmp_path / "fp32.onnx", FACTS)
    config = replace(CONFIG, method="minmax")
    made = quantize(tmp_path / "fp32.onnx", store, tmp_path / "lite.onnx", config, threads=1)
    graph = onnx.load(made.path).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert "encoder.1.0.layers.0" in names
    makers = {name: node for node in graph.node for name in node.output}
    floats = {
        node.name for node in graph.node if node.op_type == "Conv" and node.input[1] not in makers
    }
    # The first stage is not rounded: what it rounds wrong goes through everything.
    assert floats == {"encoder.0.0", "encoder.0.3.layers.0", "encoder.0.3.layers.3"}


def test_a_method_can_be_chosen(folder: Path, store: Store, tmp_path: Path) -> None:
    config = replace(CONFIG, method="entropy")
    made = quantize(folder / "fp32.onnx", store, tmp_path / "e.onnx", config, threads=1)
    assert made.method == "entropy"
    assert set(made.tried) == {"entropy"}


def test_progress_is_told(folder: Path, store: Store, tmp_path: Path) -> None:
    progress = Recorded()
    quantize(
        folder / "fp32.onnx", store, tmp_path / "p.onnx", replace(CONFIG, method="minmax"),
        threads=1, progress=progress,
    )  # fmt: skip
    ends = dict(zip(progress.names, progress.counts, strict=True))
    assert ends == {
        "calibrating": (24, 24), "comparing": (1, 1), "measuring box": (4, 4),
        "measuring click": (4, 4),
    }  # fmt: skip


def test_native_weights_are_measured_by_clicks(tmp_path: Path) -> None:
    store = make_store(tmp_path, 12, replace(SMALL_STORE, views=("native",)))
    export_onnx(tiny_model(logits=1), tmp_path / "native.onnx", {"click_windows": "native"})
    made = quantize(tmp_path / "native.onnx", store, tmp_path / "int8.onnx", CONFIG, threads=1)
    assert set(made.miou) == {"click"}
    assert OnnxRuntime(made.path).info.facts["click_windows"] == "native"


def test_a_network_with_everything(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VariantConfig(
        widths=(6, 8), bottleneck=10, decoder=(8, 6), input_size=32, logits=2,
        stem="stride2", attention="channel", heads=("iou",),
    )  # fmt: skip
    model = config.build()
    model.train()(torch.randn(8, 3, 32, 32))
    export_onnx(model, tmp_path / "all.onnx")
    made = quantize(tmp_path / "all.onnx", store, tmp_path / "int8.onnx", CONFIG, threads=1)
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits", "iou"]
    assert OnnxRuntime(made.path)(np.zeros((3, 32, 32, 3), np.uint8)).shape == (3, 2, 16, 16)


def test_eight_bits_are_not_rounded_again(made: Quantized, store: Store, tmp_path: Path) -> None:
    assert is_int8(onnx.load(made.path))
    with pytest.raises(WeightsError, match="in 8 bits already: give the FP32 weights"):
        quantize(made.path, store, tmp_path / "twice.onnx", CONFIG)
    assert not list(tmp_path.iterdir())


def test_a_useless_file_is_not_kept(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(b"the old file")
    monkeypatch.setattr(
        onnx_int8, "ranges", lambda result, _method: dict.fromkeys(result, (-1e-3, 1e-3))
    )
    with pytest.raises(QuantizeError, match="of their spread away from the FP32 ones"):
        quantize(folder / "fp32.onnx", store, path, CONFIG, threads=1)
    assert path.read_bytes() == b"the old file"
    assert [file.name for file in tmp_path.iterdir()] == ["int8.onnx"]


def test_a_store_without_validation_images(folder: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path, 4, replace(SMALL_STORE, validation=0.0))
    with pytest.raises(StoreError, match="--validation"):
        quantize(folder / "fp32.onnx", store, tmp_path / "int8.onnx", CONFIG)
    assert not (tmp_path / "int8.onnx").exists()


def test_where_nothing_can_be_written_nothing_is_calibrated(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_int8, "observe", pytest.fail)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError):
        quantize(folder / "fp32.onnx", store, tmp_path / "file" / "int8.onnx", CONFIG)


def test_a_network_that_takes_guidance(store: Store, tmp_path: Path) -> None:
    """The branch stays in FP32: no guidance gives the RGB network's answer, and guidance counts."""
    torch.manual_seed(1)
    model = PicoSAM2(replace(CONFIGS["half size"], guidance=True))
    torch.nn.init.normal_(model.guidance[-1].weight, std=20)
    for _ in range(3):
        model.train()(torch.randn(8, 3, 64, 64))
    export_onnx(model, tmp_path / "fp32.onnx", FACTS)
    before = OnnxRuntime(tmp_path / "fp32.onnx")
    crops = choose_crops(store, Predictor(before), 12, 3)
    assert crops.guidance is not None
    boxes = np.flatnonzero(crops.channels == 0)
    drawn = crops.guidance.any((1, 2, 3))
    assert drawn[boxes[::2]].all()
    assert drawn.sum() == len(boxes[::2])

    made = quantize(tmp_path / "fp32.onnx", store, tmp_path / "int8.onnx", CONFIG, threads=1)
    graph = onnx.load(made.path).graph
    assert [node.name for node in graph.input] == ["image", "guidance"]
    after = OnnxRuntime(made.path)
    assert after.info.guidance
    planes = np.zeros((12, 3, 64, 64), np.float32)
    np.testing.assert_array_equal(after(crops.pixels), after(crops.pixels, planes))
    planes[:, 0, 16:48, 16:48] = 1
    changed, expected = after(crops.pixels, planes), before(crops.pixels, planes)
    assert np.abs(changed - after(crops.pixels)).max() > 0.1 * expected.std()
    assert np.sqrt(np.mean((changed - expected) ** 2)) < 0.25 * expected.std()
