"""Check in a second, from the ONNX graph alone, whether a network fits the sensor.

Two things keep a network off it: an operator that Sony's converter refuses, and memory. The
rules and the estimate come from converting variants of this network and reading the memory
reports; docs/imx500.md has the table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto, shape_inference

from picosam2.errors import PicoSAM2Error, WeightsError

MEMORY = 8 * 1024**2
"""Bytes on the sensor for the network: weights and activations together."""

CHANNELS = 32
"""Activations and weights are stored as if their channels were a multiple of this."""

Shape = tuple[int, ...]


class ConvertError(PicoSAM2Error):
    """A network that the sensor, or Sony's converter, does not take."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An operator that keeps the network off the sensor."""

    layer: str
    operator: str
    why: str
    instead: str
    certain: bool = True
    """Whether its conversion was seen to fail; False for an operator that was never tried."""

    def __str__(self) -> str:
        verb = "does not convert" if self.certain else "may not convert"
        return f"{self.layer}: {self.operator} {verb} ({self.why}); use {self.instead}"


@dataclass(frozen=True, kw_only=True)
class LayerMemory:
    """The memory in use while one layer runs, in bytes at eight bits a number."""

    layer: str
    operator: str
    shape: Shape
    """Of its output: channels, rows, columns; or fewer."""
    inputs: int
    output: int
    waiting: int
    """Of outputs that later layers need: skip connections."""

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.inputs + self.output + self.waiting


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of a check. Memory is an estimate, in bytes."""

    problems: tuple[Problem, ...]
    layers: tuple[LayerMemory, ...] = field(repr=False)
    weights: int
    """Of the weights in the sensor's memory, at eight bits each."""
    image: int
    """Of the input image, which stays in memory so that a host can read it."""
    limit: int = MEMORY

    @property
    def peak(self) -> LayerMemory:
        """The layer that needs the most memory for activations."""
        return max(self.layers, key=lambda layer: layer.bytes)

    @property
    def activations(self) -> int:
        """Memory for activations."""
        return self.peak.bytes + self.image + _RUNTIME

    @property
    def total(self) -> int:
        """Everything."""
        return self.activations + self.weights

    @property
    def fits(self) -> bool:
        """Whether it is below the sensor's memory."""
        return self.total <= self.limit

    @property
    def converts(self) -> bool:
        """Whether no known problem keeps the network off the sensor."""
        return self.fits and not any(problem.certain for problem in self.problems)

    def too_large(self) -> str:
        """The layers that make it too large, in one sentence."""
        peak = self.peak
        shape = "x".join(map(str, peak.shape))
        channels = padded(peak.shape[0])
        return (
            f"about {mib(self.total)} of {mib(self.limit)} MiB: {mib(self.weights)} for weights, "
            f"{mib(self.activations)} for activations while {peak.layer} ({peak.operator}) makes "
            f"{shape} (stored as {channels} channels)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "converts": self.converts,
            "problems": [str(problem) for problem in self.problems],
            "memory": {
                "limit": self.limit,
                "total": self.total,
                "weights": self.weights,
                "activations": self.activations,
                "peak_layer": self.peak.layer,
            },
        }


