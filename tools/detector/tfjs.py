"""Runs the graph of a TensorFlow.js model file with torch, as far as NanoDet needs it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_FULL = {"float32": "<f4", "int32": "<i4"}


class Graph:
    """A model of nodes by name. Inputs and outputs are named tensors."""

    def __init__(self, path: Path) -> None:
        """Read `path`, the JSON of the graph, and the weights' files that it names beside it."""
        model = json.loads(path.read_text())
        self._nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        self._weights: dict[str, Tensor] = {}
        for group in model["weightsManifest"]:
            content = b"".join(
                (path.parent / Path(name).name).read_bytes() for name in group["paths"]
            )
            start = 0
            for weight in group["weights"]:
                half = weight.get("quantization", {}).get("dtype") == "float16"
                kind = np.dtype("<f2" if half else _FULL[weight["dtype"]])
                count = math.prod(weight["shape"])
                values = np.frombuffer(content, kind, count, start).reshape(weight["shape"])
                start += count * kind.itemsize
                full = np.float32 if half else kind.newbyteorder("=")
                self._weights[weight["name"]] = torch.from_numpy(values.astype(full))
            if start != len(content):
                raise ValueError(f"{path}: the weights' files have another length than it says")

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, Tensor], outputs: list[str]) -> list[Tensor]:
        """The outputs for some inputs."""
        known: dict[str, Any] = {**self._weights, **inputs}

        def value(reference: str) -> Any:
            name, _, place = reference.partition(":")
            waiting = [name]
            while waiting:  # depth first; a chain of nodes is longer than Python's stack
                top = waiting[-1]
                if top in known:
                    waiting.pop()
                    continue
                needs = [source.partition(":")[0] for source in self._nodes[top].get("input", ())]
                missing = [source for source in needs if source not in known]
                waiting += missing
                if not missing:
                    known[top] = _run(self._nodes[top], value)
            answer = known[name]
            return answer[int(place or 0)] if isinstance(answer, tuple) else answer

        return [value(name) for name in outputs]


def _run(node: dict[str, Any], value: Callable[[str], Any]) -> Any:
    """What a node gives. Images are (B, H, W, C) for convolutions and pooling, as in TensorFlow."""
    attributes, operation = node.get("attr", {}), node["op"]
    inputs = [value(name) for name in node["input"]]
    if operation == "Conv2D":
        x_BCHW, weight = inputs[0].permute(0, 3, 1, 2), inputs[1].permute(3, 2, 0, 1)
        _need(attributes, padding="VALID")
        stride = [int(side) for side in attributes["strides"]["list"]["i"][1:3]]
        groups = x_BCHW.shape[1] // weight.shape[1]
        return F.conv2d(x_BCHW, weight, stride=stride, groups=groups).permute(0, 2, 3, 1)
    if operation == "MaxPool":
        _need(attributes, padding="VALID")
        kernel, stride = (
            [int(side) for side in attributes[name]["list"]["i"][1:3]]
            for name in ("ksize", "strides")
        )
        return F.max_pool2d(inputs[0].permute(0, 3, 1, 2), kernel, stride).permute(0, 2, 3, 1)
    if operation == "ResizeBilinear":
        if not attributes["half_pixel_centers"]["b"]:
            raise ValueError("a resize of another kind than half-pixel centers")
        x_BCHW = inputs[0].permute(0, 3, 1, 2)
        resized = F.interpolate(x_BCHW, inputs[1].tolist(), mode="bilinear")
        return resized.permute(0, 2, 3, 1)
    if operation in ("Add", "AddV2"):
        return inputs[0] + inputs[1]
    if operation == "LeakyRelu":
        return F.leaky_relu(inputs[0], float(attributes["alpha"]["f"]))
    if operation == "Sigmoid":
        return inputs[0].sigmoid()
    if operation == "Identity":
        return inputs[0]
    if operation == "Transpose":
        return inputs[0].permute(*inputs[1].tolist())
    if operation in ("Pad", "PadV2"):
        sides = [side for pair in reversed(inputs[1].tolist()) for side in pair]
        return F.pad(inputs[0], sides, value=float(inputs[2]) if operation == "PadV2" else 0.0)
    if operation == "ConcatV2":
        return torch.cat(inputs[:-1], int(inputs[-1]))
    if operation == "SplitV":
        return torch.split(inputs[0], inputs[1].tolist(), int(inputs[2]))
    if operation == "Reshape":
        return inputs[0].reshape([int(side) for side in inputs[1].tolist()])
    if operation == "SparseToDense":
        dense = torch.full(inputs[1].tolist(), float(inputs[3]))
        if inputs[0].numel():
            dense[tuple(inputs[0].long().T)] = inputs[2].float()
        return dense
    raise ValueError(f"no rule for the operation {operation}")


def _need(attributes: dict[str, Any], **wanted: str) -> None:
    for name, value in wanted.items():
        if base64.b64decode(attributes[name]["s"]).decode() != value:
            raise ValueError(f"{name} is not {value}")
