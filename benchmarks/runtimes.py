"""Every runtime that is installed beside ONNX Runtime: speed, and whether the masks are the same.

    python benchmarks/runtimes.py --weights default \
        --annotations instances_val2017.json --images val2017

The same weights and the same crops; one thread each; batches of 1 and of 8 crops, 8-bit pixels in,
logits out. The runtimes take turns, and the ratios are of times in the same round. LiteRT's and
ExecuTorch's files are made first, which takes a minute, or are taken from --files. With --also, an
ONNX file such as `default-int8` is run too, by ONNX Runtime and by OpenVINO. Box mIoU, as `picosam2
eval --protocol box` has it, and its difference from ONNX Runtime's need --annotations and --images.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import parser, ratio, take_turns, taken

from picosam2.cli._exit_codes import run_script
from picosam2.cli._text import columns
from picosam2.data.datasets import read_annotations
from picosam2.evaluation.run import evaluate
from picosam2.predictor import Predictor
from picosam2.runtimes.protocol import Runtime
from picosam2.runtimes.weights import DEVICE_FILES, ENDINGS, find_weights, load_runtime

FIRST = "onnx"
PACKAGES = {
    "onnx": ("onnxruntime", "onnxruntime"),
    "torch": ("torch", "torch"),
    "openvino": ("openvino", "openvino"),
    "litert": ("ai_edge_litert", "ai-edge-litert"),
    "executorch": ("executorch", "executorch"),
}
"""Module and distribution of each runtime."""


def main() -> None:
    """Take turns, measure masks, print one table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = parser(__doc__)
    command.add_argument("--weights", default="default", help="shipped, or a safetensors file")
    command.add_argument("--runtimes", nargs="+", choices=[*PACKAGES], default=[*PACKAGES])
    command.add_argument("--files", type=Path, help="folder to keep the exported files in")
    command.add_argument("--also", help="a further ONNX file, or shipped weights: an INT8 one")
    command.add_argument("--rounds", type=int, default=30)
    command.add_argument("--annotations", type=Path)
    command.add_argument("--images", type=Path)
    command.add_argument("--limit", type=int, help="measure the first objects only")
    options = command.parse_args()
    if (options.annotations is None) != (options.images is None):
        command.error("--annotations and --images belong together")
    with ExitStack() as stack:
        folder = options.files or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ways = open_all(options, folder)
    side = ways[FIRST].info.input_size
    crops = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), np.uint8)
    reference = ways[FIRST](crops)
    turns = {
        (name, batch): again(way, crops[:batch]) for name, way in ways.items() for batch in (1, 8)
    }
    seconds = take_turns({f"{name}/{batch}": turn for (name, batch), turn in turns.items()},
                         options.rounds)  # fmt: skip
    rows: dict[str, dict[str, float]] = {}
    for name, way in ways.items():
        row = rows[name] = {}
        for batch in (1, 8):
            times = seconds[f"{name}/{batch}"]
            row[f"ms{batch}"] = 1000 * statistics.median(times)
            row[f"ratio{batch}"] = ratio(times, seconds[f"{FIRST}/{batch}"])
        row["logits"] = float(np.abs(way(crops) - reference).max())
    if options.annotations is not None:
        images = read_annotations("coco", options.annotations, options.images).images
        for name, way in ways.items():
            evaluation = evaluate(Predictor(way), images, protocol="box", limit=options.limit)
            rows[name]["miou"] = float(evaluation.column("iou").mean())
            rows[name]["points"] = 100 * (rows[name]["miou"] - rows[FIRST]["miou"])
            rows[name]["n"] = len(evaluation.measured)
    show(rows, installed(options.runtimes), options.json)


def open_all(options: Any, folder: Path) -> dict[str, Runtime]:
    """The runtimes that are installed, with the weights; ONNX Runtime is always the first."""
    ways: dict[str, Runtime] = {}
    for name in dict.fromkeys([FIRST, *options.runtimes]):
        if find_spec(PACKAGES[name][0]) is None:
            print(f"{name}: not installed", file=sys.stderr)
            continue
        path = find_file(options.weights, name, folder)
        if path is not None:
            ways[name] = load_runtime(path, name, threads=1)
    if options.also is not None:
        for name in (FIRST, "openvino"):
            if name in ways:
                path = find_weights(options.also)
                ways[f"{name}, {path.stem}"] = load_runtime(path, name, threads=1)
    return ways


def find_file(weights: str, runtime: str, folder: Path) -> Path | None:
    """The weights' file for a runtime, exported if it has to be and can be."""
    shipped = not Path(weights).suffix
    ending = ENDINGS[runtime]
    if ending not in DEVICE_FILES and (shipped or ending == Path(weights).suffix):
        return find_weights(weights, runtime)
    path = folder / f"{Path(weights).stem}{ending}"
    if path.is_file():
        return path
    if runtime == "litert" and find_spec("litert_torch") is None:
        print(f"litert: {path} is not there, nor litert-torch to make it", file=sys.stderr)
        return None
    from picosam2.export.onnx import export_onnx, weights_facts
    from picosam2.models.checkpoint import load_weights

    source = find_weights(weights, "torch")
    export: Callable[..., object] = export_onnx
    if runtime == "litert":
        from picosam2.export.litert import export_litert as export
    elif runtime == "executorch":
        from picosam2.export.executorch import export_executorch as export
    export(load_weights(source), path, weights_facts(source))
    return path


def again(way: Runtime, crops: np.ndarray) -> Callable[[], object]:
    """One turn of a runtime: the same crops, eight of them whatever the batch."""

    def turn() -> None:
        for _ in range(8 // len(crops)):
            way(crops)

    return turn


def installed(names: list[str]) -> tuple[str, ...]:
    """The distributions of the runtimes, those that there are."""
    packages = []
    for name in dict.fromkeys([FIRST, *names]):
        try:
            version(PACKAGES[name][1])
        except PackageNotFoundError:
            continue
        packages.append(PACKAGES[name][1])
    return tuple(packages)


def show(
    rows: Mapping[str, Mapping[str, float]], packages: tuple[str, ...], file: Path | None
) -> None:
    """Print where, when, and the table; write the JSON."""
    where = taken(packages)
    versions = " ".join(f"{name} {number}" for name, number in where["versions"].items())
    print(f"{where['processor']}, {where['cores']} cores, one used, {where['date']}; {versions}")
    table = [("runtime", "8 crops one by one [ms]", "/ onnx", "8 in a batch [ms]", "/ onnx",
              "logits' difference", "box mIoU", "points")]  # fmt: skip
    for name, row in rows.items():
        scores = ("", "")
        if "miou" in row:
            scores = (f"{row['miou']:.4f}", f"{row['points']:+.2f}")
        table.append(
            (name, f"{row['ms1']:.1f}", f"{row['ratio1']:.2f}", f"{row['ms8']:.1f}",
             f"{row['ratio8']:.2f}", f"{row['logits']:.1e}", *scores)
        )  # fmt: skip
    print(columns(table))
    counts = {int(row["n"]) for row in rows.values() if "n" in row}
    if counts:
        print(f"mIoU of {counts.pop()} objects; points: hundredths of mIoU above ONNX Runtime's")
    if file is not None:
        file.write_text(json.dumps({"where": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    run_script(main)
