"""Rewrite a graph into a form that integer kernels run fast. Nothing here changes a result.

By onnxruntime's profiler on one core with AMX (`benchmarks/int8.py` repeats the ratio), the two
operators rewritten here took a third of the INT8 network's time, and nearly none of FP32's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_WORD = 4  # int8 values that one multiplication takes; a depth that is no multiple of it is slow


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 graph with the three colors padded to four after the first depthwise convolution.

    A pointwise convolution of a depth of 3 takes six times as long in INT8 as one of a depth of 4.
    A few channels of a depthwise convolution cost as much as the dense one that gives four, the
    last of which are zero.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    constants = {initializer.name: initializer for initializer in graph.initializer}
    readers = _readers(graph)
    for node in graph.node:
        channels = _attribute(node, "group", 1)
        if node.op_type != "Conv" or not 1 < channels < _WORD or node.input[1] not in constants:
            continue
        depthwise = numpy_helper.to_array(constants[node.input[1]])
        after = _only_reader(readers, node)
        if after is not None and after.op_type == "Relu":
            after = _only_reader(readers, after)
        if depthwise.shape[:2] != (channels, 1) or after is None or after.op_type != "Conv":
            continue
        if after.input[1] not in constants or _attribute(after, "group", 1) != 1:
            continue
        dense = np.zeros((_WORD, channels, *depthwise.shape[2:]), np.float32)
        dense[range(channels), range(channels)] = depthwise[:, 0]
        _set(constants[node.input[1]], dense)
        if len(node.input) > 2:
            bias = numpy_helper.to_array(constants[node.input[2]])
            _set(constants[node.input[2]], np.pad(bias, (0, _WORD - channels)))
        pointwise = numpy_helper.to_array(constants[after.input[1]])
        padding = ((0, 0), (0, _WORD - channels), (0, 0), (0, 0))
        _set(constants[after.input[1]], np.pad(pointwise, padding))
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = 1
    del graph.value_info[:]  # the shapes have changed
    return wide


def enlarged_by_copying(model: onnx.ModelProto) -> onnx.ModelProto:
    """The QDQ graph with every nearest-neighbor doubling written as copies of its integers.

    `Resize` looks up every value apart, which took a quarter of the time. Written as a broadcast
    over channels that lie together, whole rows of channels are copied; the transpositions that
    this names cancel with those of kernels that keep channels last.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    shapes = {
        info.name: [size.dim_value for size in info.type.tensor_type.shape.dim]
        for info in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    makers = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    left_out: list[str] = []
    for node in graph.node:
        rounds = _only_reader(readers, node)
        source = makers.get(node.input[0]) if node.input else None
        if (
            not _doubles(graph, node)
            or source is None
            or source.op_type != "DequantizeLinear"
            or rounds is None
            or rounds.op_type != "QuantizeLinear"
            or len(shapes.get(node.input[0], ())) != 4
        ):
            continue
        _, channels, height, width = shapes[node.input[0]]
        replaced[node.output[0]] = _doubling(
            graph, node.name, source.input[0], rounds.output[0], channels, height, width
        )
        left_out += [node.output[0], rounds.output[0]]
        if len(readers[node.input[0]]) == 1:
            left_out.append(node.input[0])
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += replaced.get(node.output[0], [])
        if node.output[0] not in left_out:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return copied


def _doubling(
    graph: onnx.GraphProto,
    name: str,
    source: str,
    target: str,
    channels: int,
    height: int,
    width: int,
) -> list[onnx.NodeProto]:
    """Nodes from `source` (B, C, H, W) to `target` (B, C, 2H, 2W)."""

    def numbers(what: str, values: Sequence[int]) -> str:
        constant = numpy_helper.from_array(np.array(values, np.int64), f"{target}/{what}")
        graph.initializer.append(constant)
        return str(constant.name)

    apart = numbers("apart", (-1, height, 1, width, 1, channels))
    twice = numbers("twice", (1, 1, 2, 1, 2, 1))
    whole = numbers("whole", (-1, 2 * height, 2 * width, channels))
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Reshape", [apart], {}),
        ("Expand", [twice], {}),
        ("Reshape", [whole], {}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ]
    nodes, before = [], source
    for number, (kind, more, attributes) in enumerate(steps):
        after = target if number == len(steps) - 1 else f"{target}/{number}"
        nodes.append(
            helper.make_node(kind, [before, *more], [after], name=f"{name}.{number}", **attributes)
        )
        before = after
    return nodes


def _doubles(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Whether a node copies every pixel to two by two."""
    if node.op_type != "Resize" or len(node.input) != 3:
        return False
    constants = {initializer.name: initializer for initializer in graph.initializer}
    constants |= {
        other.output[0]: other.attribute[0].t for other in graph.node if other.op_type == "Constant"
    }
    if node.input[2] not in constants:
        return False
    how = (
        _attribute(node, "mode", b"nearest"),
        _attribute(node, "coordinate_transformation_mode", b"half_pixel"),
        _attribute(node, "nearest_mode", b"round_prefer_floor"),
    )
    scales = numpy_helper.to_array(constants[node.input[2]]).tolist()
    return how == (b"nearest", b"asymmetric", b"floor") and bool(scales == [1, 1, 2, 2])


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _only_reader(
    readers: dict[str, list[onnx.NodeProto]], node: onnx.NodeProto
) -> onnx.NodeProto | None:
    nodes = readers.get(node.output[0], [])
    return nodes[0] if len(nodes) == 1 else None


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    values = [attribute for attribute in node.attribute if attribute.name == name]
    return helper.get_attribute_value(values[0]) if values else default


def _set(constant: onnx.TensorProto, values: np.ndarray[Any, Any]) -> None:
    constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), constant.name))
