"""`picosam2 quantize`: weights in 8 bits, and what they lose by it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import Threads, Weights
from picosam2.cli._targets import check_files

if TYPE_CHECKING:
    from picosam2.export.int8.calibration import CalibrationConfig


def quantize(
    *,
    store: Annotated[Path, Parameter(metavar="STORE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
    weights: Weights = "default",
    method: Literal["auto", "minmax", "entropy", "percentile"] = "auto",
    samples: Annotated[int, Parameter(validator=Number(gte=2))] = 512,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    validation_images: Annotated[
        int, Parameter(name=("--validation-images", "--photos"), validator=Number(gte=0))
    ] = 120,
    threads: Threads = None,
) -> None:
    """Write weights as an ONNX file in 8 bits (INT8, QDQ), and measure what they lose.

    The ranges of the activations come from crops of the store's training images. Its validation
    images choose the method and say what is lost. The file is used like any other weights.

    Args:
        store: The store that the weights were trained on; of a finder, the image store.
        out: The file to write; it ends in .onnx.
        weights: FP32 weights: shipped ones by name, an ONNX file, or a safetensors file.
        method: How ranges are chosen; auto takes the one that changes the masks least.
        samples: Training crops to calibrate on.
        seed: Which crops: the same seed chooses the same.
        validation_images: Validation images to measure mIoU on, of all sources; 0 takes all.
    """
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns, size
    from picosam2.errors import ConfigError, require
    from picosam2.models.views import FINDER
    from picosam2.runtimes.weights import find_weights, finder_file, read_facts

    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out} is no name for an ONNX file: end it in .onnx")
    check_files(out, kept=[weights])
    for module in ("torch", "safetensors", "onnx", "pycocotools"):
        require(module, "train")
    import tempfile

    from picosam2.data.store import Store
    from picosam2.export.int8.calibration import CalibrationConfig
    from picosam2.export.int8.onnx_int8 import LOSS_LIMIT
    from picosam2.export.int8.onnx_int8 import quantize as run

    config = CalibrationConfig(
        method=method, samples=samples, seed=seed, validation_images=validation_images
    )
    path = finder_file(weights) if weights == FINDER else find_weights(weights)
    if read_facts(path).get("kind") == FINDER:
        _quantize_finder(path, store, out, config, threads)
        return
    opened = Store(store)
    with tempfile.TemporaryDirectory() as folder, progress("calibrating", "samples") as update:
        if path.suffix == ".safetensors":
            from picosam2.export.onnx import export_onnx, weights_facts
            from picosam2.models.checkpoint import load_weights

            exported = Path(folder) / f"{path.stem}.onnx"
            export_onnx(load_weights(path), exported, weights_facts(path))
            path = exported
        made = run(
            path,
            opened,
            out,
            config,
            threads=threads,
            progress=update,
        )
    tried = ", ".join(f"{name} {100 * share:.2f} %" for name, share in made.tried.items())
    rows = [
        ("file", f"{size(made.bytes)} (FP32: {size(made.fp32_bytes)})"),
        ("calibrated on", f"{counted(made.crops, 'crop')}, by {made.method}"),
        ("masks differ by", tried),
        ("error of the logits", f"{made.compared.logit_error:.3f} (root mean square)"),
    ]
    rows += [
        (
            f"mIoU by {name}",
            f"{pair.fp32:.4f} to {pair.int8:.4f} ({100 * pair.change:+.2f} points), "
            f"{counted(pair.objects, 'object')}",
        )
        for name, pair in made.miou.items()
    ]
    print(f"{out}\n{columns(rows, left=2)}")
    for name, pair in made.miou.items():
        if pair.change < -LOSS_LIMIT:
            print(
                f"picosam2: warning: INT8 loses {-100 * pair.change:.2f} points of mIoU by {name}",
                file=sys.stderr,
            )


def _quantize_finder(
    path: Path, images: Path, out: Path, config: CalibrationConfig, threads: int | None
) -> None:
    """Write a finder in 8 bits; `images` is an image store."""
    import tempfile

    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns, size
    from picosam2.data.image_store import ImageStore
    from picosam2.export.int8.finder import quantize_finder

    opened = ImageStore(images)
    with tempfile.TemporaryDirectory() as folder, progress("calibrating", "views") as update:
        if path.suffix == ".safetensors":
            from picosam2.export.onnx import export_finder, weights_facts
            from picosam2.models.checkpoint import load_finder

            exported = Path(folder) / f"{path.stem}.onnx"
            export_finder(load_finder(path), exported, weights_facts(path))
            path = exported
        made = quantize_finder(path, opened, out, config, threads=threads, progress=update)
    tried = ", ".join(f"{name} {error:.4f}" for name, error in made.tried.items())
    rows = [
        ("file", f"{size(made.bytes)} (FP32: {size(made.fp32_bytes)})"),
        ("calibrated on", f"{counted(made.views, 'view')}, by {made.method}"),
        ("objectness differs by", f"{tried} (root mean square)"),
    ]
    print(f"{out}\n{columns(rows, left=2)}")
