"""Forms that integer kernels like: the results stay what they were."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.variants import VariantConfig
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from picosam2.export.int8.layout import enlarged_by_copying, widened
from picosam2.export.onnx import export_onnx
from picosam2.models.network import ModelConfig


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    outputs: np.ndarray = session.run(None, inputs)[0]
    return outputs


def exported(config: ModelConfig, path) -> onnx.ModelProto:
    torch.manual_seed(0)
    model = config.build()
    model.train()(torch.randn(8, 3, config.input_size, config.input_size))
    export_onnx(model, path)
    return onnx.load(path)


def groups(model: onnx.ModelProto) -> list[int]:
    return [
        helper.get_attribute_value(attribute)
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Conv" and attribute.name == "group"
    ]


def test_padded_colors_change_nothing(tmp_path) -> None:
    config = ModelConfig(widths=(8, 6), bottleneck=8, decoder=(6, 8), input_size=32)
    model = exported(config, tmp_path / "m.onnx")
    before = model.SerializeToString()
    wide = widened(model)
    assert model.SerializeToString() == before
    assert groups(model)[0] == 3
    assert groups(wide)[0] == 1
    assert groups(wide)[1:] == groups(model)[1:]
    first = {initializer.name: initializer for initializer in wide.graph.initializer}[
        wide.graph.node[0].input[1]
    ]
    assert tuple(first.dims) == (4, 3, 3, 3)
    onnx.checker.check_model(wide, full_check=True)
    crops = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(run(wide, image=crops), run(model, image=crops), atol=1e-5)


def test_other_convolutions_are_left_alone(tmp_path) -> None:
    config = VariantConfig(
        widths=(8, 6), bottleneck=8, decoder=(6, 8), input_size=32, stem="stride2"
    )
    model = exported(config, tmp_path / "m.onnx")
    assert groups(widened(model)) == groups(model)


def doubling(scales=(1, 1, 2, 2), nearest="floor", again: bool = False) -> onnx.ModelProto:
    """uint8 (B, 3, 4, 5) rounded, enlarged and rounded again; `again`: it has a second reader."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["real"]),
        helper.make_node(
            "Resize", ["real", "", "scales"], ["large"], name="Resize", mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode=nearest,
        ),
        helper.make_node("QuantizeLinear", ["large", "scale", "zero"], ["y"]),
    ]  # fmt: skip
    shape = [1, 1, *(round(side * by) for side, by in zip((4, 5), scales[2:], strict=True))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, ["b", 3, *shape[2:]])]
    if again:
        nodes.append(helper.make_node("Identity", ["real"], ["same"]))
        outputs.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, ["b", 3, 4, 5]))
    graph = helper.make_graph(
        nodes,
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["b", 3, 4, 5])],
        outputs,
        [
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.uint8(7), "zero"),
            numpy_helper.from_array(np.array(scales, np.float32), "scales"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("again", [False, True])
def test_a_doubling_is_copied(again: bool) -> None:
    model = doubling(again=again)
    copied = enlarged_by_copying(model)
    onnx.checker.check_model(copied, full_check=True)
    kinds = [node.op_type for node in copied.graph.node]
    assert "Resize" not in kinds
    assert ("DequantizeLinear" in kinds) == again
    for batch in (1, 3):
        x = np.random.default_rng(0).integers(0, 256, (batch, 3, 4, 5), np.uint8)
        expected = x.repeat(2, axis=2).repeat(2, axis=3)
        np.testing.assert_array_equal(run(copied, x=x), expected)
        np.testing.assert_array_equal(run(model, x=x), expected)
        np.testing.assert_array_equal(ReferenceEvaluator(copied).run(["y"], {"x": x})[0], expected)


@pytest.mark.parametrize(
    "change", [{"scales": (1, 1, 3, 2)}, {"scales": (1, 1, 2, 1)}, {"nearest": "ceil"}]
)
def test_other_enlargements_are_left_alone(change) -> None:
    model = doubling(**change)
    assert enlarged_by_copying(model).SerializeToString() == model.SerializeToString()
