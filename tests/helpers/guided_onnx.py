"""A network with guidance whose answer is known: the mask so far, joined and cut by the clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from picosam2.runtimes.onnx_file import with_metadata

SIDE = 96


def write_guided_onnx(path: Path) -> Path:
    """Logits of -8, with 16 more on the mask so far and on positive clicks, 32 less on negative."""
    shape = ["batch", 3, SIDE, SIDE]
    kernel = np.array([16, 16, -32], np.float32).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["image", "none"], ["nothing"]),
        helper.make_node("Conv", ["guidance", "kernel", "bias"], ["guided"]),
        helper.make_node("Add", ["guided", "nothing"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name in ("image", "guidance")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.zeros_like(kernel), "none"),
            numpy_helper.from_array(np.array([-8], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"input_size": SIDE, "channels": 1, "model": {"guidance": True}}
    path.write_bytes(with_metadata(model.SerializeToString(), facts))
    return path