def padded(channels: int) -> int:
    """The number of channels in memory, rounded up to the sensor's multiple."""
    return -(-channels // CHANNELS) * CHANNELS


def mib(count: int) -> str:
    """Bytes as MiB, without the unit."""
    return f"{count / 1024**2:.2f}"


def check_file(path: str | os.PathLike[str]) -> Check:
    """Check the network in an ONNX file. `WeightsError` if it is none."""
    if not Path(path).is_file():
        raise WeightsError(f"there are no weights at {path}: check the path")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises kinds of its own
        raise WeightsError(f"{path} is no ONNX file") from error
    return check_graph(model)


def check_graph(model: onnx.ModelProto) -> Check:
    """Check an ONNX graph of float numbers, as `export_onnx` writes it.

    A branch for guidance is left out, as the sensor's export leaves it out.

    Raises:
        WeightsError: it is quantized already, or its shapes cannot be worked out.
    """
    if any("QuantizeLinear" in node.op_type for node in model.graph.node):
        raise WeightsError(
            "this network is quantized already, in another way than the sensor's: give the weights "
            "that it was made from"
        )
    graph = _Graph(_without_guidance(model))
    problems = [problem for node in graph.nodes for problem in _problems(graph, node)]
    layers = (*_centering(graph), *_memory(graph))
    if not graph.nodes:
        raise WeightsError("there is no layer in this graph")
    image = sum(math.prod(graph.shape(name, "the input")) for name in graph.inputs)
    return Check(problems=tuple(problems), layers=layers, weights=_weights(graph), image=image)


def _without_guidance(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the branch that reads guidance, and without the addition that joins it."""
    if all(value.name != "guidance" for value in model.graph.input):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name for tensor in copy.graph.initializer}
    branch, joined = {"guidance"}, dict[str, str]()
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        node.input[:] = [joined.get(name, name) for name in node.input]
        others = [name for name in node.input if name not in branch and name not in constants]
        if node.op_type == "Constant":
            constants.update(node.output)
        if branch.isdisjoint(node.input):
            nodes.append(node)
        elif not others:
            branch.update(node.output)
        else:
            joined[node.output[0]] = others[0]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    inputs = [value for value in copy.graph.input if value.name != "guidance"]
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def refuse(checked: Check) -> None:
    """Raise `ConvertError`, naming the layers, for a network known not to convert."""
    certain = [str(problem) for problem in checked.problems if problem.certain]
    if certain:
        raise ConvertError(f"the sensor cannot run this network: {'; '.join(certain)}")
    if not checked.fits:
        raise ConvertError(f"the network does not fit into the sensor: {checked.too_large()}")


class _Graph:
    """Nodes that compute something for one crop, and the shapes of what they give."""

    def __init__(self, model: onnx.ModelProto) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for value in copy.graph.input:  # one crop
            dimensions = value.type.tensor_type.shape.dim
            if len(dimensions):
                dimensions[0].Clear()
                dimensions[0].dim_value = 1
        try:
            copy = shape_inference.infer_shapes(copy, data_prop=True)
        except Exception as error:
            raise WeightsError(f"the shapes of this graph cannot be worked out: {error}") from error
        self.constants = {initializer.name: initializer for initializer in copy.graph.initializer}
        self.shapes: dict[str, Shape] = {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*copy.graph.input, *copy.graph.value_info, *copy.graph.output)
        }
        self.inputs = [i.name for i in copy.graph.input if i.name not in self.constants]
        self.outputs = {value.name for value in copy.graph.output}
        self.nodes: list[NodeProto] = []
        self.made_by: dict[str, NodeProto] = {}
        known = set(self.inputs)
        for node in copy.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = node.attribute[0].t
            if known.isdisjoint(node.input) or node.op_type in ("Shape", "Constant"):
                continue  # the same for every image
            known.update(node.output)
            self.nodes.append(node)
            self.made_by.update(dict.fromkeys(node.output, node))

    def data(self, node: NodeProto) -> list[str]:
        """The inputs of a node that depend on the image."""
        return [n for n in node.input if n in self.made_by or n in self.inputs]

    def readers(self, name: str) -> list[NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.nodes if name in node.input]

    def shape(self, name: str, layer: str) -> Shape:
        """The shape of a value for one crop, without the batch."""
        shape = self.shapes.get(name)
        if shape is None or not all(shape):
            raise WeightsError(f"the shape of what {layer} gives cannot be worked out")
        return shape[1:]

    def weight(self, node: NodeProto) -> Shape:
        """The shape of a convolution's filters."""
        constant = self.constants.get(node.input[1])
        return tuple(constant.dims) if constant is not None else ()


def layer_of(node: NodeProto) -> str:
    """The name of the module that a node comes from, or the node's own name."""
    parts = [part for part in node.name.split("/") if part]
    if len(parts) > 1:
        return parts[-2] if "." in parts[-2] or parts[-1] == node.op_type else parts[-1]
    return parts[0] if parts else node.output[0]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


# --- operators ----------------------------------------------------------------------------------

_CONVERT = frozenset({
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv",
    "ConvTranspose", "Dropout", "Flatten", "Gelu", "Gemm", "GlobalAveragePool", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "ReduceMax", "ReduceMean",
    "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub", "TopK",
    "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that were converted, in this network or in networks that the tools are made for."""

_REFUSED = {
    "PRelu": ("a learned slope is unknown to the tools", "ReLU or LeakyReLU"),
    "Elu": ("the tools know no ELU", "SiLU or hard-swish"),
    "Mish": ("the tools know no Mish", "SiLU or hard-swish"),
    "Softplus": ("the tools know no softplus, which Mish is made of", "SiLU or hard-swish"),
    "DepthToSpace": ("pixel shuffle fails", "a 2x2 transposed convolution, or Resize and a conv"),
    "Erf": ("a GELU in pieces", "GELU as one operator, which ONNX has from opset 20 on"),
}


def _problems(graph: _Graph, node: NodeProto) -> Iterator[Problem]:
    def problem(operator: str, why: str, instead: str, *, certain: bool = True) -> Problem:
        return Problem(
            layer=layer_of(node), operator=operator, why=why, instead=instead, certain=certain
        )

    kind, attributes = node.op_type, _attributes(node)
    if kind in _REFUSED:
        yield problem(kind, *_REFUSED[kind])
    elif kind == "Resize":
        mode = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
        if mode == "align_corners":
            yield problem(
                "Resize with align_corners",
                "the corners' centers do not lie on the sensor's grid",
                "align_corners=False (half-pixel centers), or nearest",
            )
        elif attributes.get("mode") == b"cubic":
            yield problem("bicubic Resize", "never tried", "bilinear or nearest", certain=False)
    elif kind == "ConvTranspose":
        yield from _transposed(graph, node, attributes, problem)
    elif kind == "Conv":
        yield from _convolution(graph, node, attributes, problem)
    elif kind not in _CONVERT:
        yield problem(kind, "never tried", "an operator of the table", certain=False)


def _transposed(
    graph: _Graph, node: NodeProto, attributes: dict[str, Any], problem: Callable[..., Problem]
) -> Iterator[Problem]:
    instead = "a dense 2x2 transposed convolution of stride 2, or nearest Resize and a convolution"
    kernel = tuple(attributes.get("kernel_shape", graph.weight(node)[2:]))
    if attributes.get("group", 1) > 1:
        yield problem("grouped transposed convolution", "the converter fails on it", instead)
    elif any(attributes.get("pads", ())):
        size = "x".join(map(str, kernel))
        yield problem(f"padded {size} transposed convolution", "refused", instead)
    elif kernel != (2, 2):
        size = "x".join(map(str, kernel))
        yield problem(f"{size} transposed convolution", "never tried", instead, certain=False)


def _convolution(
    graph: _Graph, node: NodeProto, attributes: dict[str, Any], problem: Callable[..., Problem]
) -> Iterator[Problem]:
    filters = graph.weight(node)
    group = attributes.get("group", 1)
    strides = attributes.get("strides", (1,))
    if len(filters) == 3:
        yield problem(
            "1-D convolution",
            "it slides over channels, as in ECA",
            "a 1x1 or (3, 1) 2-D convolution on the pooled channels",
        )
    elif len(filters) == 4 and 1 < group < filters[1] * group and max(strides) > 1:
        yield problem(
            f"convolution of stride {max(strides)} in {group} groups",
            "the memory report passes and then the converter crashes",
            "a depthwise or a dense convolution, or pooling",
        )


# --- memory -------------------------------------------------------------------------------------

_RUNTIME = 16 * 1024  # bytes beside the tensors, and ...
_BIAS = 8  # ... bytes of a bias, both as real conversions report them

_WEIGHED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose second input may be weights."""

_IN_PLACE = frozenset({
    "BatchNormalization", "Clip", "Dropout", "Flatten", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Relu", "Reshape", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that are done while the layer before them writes, where only they read it."""


def _centering(graph: _Graph) -> Iterator[LayerMemory]:
    """The convolution on the image's own numbers that `raw_input` puts before the network."""
    for name in graph.inputs:
        shape = graph.shape(name, "the input")
        size = _bytes(shape)
        yield LayerMemory(
            layer="center", operator="Conv", shape=shape, inputs=size, output=size, waiting=0
        )


def _memory(graph: _Graph) -> Iterator[LayerMemory]:
    """The memory while each layer runs, in order."""
    buffer: dict[str, str] = {name: name for name in graph.inputs}
    size: dict[str, int] = {n: _bytes(graph.shape(n, "the input")) for n in graph.inputs}
    last: dict[str, int] = {}
    steps: list[tuple[NodeProto, list[str], str]] = []
    for number, node in enumerate(graph.nodes):
        sources = graph.data(node)
        output = node.output[0]
        if _is_in_place(graph, node, sources, buffer):
            buffer[output] = buffer[sources[0]]
            shape = graph.shape(output, layer_of(node))
            size[buffer[output]] = max(size[buffer[output]], _bytes(shape))
        else:
            buffer[output] = output
            size[output] = _bytes(graph.shape(output, layer_of(node)))
            steps.append((node, [buffer[name] for name in sources], output))
        for name in (*sources, output):
            last[buffer[name]] = number
        if output in graph.outputs:
            last[buffer[output]] = len(graph.nodes)
    places = {id(node): number for number, node in enumerate(graph.nodes)}
    made: list[str] = list(graph.inputs)
    for node, sources, output in steps:
        now = places[id(node)]
        waiting = [n for n in made if last[n] > now and n not in sources]
        yield LayerMemory(
            layer=layer_of(node),
            operator=node.op_type,
            shape=graph.shape(output, layer_of(node)),
            inputs=sum(size[name] for name in dict.fromkeys(sources)),
            output=size[output],
            waiting=sum(size[name] for name in waiting),
        )
        made.append(output)


def _is_in_place(
    graph: _Graph, node: NodeProto, sources: Sequence[str], buffer: Mapping[str, str]
) -> bool:
    """Whether a node works on what the layer before it is writing, and needs no memory itself."""
    if len({buffer[name] for name in sources}) != 1 or sources[0] in graph.inputs:
        return False
    if len(sources) > 1:  # the second half of SiLU, x * sigmoid(x), or x * x
        return node.op_type == "Mul"
    others = [reader for reader in graph.readers(sources[0]) if reader is not node]
    if node.op_type == "Sigmoid" and len(others) == 1:
        return others[0].op_type == "Mul" and node.output[0] in others[0].input
    return node.op_type in _IN_PLACE and not others


def _bytes(shape: Sequence[int]) -> int:
    """The bytes of a tensor in memory: (C, H, W), or fewer dimensions."""
    return padded(shape[0]) * math.prod(shape[1:]) if shape else 1


def _weights(graph: _Graph) -> int:
    """The bytes of the weights at eight bits each, their channels padded too."""
    return sum(
        _filters(shape, _attributes(node).get("group", 1))
        for node in graph.nodes
        if node.op_type in _WEIGHED and (shape := graph.weight(node))
    )


def _filters(shape: Shape, group: int) -> int:
    """Bytes of a layer's filters (outputs, inputs of a group, rows, columns), or fewer, and biases.

    Every layer has biases, as batch norms are folded in.
    """
    outputs, inputs, *kernel = shape
    depthwise = group > 1 and inputs == 1
    return padded(outputs) * ((1 if depthwise else padded(inputs)) * math.prod(kernel) + _BIAS)
