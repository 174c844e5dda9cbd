"""A network whose answers are known: the pixels of the crop that have the color of its middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from picosam2.geometry import CROP_SIZE
from picosam2.runtimes.metadata import METADATA_KEY
from picosam2.runtimes.protocol import RuntimeInfo

SHARPNESS, NEAR = 0.25, 24.0
"""A logit is SHARPNESS * (NEAR - the distance of the colors), summed over R, G and B."""


class ColorRuntime:
    """That network in NumPy, with the two channels (box, click) of the real one."""

    def __init__(self, **facts: Any) -> None:
        self.info = RuntimeInfo(
            name="color",
            input_size=CROP_SIZE,
            channels=2,
            weights_sha256="0" * 64,
            facts=facts,
        )
        self.batches: list[int] = []

    def __call__(self, crops: np.ndarray, guidance: np.ndarray | None = None) -> np.ndarray:
        self.batches.append(len(crops))
        middle = crops[:, CROP_SIZE // 2, CROP_SIZE // 2, None, None].astype(np.float32)
        distance = np.abs(crops - middle).sum(-1)
        logits = np.float32(SHARPNESS) * (np.float32(NEAR) - distance)
        return np.stack([logits, logits], 1)


def write_color_onnx(path: Path) -> Path:
    """The same network as an ONNX file that `OnnxRuntime` opens."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    from picosam2.images import STD

    half = CROP_SIZE // 2
    # The input is normalized: 255 * std turns a difference back into one of 8-bit colors.
    scale = (255 * np.array(STD, np.float32) * -SHARPNESS).reshape(1, 3, 1, 1)
    constants = {
        "from": np.array([half, half]), "to": np.array([half + 1, half + 1]),
        "sides": np.array([2, 3]), "colors": np.array([1]),
        "scale": scale.astype(np.float32), "level": np.float32([SHARPNESS * NEAR]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Slice", ["crops", "from", "to", "sides"], ["middle"]),
        helper.make_node("Sub", ["crops", "middle"], ["difference"]),
        helper.make_node("Abs", ["difference"], ["distance"]),
        helper.make_node("Mul", ["distance", "scale"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "colors"], ["sum"]),
        helper.make_node("Add", ["sum", "level"], ["one"]),
        helper.make_node("Concat", ["one", "one"], ["logits"], axis=1),
    ]
    size = [CROP_SIZE, CROP_SIZE]
    graph = helper.make_graph(
        nodes,
        "color",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["batch", 3, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2, *size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"input_size": CROP_SIZE, "channels": 2, "model": {"name": "color"}}
    helper.set_model_props(model, {METADATA_KEY: json.dumps(facts)})
    checker.check_model(model)
    save(model, path)
    return path


def flat_scene(height: int = 240, width: int = 320) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """An image (H, W, 3) uint8 of flat colors and its objects' masks by name."""
    y, x = np.mgrid[:height, :width] + 0.5
    masks = {
        "disc": np.hypot(x - 0.25 * width, y - 0.35 * height) < 0.16 * height,
        "square": (abs(x - 0.7 * width) < 0.2 * height) & (abs(y - 0.3 * height) < 0.2 * height),
        "bar": (abs(x - 0.5 * width) < 0.3 * width) & (abs(y - 0.8 * height) < 0.08 * height),
    }
    image = np.full((height, width, 3), 40, np.uint8)
    colors = {"disc": (200, 60, 60), "square": (60, 200, 60), "bar": (70, 90, 220)}
    for name, mask in masks.items():
        image[mask] = colors[name]
    return image, masks
