"""SAM's two ONNX files in the layout of its export script, with answers that can be worked out.

The embeddings are the pixels, averaged over cells. A mask's logits are the mean channel of the
embeddings times the mask's number (from 1), plus the mean of coordinates times labels; the
predicted IoU of mask number m is m / 10.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIDE, CELL = 64, 16
"""The encoder's input, and how many of its pixels one cell covers."""


def write_sam_onnx(folder: Path, *, masks: int = 4) -> Path:
    """`encoder.onnx` and `decoder.onnx` in `folder`."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    cells = SIDE // CELL

    def value(name: str, shape: list[int | str]) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def write(name: str, nodes: list, inputs: list, outputs: list, constants: dict) -> None:
        arrays = [numpy_helper.from_array(array, key) for key, array in constants.items()]
        graph = helper.make_graph(nodes, name, inputs, outputs, arrays)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        checker.check_model(model)
        save(model, folder / f"{name}.onnx")

    folder.mkdir(parents=True, exist_ok=True)
    pool = helper.make_node(
        "AveragePool", ["images"], ["image_embeddings"], kernel_shape=[CELL] * 2, strides=[CELL] * 2
    )
    write(
        "encoder",
        [pool],
        [value("images", [1, 3, SIDE, SIDE])],
        [value("image_embeddings", [1, 3, cells, cells])],
        {},
    )
    numbers = np.arange(1, masks + 1, dtype=np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image_embeddings"], ["mean"], axes=[1]),
        helper.make_node("Mul", ["mean", "numbers"], ["scaled"]),
        helper.make_node("Unsqueeze", ["point_labels", "last"], ["labels"]),
        helper.make_node("Mul", ["point_coords", "labels"], ["weighed"]),
        helper.make_node("ReduceMean", ["weighed"], ["asked"], keepdims=0),
        helper.make_node("Add", ["scaled", "asked"], ["low_res_masks"]),
        helper.make_node("ReduceSum", ["has_mask_input"], ["none"]),
        helper.make_node("ReduceSum", ["mask_input"], ["none_either"]),
        helper.make_node("ReduceSum", ["orig_im_size"], ["size"]),
        helper.make_node("Mul", ["size", "nothing"], ["no_size"]),
        helper.make_node("Sum", ["scores", "none", "none_either", "no_size"], ["flat"]),
        helper.make_node("Reshape", ["flat", "flat_shape"], ["iou_predictions"]),
    ]
    inputs = [
        value("image_embeddings", [1, 3, cells, cells]),
        value("point_coords", [1, "points", 2]),
        value("point_labels", [1, "points"]),
        value("mask_input", [1, 1, 4 * cells, 4 * cells]),
        value("has_mask_input", [1]),
        value("orig_im_size", [2]),
    ]
    outputs = [
        value("low_res_masks", [1, masks, cells, cells]),
        value("iou_predictions", [1, masks]),
    ]
    constants = {
        "numbers": numbers.reshape(1, -1, 1, 1),
        "last": np.array([2]),
        "nothing": np.float32([0]),
        "scores": (numbers / 10).reshape(1, 1, 1, -1),
        "flat_shape": np.array([1, masks]),
    }
    write("decoder", nodes, inputs, outputs, constants)
    return folder
