"""The report of an export: numbers as JSON, and the same numbers as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from picosam2.export.imx500.check import mib

FILE, TEXT = "report.json", "report.md"

STORE, SAMPLE = "training crops", "augmented crops of the bundled sample image"
"""What a network can be calibrated with."""

PAPER_MACS, PAPER_MS, PAPER_MACS_PER_CYCLE = 336e6, 14.3, 86.0
"""What the paper (arXiv 2506.18807) measured with its network on the sensor."""

CLOCK = PAPER_MACS / PAPER_MACS_PER_CYCLE / (PAPER_MS / 1000)
"""Cycles a second that these three numbers give: 273 million."""

HOW_LATENCY = (
    f"an estimate, not a measurement: MACs / {PAPER_MACS_PER_CYCLE:.0f} a cycle / "
    f"{CLOCK / 1e6:.0f} MHz. Both are from the paper, whose network of {PAPER_MACS / 1e6:.0f} M "
    f"MACs took {PAPER_MS} ms on the sensor; Sony's tools give no cycles. A network of another "
    "build keeps the sensor busy to another degree. On the device, picamera2's "
    "IMX500.get_kpi_info() tells the true time"
)


def latency_ms(macs: int) -> float:
    """The estimated milliseconds of so many multiply-accumulates on the sensor."""
    return macs / PAPER_MACS_PER_CYCLE / CLOCK * 1000


def markdown(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    memory, network, latency = report["memory"], report["network"], report["latency"]
    quantization = report["quantization"]
    total = memory["total"]
    parts = [(n, memory[n]) for n in ("weights", "activations", "reserved", "used")]
    lines = [
        "# For the IMX500",
        "",
        f"Weights `{report['weights']['name']}`, SHA-256 `{report['weights']['sha256'][:12]}`: "
        f"{network['parameters']:,} parameters, {network['macs'] / 1e6:.1f} M multiply-accumulates "
        "a crop.",
        "",
        "## Memory on the sensor",
        "",
        "| part | MiB | share |",
        "| :-- | --: | --: |",
        *(f"| {name} | {mib(size)} | {size / total:.1%} |" for name, size in parts),
        f"| of | {mib(total)} | 100.0% |",
        "",
        f"Estimated before converting: {mib(memory['estimated'])} MiB. The activations are largest "
        f"at `{memory['peak_layer']}`.",
        "",
        "## Files",
        "",
        "| file | bytes | SHA-256 |",
        "| :-- | --: | :-- |",
        *(
            f"| {name} | {file['bytes']:,} | `{file['sha256'][:12]}` |"
            for name, file in report["files"].items()
        ),
        "",
        "## Speed",
        "",
        f"About {latency['ms']:.1f} ms a crop: {latency['how']}.",
        "",
        "## Input and outputs",
        "",
        *_tensors(report),
        "",
        "## Quantization",
        "",
        f"{quantization['samples']} {quantization['crops']}, chosen by seed "
        f"{quantization['seed']}, "
        f"{_method(quantization)}. Layers by the bits of their weights: "
        f"{', '.join(f'{count} of {bits}' for bits, count in quantization['bits'].items())}.",
        "",
        *_agreement(quantization),
        "",
        *_measured(report["measured"]),
        f"Made with {', '.join(f'{k} {v}' for k, v in report['versions'].items())}.",
    ]
    return "\n".join(lines) + "\n"


def _method(quantization: Mapping[str, Any]) -> str:
    text = "no training"
    if quantization["gptq"]:
        text = f"roundings tuned over {quantization['gptq']} epochs (GPTQ)"
    if quantization["weights_share"] < 1:
        text += f", weights in {quantization['weights_share']:.0%} of eight bits (mixed precision)"
    return text


def _tensors(report: Mapping[str, Any]) -> list[str]:
    lines = ["| | shape | bits | a step | name |", "| :-- | :-- | :-- | --: | :-- |"]
    for kind in ("inputs", "outputs"):
        for tensor in report[kind]:
            sign = "signed" if tensor["signed"] else "unsigned"
            shape = " x ".join(map(str, tensor["shape"]))
            lines.append(
                f"| {kind[:-1]} | {shape} | {tensor['bits']} {sign} | {tensor['scale']:g} | "
                f"{tensor['name']} |"
            )
    return [*lines, "", report["preprocessing"]]


def _agreement(quantization: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, row in quantization["outputs"].items():
        simulated, toolkit = row["simulated"], row["converted"]
        lines.append(
            f"`{name}` in steps of {row['step']:g}, root mean square error {row['rms_error']:.3f} "
            f"against FP32. On {quantization['compared']} crops, `simulated.onnx` (measured below) "
            f"and the file that is converted differ in {simulated['share']:.3%} of the numbers, by "
            f"{_steps(simulated, row)} at most; the toolkit's own PyTorch model differs from it in "
            f"{toolkit['share']:.3%}, by {_steps(toolkit, row)} at most. How far the sensor agrees "
            "was not measured."
        )
    return lines


def _steps(difference: Mapping[str, float], output: Mapping[str, Any]) -> str:
    steps = difference["largest"] / output["step"] if output["step"] else 0.0
    return f"{steps:.3g} step{'' if round(steps) == 1 else 's'}"


def _measured(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    if not measured:
        return []
    rows = [
        f"| {row['protocol']} | {row['dataset']} | {row['n']:,} | {row['fp32']:.4f} | "
        f"{row['int8']:.4f} | {100 * row['difference']:+.2f} | "
        f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f} |"
        for row in measured
    ]
    return [
        "## Accuracy",
        "",
        "mIoU of `simulated.onnx` beside the same weights in FP32, on the same objects:",
        "",
        "| protocol | data | objects | FP32 | quantized | points | 95 % interval |",
        "| :-- | :-- | --: | --: | --: | --: | --: |",
        *rows,
        "",
    ]
