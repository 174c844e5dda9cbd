"""ONNX export: written, described, checked and compared, or not written at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.variants import VariantConfig
from onnx import numpy_helper
from torch import nn

from picosam2 import geometry
from picosam2._files import sha256_file
from picosam2.export import onnx as export_module
from picosam2.export.imx500.check import check_file
from picosam2.export.onnx import ExportError, export_onnx, weights_facts
from picosam2.images import MEAN, PAD_RGB, STD
from picosam2.models.checkpoint import load_weights, save_weights
from picosam2.models.folding import fold_batchnorm
from picosam2.models.network import ModelConfig, PicoSAM2
from picosam2.runtimes.metadata import METADATA_KEY

CONFIG = VariantConfig(
    widths=(4, 6), bottleneck=8, decoder=(6, 4), logits=2, input_size=32, heads=("iou",),
    attention="channel",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> PicoSAM2:
    torch.manual_seed(0)
    model = CONFIG.build()
    for _ in range(3):  # statistics that folding must take in
        model.train()(torch.randn(8, 3, 32, 32) * 2 + 1)
    return model


@pytest.fixture(scope="module")
def path(model: PicoSAM2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path, {"step": 5})
    return path


def test_it_gives_the_models_outputs_for_any_batch(model: PicoSAM2, path: Path) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        crops = torch.randn(count, 3, 32, 32)
        with torch.inference_mode():
            expected = model.eval()(crops)
        outputs = session.run(["logits", "iou"], {"image": crops.numpy()})
        for name, got in zip(("logits", "iou"), outputs, strict=True):
            np.testing.assert_allclose(got, expected[name].numpy(), atol=1e-4)


def test_what_it_reports(model: PicoSAM2, tmp_path: Path) -> None:
    done = export_onnx(model, tmp_path / "new" / "model.onnx")
    assert done.path == tmp_path / "new" / "model.onnx"
    assert done.bytes == done.path.stat().st_size
    assert 0 <= done.largest_difference < 1e-4
    assert [p.name for p in done.path.parent.iterdir()] == ["model.onnx"]


def test_it_says_how_to_use_it(path: Path) -> None:
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    (entry,) = [p for p in graph.metadata_props if p.key == METADATA_KEY]
    facts = json.loads(entry.value, parse_constant=pytest.fail)
    assert facts["step"] == 5
    assert facts["input_size"] == 32
    assert facts["channels"] == 2
    assert facts["model"]["widths"] == [4, 6]
    assert facts["preprocessing"] == {
        "order": "RGB", "mean": list(MEAN), "std": list(STD), "pad": list(PAD_RGB),
    }  # fmt: skip
    rules = facts["geometry"]
    assert rules["box_growth"] == geometry.BOX_GROWTH
    assert rules["box_max_aspect"] is None
    assert rules["click_halves"] == list(geometry.CLICK_HALVES)
    assert rules["outside_logit"] == geometry.OUTSIDE_LOGIT


def test_the_recipes_window_rules_come_before_the_defaults(model: PicoSAM2, tmp_path: Path) -> None:
    facts = {"geometry": {"box_growth": 1.4, "box_max_aspect": 2.0}}
    export_onnx(model, tmp_path / "m.onnx", facts)
    (entry,) = onnx.load(tmp_path / "m.onnx").metadata_props
    rules = json.loads(entry.value)["geometry"]
    assert (rules["box_growth"], rules["box_max_aspect"]) == (1.4, 2.0)
    assert rules["click_halves"] == list(geometry.CLICK_HALVES)


def test_the_graph_is_lean(path: Path) -> None:
    """No batch norm is left, and nothing about this machine or its torch is in the file."""
    graph = onnx.load(path)
    kinds = {node.op_type for node in graph.graph.node}
    assert "BatchNormalization" not in kinds
    assert graph.opset_import[0].version == export_module.OPSET
    assert graph.producer_name == "picosam2"
    assert [i.name for i in graph.graph.input] == ["image"]
    assert [o.name for o in graph.graph.output] == ["logits", "iou"]
    text = path.read_bytes()
    for word in (b"/work", b"/home", b"site-packages", b".py"):
        assert word not in text
    size = sum(numpy_helper.to_array(initializer).nbytes for initializer in graph.graph.initializer)
    assert path.stat().st_size < size + 40_000


def test_the_same_weights_give_the_same_bytes(model: PicoSAM2, path: Path, tmp_path: Path) -> None:
    export_onnx(model, tmp_path / "again.onnx", {"step": 5})
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_the_model_is_left_as_it_was(model: PicoSAM2, tmp_path: Path) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, tmp_path / "m.onnx")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_folding_keeps_the_function(model: PicoSAM2) -> None:
    folded = fold_batchnorm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    crops = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        for name, expected in model.eval()(crops).items():
            torch.testing.assert_close(folded(crops)[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"down": "conv2"},
        {"down": "depthwise"},
        {"down": "maxpool", "blocks": 2},
        {"down": "avgpool"},
        {"down": "avgpool-conv1"},
        {"kernel": 5, "activation": "hard-swish"},
        {"activation": "silu"},
        {"activation": "relu6"},
        {"dilation": 2},
        {"decoder": (6,)},
        {"up": "bilinear"},
        {"attention": "self"},
        {"stem": "stride2", "attention": "channel", "heads": ("iou",)},
    ],
    ids=str,
)
def test_every_variant_exports_and_the_sensor_takes_it(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """`export_onnx` itself compares with PyTorch, batch norms folded."""
    torch.manual_seed(0)
    config = VariantConfig(
        **{"widths": (4, 6), "bottleneck": 8, "decoder": (6, 4), "input_size": 32, **settings}
    )
    model = config.build()
    for _ in range(3):
        model.train()(torch.randn(8, 3, 32, 32) * 2 + 1)
    path = tmp_path / "model.onnx"
    assert export_onnx(model, path).largest_difference < 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold_batchnorm(model).modules())
    crops = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        expected = model.eval()(crops)["logits"]
    (outputs,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        ["logits"], {"image": crops.numpy()}
    )
    np.testing.assert_allclose(outputs, expected.numpy(), atol=1e-4)
    assert not check_file(path).problems


def test_folding_a_strided_stem() -> None:
    config = VariantConfig(widths=(4,), bottleneck=4, decoder=(4,), input_size=32, stem="stride2")
    model = config.build()
    model.train()(torch.randn(8, 3, 32, 32))
    folded = fold_batchnorm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_a_file_that_differs_is_not_kept(
    model: PicoSAM2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")
    honest = export_module.onnx.save

    def spoils(graph: Any, target: Path) -> None:
        for initializer in graph.graph.initializer:
            array = numpy_helper.to_array(initializer)
            if array.dtype == np.float32 and array.size > 1:
                initializer.CopyFrom(numpy_helper.from_array(array * 1.1, initializer.name))
        honest(graph, target)

    monkeypatch.setattr(export_module.onnx, "save", spoils)
    with pytest.raises(ExportError, match="differ from PyTorch's by"):
        export_onnx(model, path)
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path) -> None:
    model = PicoSAM2(ModelConfig(widths=(4,), bottleneck=4, decoder=(4,), input_size=32))
    with torch.no_grad():
        model.head.weight[:] = float("nan")
    with pytest.raises(ExportError):
        export_onnx(model, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_the_facts_of_a_weights_file(model: PicoSAM2, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, model, {"step": 9, "recipe": {"train": {}}})
    facts = weights_facts(path)
    assert facts["step"] == 9
    assert facts["source_sha256"] == sha256_file(path)
    export_onnx(load_weights(path, VariantConfig), tmp_path / "m.onnx", facts)
