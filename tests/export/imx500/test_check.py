"""What the sensor makes of a network, told from its ONNX graph: operators and memory."""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from helpers.configs import CONFIGS
from helpers.variants import VariantConfig
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from picosam2.errors import WeightsError
from picosam2.export.imx500.check import (
    MEMORY,
    Check,
    ConvertError,
    check_file,
    check_graph,
    padded,
    refuse,
)
from picosam2.export.imx500.export import check_model
from picosam2.export.onnx import export_onnx
from picosam2.models.network import PicoSAM2
from picosam2.runtimes.weights import find_weights, shipped

PAPER = VariantConfig()
MIB = 1024**2


def exported(module: nn.Module, *, size: int = 24, channels: int = 64, opset: int = 20) -> Check:
    """The check of one layer between two ordinary convolutions."""
    network = nn.Sequential(nn.Conv2d(3, channels, 1), module, nn.LazyConv2d(8, 1)).eval()
    example = torch.zeros(1, 3, size, size)
    network(example)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (example,), buffer, opset_version=opset, dynamo=False)
    return check_graph(onnx.load_from_string(buffer.getvalue()))


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Eca(nn.Module):
    """Channel attention by a convolution that slides over the pooled channels."""

    def __init__(self) -> None:
        super().__init__()
        self.slide = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        weights = self.slide(pooled.squeeze(-1).transpose(1, 2)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(weights)


REFUSED = {
    "align_corners": (
        Call(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)),
        "align_corners",
        "half-pixel",
    ),
    "depthwise transposed": (nn.ConvTranspose2d(64, 64, 2, 2, groups=64), "grouped", "2x2"),
    "padded transposed": (nn.ConvTranspose2d(64, 64, 4, 2, padding=1), "padded 4x4", "2x2"),
    "pixel shuffle": (nn.PixelShuffle(2), "DepthToSpace", "2x2 transposed"),
    "grouped stride 2": (nn.Conv2d(64, 64, 3, 2, 1, groups=4), "in 4 groups", "depthwise"),
    "ECA": (Eca(), "1-D convolution", "2-D convolution"),
    "PReLU": (nn.PReLU(64), "PRelu", "ReLU"),
    "ELU": (nn.ELU(), "Elu", "SiLU"),
    "Mish": (nn.Mish(), "Softplus", "SiLU"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_does_not_convert_is_named_with_what_to_use_instead(name: str) -> None:
    layer, operator, instead = REFUSED[name]
    export = exported(layer)
    (problem,) = [problem for problem in export.problems if problem.certain]
    assert operator in problem.operator
    assert instead in problem.instead
    assert problem.layer
    assert not export.converts
    with pytest.raises(ConvertError, match=r"cannot run this network: .*use ") as caught:
        refuse(export)
    assert problem.layer in str(caught.value)


CONVERTS = {
    "nearest": Call(lambda x: F.interpolate(x, scale_factor=2.0)),
    "bilinear": Call(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear")),
    "transposed 2x2": nn.ConvTranspose2d(64, 64, 2, 2),
    "depthwise stride 2": nn.Conv2d(64, 64, 3, 2, 1, groups=64),
    "dense stride 2": nn.Conv2d(64, 64, 3, 2, 1),
    "grouped": nn.Conv2d(64, 64, 3, 1, 1, groups=4),
    "dilated": nn.Conv2d(64, 64, 3, padding=4, dilation=4),
    "max-pool": nn.MaxPool2d(2),
    "average pool": nn.AvgPool2d(2),
    "ReLU6": nn.ReLU6(),
    "LeakyReLU": nn.LeakyReLU(0.1),
    "SiLU": nn.SiLU(),
    "hard-swish": nn.Hardswish(),
    "GELU": nn.GELU(),
    "concat": Call(lambda x: torch.cat([x, x], 1)),
    "squeeze and excitation": Call(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))),
}


@pytest.mark.parametrize("name", sorted(CONVERTS))
def test_what_converts_is_let_pass(name: str) -> None:
    export = exported(CONVERTS[name])
    assert export.problems == ()
    assert export.converts
    refuse(export)


def test_gelu_needs_a_new_opset() -> None:
    (problem,) = [p for p in exported(nn.GELU(), opset=17).problems if p.certain]
    assert problem.operator == "Erf"
    assert "opset 20" in problem.instead


def test_what_was_never_tried_is_said_but_not_refused() -> None:
    export = exported(Call(torch.cos))
    (problem,) = export.problems
    assert (problem.operator, problem.certain) == ("Cos", False)
    assert "may not convert" in str(problem)
    refuse(export)


TWICE = replace(PAPER, widths=(96, 192, 320, 512), bottleneck=640, decoder=(384, 256, 160, 80))
VARIANTS = {
    "paper": (PAPER, 3.55),
    "input 128": (replace(PAPER, input_size=128), 5.32),
    "input 160": (replace(PAPER, input_size=160), 7.60),
    "stem, input 192": (replace(PAPER, input_size=192, stem="stride2"), 3.64),
    "stem, input 256": (replace(PAPER, input_size=256, stem="stride2"), 5.47),
    "stem, input 320": (replace(PAPER, input_size=320, stem="stride2"), 7.82),
    "input 192": (replace(PAPER, input_size=192), 10.4),
    "self-attention": (replace(PAPER, attention="self"), 3.70),
    "SiLU": (replace(PAPER, activation="silu"), 3.56),
    "hard-swish": (replace(PAPER, activation="hard-swish"), 3.56),
    "max-pool": (replace(PAPER, down="maxpool"), 2.65),
    "depthwise down": (replace(PAPER, down="depthwise"), 2.65),
    "kernel 5": (replace(PAPER, kernel=5), 3.59),
    "dilation": (replace(PAPER, dilation=2), 3.55),
    "coarse head": (replace(PAPER, decoder=(192, 128)), 2.10),
    "width x2": (TWICE, 8.55),
}
"""MiB that the converter's memory report says, or that it misses, from runs of the converter."""


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_the_estimate_is_close_to_the_converters_report(name: str) -> None:
    config, reported = VARIANTS[name]
    check = check_model(config.build())
    assert check.problems == ()
    assert check.total / MIB == pytest.approx(reported, abs=0.03)
    assert check.fits is (reported < 8)


WIDER = replace(PAPER, widths=(72, 144, 240, 384), bottleneck=480, decoder=(288, 192, 120, 60))
PARTS = {
    "two channels": (replace(PAPER, logits=2), 1_323_392, 2_403_424),
    "input 128": (replace(PAPER, input_size=128), 1_323_392, 4_259_936),
    "stem": (replace(PAPER, input_size=192, stem="stride2", logits=2), 1_327_744, 2_511_904),
    "attention and IoU": (
        replace(PAPER, logits=2, attention="channel", heads=("iou",)), 1_367_264, 2_404_384,
    ),
    "width x1.5": (WIDER, 3_056_384, 3_292_288),
}  # fmt: skip
"""Bytes of weights and of activations that converter 3.18.2 wrote into dnnParams.xml."""


@pytest.mark.parametrize("name", sorted(PARTS))
def test_so_are_its_parts(name: str) -> None:
    config, weights, activations = PARTS[name]
    check = check_model(config.build())
    assert check.weights == pytest.approx(weights, rel=0.01)
    assert check.activations == pytest.approx(activations, rel=0.012)


@pytest.mark.parametrize("config", [replace(PAPER, input_size=192), TWICE])
def test_what_does_not_fit_names_the_layer_to_blame(config: VariantConfig) -> None:
    check = check_model(config.build())
    assert not check.fits
    assert check.peak.layer == "decoder.3.0"  # the last decoder's depthwise convolution
    with pytest.raises(ConvertError, match=r"does not fit into the sensor: .*decoder\.3\.0"):
        refuse(check)


@pytest.mark.parametrize(
    "config",
    [
        replace(PAPER, logits=2),
        replace(PAPER, logits=2, attention="channel", heads=("iou",)),
        replace(PAPER, input_size=192, stem="stride2", attention="channel", heads=("iou",)),
    ],
)
def test_variants_of_the_network_can_be_checked(config: VariantConfig) -> None:
    check = check_model(config.build())
    assert check.problems == ()
    assert check.converts


def test_the_peak_is_where_the_memory_report_has_it() -> None:
    """The last depthwise convolution reads and writes 80 channels, stored as 96, beside the skip's
    48, stored as 64."""
    peak = check_model(PAPER.build()).peak
    assert (peak.layer, peak.operator, peak.shape) == ("decoder.3.0", "Conv", (80, 96, 96))
    assert peak.inputs == peak.output == 96 * 96 * 96
    assert peak.waiting == 64 * 96 * 96


@pytest.mark.parametrize("width", [40, 64])
def test_channels_are_paid_for_in_thirty_twos(width: int) -> None:
    base = check_model(replace(PAPER, widths=(64, 96, 160, 256)).build())
    check = check_model(replace(PAPER, widths=(width, 96, 160, 256)).build())
    assert check.activations == base.activations


@given(st.integers(1, 4000))
def test_padding(channels: int) -> None:
    assert padded(channels) % 32 == 0
    assert channels <= padded(channels) < channels + 32


def test_mish_as_one_operator_is_named_too() -> None:
    check = check_graph(one_node("Mish", ["batch", 3, 8, 8], opset=18))
    assert [problem.operator for problem in check.problems] == ["Mish"]


@pytest.mark.skipif("default" not in shipped(), reason="no weights are shipped yet")
def test_shipped_weights_are_checked_in_a_second() -> None:
    path = find_weights("default")
    started = time.process_time()
    check = check_file(path)
    assert time.process_time() - started < 2  # 0.3 s where it was written
    assert check.converts
    assert check.total < MEMORY / 2
    assert check.to_json()["memory"]["total"] == check.total


def test_a_branch_for_guidance_is_not_on_the_sensor(tmp_path: Path) -> None:
    checked = []
    for name, guidance in (("plain", False), ("guided", True)):
        torch.manual_seed(0)
        model = PicoSAM2(replace(CONFIGS["half size"], guidance=guidance)).eval()
        export_onnx(model, tmp_path / f"{name}.onnx")
        checked.append(check_file(tmp_path / f"{name}.onnx").to_json()["memory"])
    assert checked[0] == checked[1]


def test_files_that_are_no_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="check the path"):
        check_file(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(WeightsError):
        check_file(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(WeightsError):
        check_file(tmp_path / "empty.onnx")


def one_node(kind: str, shape: list[object], opset: int = 17) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(kind, ["image"], ["logits"])],
            "one",
            [value("image", TensorProto.FLOAT, shape)],
            [value("logits", TensorProto.FLOAT, shape)],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
    )


def test_a_quantized_network_is_told_apart() -> None:
    with pytest.raises(WeightsError, match="quantized already"):
        check_graph(one_node("QuantizeLinear", ["batch", 3, 8, 8]))


def test_shapes_that_are_not_known() -> None:
    with pytest.raises(WeightsError, match="shape"):
        check_graph(one_node("Relu", ["batch", 3, "height", "width"]))
