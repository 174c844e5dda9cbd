"""Runtimes with a second input: what is known of the object beside the crop."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from picosam2.errors import ImageError, WeightsError
from picosam2.images import normalize
from picosam2.runtimes.onnx import OnnxRuntime
from picosam2.runtimes.onnx_file import with_metadata
from picosam2.runtimes.openvino import OpenVinoRuntime
from picosam2.runtimes.protocol import FlipAverage, Runtime

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

SIDE = 8
CROPS = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
PLANES = np.random.default_rng(1).random((5, 3, SIDE, SIDE), np.float32)


def write(path: Path, *, guided: bool, says_so: bool) -> Path:
    """A network that adds its guidance to the normalized crop."""
    shape = ["batch", 3, SIDE, SIDE]
    names = ["image", "guidance"] if guided else ["image"]
    node = (
        helper.make_node("Add", names, ["logits"])
        if guided
        else helper.make_node("Identity", names, ["logits"])
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    facts = {"input_size": SIDE, "channels": 3, "model": {"guidance": says_so}}
    path.write_bytes(with_metadata(model.SerializeToString(), facts))
    return path


@pytest.fixture(params=[OnnxRuntime, OpenVinoRuntime])
def open_it(request: pytest.FixtureRequest) -> Callable[[Path], Runtime]:
    if request.param is OpenVinoRuntime and importlib.util.find_spec("openvino") is None:
        pytest.skip("the Python package openvino is not installed")
    return request.param  # type: ignore[no-any-return]


def test_guidance_goes_with_its_crop(open_it: Callable[[Path], Runtime], tmp_path: Path) -> None:
    runtime = open_it(write(tmp_path / "m.onnx", guided=True, says_so=True))
    assert runtime.info.guidance
    many = np.concatenate([CROPS] * 4), np.concatenate([PLANES] * 4)  # more than one batch
    np.testing.assert_allclose(runtime(*many), normalize(many[0]) + many[1], atol=1e-5)


def test_no_guidance_is_all_zeros(open_it: Callable[[Path], Runtime], tmp_path: Path) -> None:
    runtime = open_it(write(tmp_path / "m.onnx", guided=True, says_so=True))
    np.testing.assert_array_equal(runtime(CROPS), runtime(CROPS, np.zeros_like(PLANES)))
    np.testing.assert_allclose(runtime(CROPS), normalize(CROPS), atol=1e-5)


def test_files_without_it_still_run_and_refuse_it(
    open_it: Callable[[Path], Runtime], tmp_path: Path
) -> None:
    runtime = open_it(write(tmp_path / "m.onnx", guided=False, says_so=False))
    assert not runtime.info.guidance
    np.testing.assert_allclose(runtime(CROPS), normalize(CROPS), atol=1e-5)
    with pytest.raises(WeightsError, match="take no guidance"):
        runtime(CROPS, PLANES)


@pytest.mark.parametrize("guided", [True, False])
def test_a_file_that_says_otherwise_is_refused(
    guided: bool, open_it: Callable[[Path], Runtime], tmp_path: Path
) -> None:
    path = write(tmp_path / "m.onnx", guided=guided, says_so=not guided)
    with pytest.raises(WeightsError, match="does not take crops"):
        open_it(path)


@pytest.mark.parametrize(
    "wrong", [PLANES[:4], PLANES[:, :2], PLANES.astype(np.float64), PLANES[..., :4]]
)
def test_guidance_of_another_shape_or_type(wrong: np.ndarray, tmp_path: Path) -> None:
    runtime = OnnxRuntime(write(tmp_path / "m.onnx", guided=True, says_so=True))
    with pytest.raises(ImageError, match=r"float32 array of shape \(5, 3, 8, 8\)"):
        runtime(CROPS, wrong)


def test_flipping_flips_guidance_too(tmp_path: Path) -> None:
    runtime = OnnxRuntime(write(tmp_path / "m.onnx", guided=True, says_so=True))
    expected = normalize(CROPS) + PLANES  # the network has no side, so the mean is one of them
    np.testing.assert_allclose(FlipAverage(runtime)(CROPS, PLANES), expected, atol=1e-5)
    assert json.dumps(runtime.info.facts["model"]) == '{"guidance": true}'


def test_a_model_without_its_branch_takes_no_guidance_whatever_the_file_says() -> None:
    pytest.importorskip("torch")
    from helpers.configs import CONFIGS

    from picosam2.models.network import PicoSAM2, without_guidance
    from picosam2.runtimes.torch import TorchRuntime

    model = PicoSAM2(replace(CONFIGS["half size"], guidance=True))
    facts = {"model": asdict(model.config), "name": "a file's"}
    runtime = TorchRuntime(without_guidance(model), facts=facts)
    assert not runtime.info.guidance
    assert runtime.info.facts["name"] == "a file's"
    assert facts["model"]["guidance"]
    assert TorchRuntime(model, facts=facts).info.guidance
