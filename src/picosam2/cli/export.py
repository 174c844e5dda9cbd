"""`picosam2 export`: weights in the forms that other programs run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from picosam2._words import counted
from picosam2.cli._groups import EXPORT
from picosam2.cli._options import Threads
from picosam2.cli._targets import check_files, check_folders, check_sources
from picosam2.errors import ConfigError

if TYPE_CHECKING:
    from picosam2.export.imx500.check import Check

app = App(
    name="export",
    help="Write weights in the forms that other programs run.",
    group=EXPORT,
    sort_key=2,
)


@app.command
def onnx(
    *,
    weights: Annotated[str, Parameter(metavar="FILE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
) -> None:
    """Write weights as ONNX, and prove that it gives the same logits as PyTorch.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The file to write; it ends in .onnx.
    """
    _export("onnx", "an ONNX", weights, out, {"onnx": "train"})


@app.command
def litert(
    *,
    weights: Annotated[str, Parameter(metavar="FILE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
    int8: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    store: Annotated[Path | None, Parameter(metavar="STORE")] = None,
    samples: Annotated[int, Parameter(validator=Number(gte=2))] = 256,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
) -> None:
    """Write weights for LiteRT (phones, boards), and prove that it gives the same logits.

    The file takes one crop as RGB pixels from 0 to 255, (1, S, S, 3) float32, and normalizes them
    itself. With --int8 everything in it is an integer, input and output too, as microcontrollers
    and NPUs need it; it is compared by its masks. Extras: `export-litert` here, `litert` to run the
    file.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The file to write; it ends in .tflite.
        int8: Only integers: pixels less 128 in, logits in int8 out.
        store: With --int8: what `picosam2 data prepare` made; crops of its training images set the
            ranges. Without it augmented crops of the bundled sample image do.
        samples: With --int8: crops for the ranges.
        seed: With --int8: chooses the crops.
    """
    if not int8:
        if store is not None or samples != 256 or seed:
            raise ConfigError(
                "--store, --samples and --seed go with --int8: floating point takes no calibration"
            )
        _export("litert", "a LiteRT", weights, out, {"litert_torch": "export-litert"})
        return
    path = _checked(
        "litert",
        "a LiteRT",
        weights,
        out,
        {"pycocotools": "train", "litert_torch": "export-litert"},
    )
    from picosam2.cli._text import size
    from picosam2.export.litert_int8 import (
        LiteRtInt8Config,
        export_finder_litert_int8,
        export_litert_int8,
    )
    from picosam2.export.onnx import weights_facts
    from picosam2.models.checkpoint import load_finder, load_weights
    from picosam2.models.views import FINDER

    config, facts = LiteRtInt8Config(samples=samples, seed=seed), weights_facts(path)
    if facts.get("kind") == FINDER:
        finder = export_finder_litert_int8(load_finder(path), out, facts, config, store=store)
        print(
            f"{out}: {size(finder.bytes)}, ranges from {counted(finder.views, 'view')}; on others "
            f"objectness differs from PyTorch's by {finder.objectness_error:.4f} (root mean square)"
        )
        return
    made = export_litert_int8(load_weights(path), out, facts, config, store=store)
    print(
        f"{out}: {size(made.bytes)}, ranges from {made.crops} crops; on others the masks differ "
        f"from PyTorch's by {made.disagreement:.1%} of their union, the logits by "
        f"{made.relative_error:.1%} of their spread"
    )


@app.command
def executorch(
    *,
    weights: Annotated[str, Parameter(metavar="FILE")],
    out: Annotated[Path, Parameter(metavar="FILE")],
) -> None:
    """Write weights for ExecuTorch (phones, boards), and prove that it gives the same logits.

    The file takes one crop as RGB pixels from 0 to 255, (1, 3, S, S) float32 in channels-last
    order, and normalizes them itself. The extra `executorch` makes the file and runs it.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The file to write; it ends in .pte.
    """
    _export("executorch", "an ExecuTorch", weights, out, {"executorch": "executorch"})


@app.command
def coreml(
    *,
    weights: Annotated[str, Parameter(metavar="NAME|FILE")] = "default",
    out: Annotated[Path, Parameter(metavar="DIR")],
) -> None:
    """Write weights for Core ML (iPhone, iPad, Mac). It is made anywhere and runs on a Mac only.

    The package takes one crop as an image and normalizes it itself. It is not compared with
    PyTorch. The extra `coreml` makes it.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name.
        out: The package to write; it ends in .mlpackage. An earlier one is replaced.
    """
    from picosam2.cli._text import size
    from picosam2.errors import require
    from picosam2.runtimes._silence import silenced
    from picosam2.runtimes.weights import find_weights

    if out.suffix.lower() != ".mlpackage":
        raise ConfigError(f"{out} is no name for a Core ML package: end it in .mlpackage")
    check_folders(out)
    path = find_weights(weights, "torch")
    with silenced():
        for module, extra in (("torch", "train"), ("coremltools", "coreml")):
            require(module, extra)
    from picosam2.export.coreml import export_coreml
    from picosam2.export.onnx import weights_facts
    from picosam2.models.checkpoint import load_weights

    made = export_coreml(load_weights(path), out, weights_facts(path))
    total = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    print(f"{out}: {size(total)}, float16; not compared with PyTorch: it runs on a Mac only")


def _export(
    runtime: str, article: str, weights: str, out: Path, converters: Mapping[str, str]
) -> None:
    """Write the file of a runtime; `converters` are the modules it takes and their extras."""
    from importlib import import_module

    path = _checked(runtime, article, weights, out, converters)
    from picosam2.cli._text import size
    from picosam2.export.onnx import Exported, export_finder, weights_facts
    from picosam2.models.checkpoint import load_finder, load_weights
    from picosam2.models.views import FINDER

    made: Exported
    facts = weights_facts(path)
    finds = facts.get("kind") == FINDER
    if finds and runtime == "onnx":
        made = export_finder(load_finder(path), out, facts)
    elif finds and runtime != "litert":
        raise ConfigError(
            f"{path} is a finder, which runs in onnx, openvino and litert: use `picosam2 export "
            "onnx` or `picosam2 export litert`"
        )
    else:
        export = getattr(import_module(f"picosam2.export.{runtime}"), f"export_{runtime}")
        made = export(load_finder(path) if finds else load_weights(path), out, facts)
    answers = "cells" if finds else "logits"
    print(f"{out}: {size(made.bytes)}, {answers} within {made.largest_difference:.1e} of PyTorch's")


def _checked(
    runtime: str, article: str, weights: str, out: Path, converters: Mapping[str, str]
) -> Path:
    """The safetensors file to export, after everything was checked that costs no time."""
    from picosam2.errors import require
    from picosam2.models.views import FINDER
    from picosam2.runtimes._silence import silenced
    from picosam2.runtimes.weights import ENDINGS, find_weights, finder_file

    if out.suffix.lower() != ENDINGS[runtime]:
        raise ConfigError(f"{out} is no name for {article} file: end it in {ENDINGS[runtime]}")
    check_files(out)
    path = finder_file(weights, "torch") if weights == FINDER else find_weights(weights, "torch")
    needed = {"torch": "train", "safetensors": "train", "onnx": "train", **converters}
    with silenced():
        for module, extra in needed.items():
            require(module, extra)
    return path


@app.command
def hub(
    *,
    weights: Annotated[str, Parameter(metavar="NAME|FILE")] = "default",
    quantized: Annotated[str | None, Parameter(metavar="NAME|FILE")] = None,
    results: Annotated[list[Path] | None, Parameter(negative=(), metavar="FILE")] = None,
    out: Annotated[Path, Parameter(metavar="DIR")],
) -> None:
    """Write a folder for the Hugging Face Hub: weights, their configuration and a model card.

    `Predictor.from_pretrained(DIR)` opens it. Push it with `hf upload ORG/NAME DIR`.

    Args:
        weights: Shipped weights by name, or a safetensors file that `picosam2 train` wrote.
        quantized: The same weights in 8 bits, as `picosam2 quantize` writes them; by default those
            that ship, of shipped weights.
        results: Files of `picosam2 eval --json`, or the report.json of `picosam2 report`: what they
            say of these weights goes into the model card. Repeatable.
        out: The folder to write. Files of an earlier export are replaced, but for an edited
            README.md.
    """
    from picosam2.cli._text import size
    from picosam2.export.hub import export_hub

    made = export_hub(weights, out, quantized=quantized, results=results or ())
    for path in made:
        print(f"{path}: {size(path.stat().st_size)}")


@app.command
def imx500(
    *,
    weights: Annotated[str, Parameter(metavar="NAME|FILE")] = "default",
    store: Annotated[Path | None, Parameter(metavar="STORE")] = None,
    out: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    check: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    recipe: Annotated[str | None, Parameter(metavar="NAME|FILE")] = None,
    set: Annotated[
        list[str] | None, Parameter(name="--set", negative=(), metavar="KEY=VALUE")
    ] = None,
    samples: Annotated[int, Parameter(validator=Number(gte=2))] = 256,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    gptq: Annotated[int, Parameter(validator=Number(gte=0), metavar="EPOCHS")] = 0,
    weights_share: Annotated[float, Parameter(validator=Number(gt=0.25, lte=1))] = 1.0,
    coco: Annotated[tuple[Path, Path] | None, Parameter(negative=(), metavar="FILE DIR")] = None,
    lvis: Annotated[tuple[Path, Path] | None, Parameter(negative=(), metavar="FILE DIR")] = None,
    tools: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    threads: Threads = None,
) -> None:
    """Write weights as the Sony IMX500 image sensor runs them: quantized, in packerOut.zip.

    Sony's tools are fetched on the first run (2 GB) into an environment of their own. They need
    Java 17. A Raspberry Pi then packs the zip file for its camera:
    `imx500-package -i packerOut.zip -o network`.

    Args:
        weights: A safetensors file that `picosam2 train` wrote, or shipped weights by name; with
            --check also an ONNX file.
        store: What `picosam2 data prepare` made; crops of its training images set the thresholds.
            Without it augmented crops of the bundled sample image do, which takes no data.
        out: The folder to write. One that an earlier export wrote is replaced.
        check: Only say, in a second, whether the network will convert and fit, layer by layer.
        recipe: With --check: the network of this recipe instead of weights.
        set: With --recipe: change a setting, for instance `model.input_size=128`. Repeatable.
        samples: Crops for the thresholds.
        seed: Chooses the crops.
        gptq: Also tune the roundings of the weights, over so many epochs (5 is a start).
        weights_share: Mixed precision: bytes of the weights as a share of eight bits each.
        coco: Measure the quantized network, by every protocol, on this annotation file in COCO's
            format and its images.
        lvis: The same on an LVIS annotation file and the folder with COCO's images.
        tools: Where the tools' environment is kept; by default ~/.cache/picosam2.
    """
    from picosam2.cli._progress import progress
    from picosam2.errors import require

    require("onnx", "train")
    if check:
        if out is not None or store is not None or coco is not None or lvis is not None or gptq:
            raise ConfigError(
                "--check only looks: leave it out, or --out, --store, --coco, --lvis and --gptq"
            )
        _check(weights, recipe, set or [])
        return
    if recipe is not None or set:
        raise ConfigError("--recipe and --set go with --check: a recipe has no weights to convert")
    if out is None:
        raise ConfigError("give --out, or --check: see `picosam2 export imx500 --help`")
    for module in ("torch", "safetensors", "pycocotools"):
        require(module, "train")
    from picosam2.data.datasets import read_annotations
    from picosam2.export.imx500.export import MeasuredImages, export_imx500
    from picosam2.export.imx500.quantize import QuantizeConfig
    from picosam2.runtimes.weights import find_weights

    check_folders(out)
    check_sources(*(source for source in (coco, lvis) if source is not None))
    path = find_weights(weights, "torch")
    config = QuantizeConfig(samples=samples, seed=seed, gptq=gptq, weights_share=weights_share)
    data = [
        MeasuredImages(dataset=name, annotations=read_annotations(name, *source))
        for name, source in (("coco", coco), ("lvis", lvis))
        if source is not None
    ]
    with progress("exporting", "steps") as update:
        made = export_imx500(
            path,
            store,
            out,
            config,
            name=weights,
            tools=tools,
            measure=data,
            threads=threads,
            progress=update,
        )
    memory, latency = made.report["memory"], made.report["latency"]
    print(
        f"{out / 'packerOut.zip'}: {memory['used'] / 2**20:.2f} of {memory['total'] / 2**20:.2f} "
        f"MiB, about {latency['ms']:.1f} ms a crop (estimated)"
    )
    if store is None:
        print(
            f"calibrated with {made.report['quantization']['samples']} augmented crops of the "
            "bundled sample image: give --store to calibrate with training images"
        )
    for measured in made.report["measured"]:
        print(
            f"{measured['protocol']}, {measured['dataset']}: mIoU {measured['int8']:.4f}, "
            f"{100 * measured['difference']:+.2f} points against FP32"
        )
    print(f"more in {out / 'report.md'}")


def _check(weights: str, recipe: str | None, changes: list[str]) -> None:
    """Print what the sensor makes of a network. `ConvertError` if it does not take it."""
    from picosam2.errors import require
    from picosam2.export.imx500.check import check_file, mib, refuse
    from picosam2.models.views import FINDER
    from picosam2.runtimes.weights import find_weights, finder_file, read_facts

    if changes and recipe is None:
        raise ConfigError("--set changes a recipe: give --recipe too")
    path = None
    if recipe is None:
        named = weights == FINDER
        path = finder_file(weights, "torch") if named else find_weights(weights)
    if path is not None and path.suffix == ".onnx":
        result = check_file(path)
    else:
        for module in ("torch", "safetensors"):
            require(module, "train")
        from picosam2.export.imx500.export import check_model
        from picosam2.models.checkpoint import load_finder, load_weights
        from picosam2.training.config import changed_finder_recipe, changed_recipe, trains_finder

        if path is not None:
            finds = read_facts(path).get("kind") == FINDER
            result = check_model(load_finder(path) if finds else load_weights(path))
        else:
            assert recipe is not None
            changed = changed_finder_recipe if trains_finder(recipe) else changed_recipe
            result = check_model(changed(recipe, changes).model.build())
    print(_layers(result))
    print(
        f"\nabout {mib(result.total)} of {mib(result.limit)} MiB (estimated): "
        f"{mib(result.activations)} for activations, most at {result.peak.layer}, and "
        f"{mib(result.weights)} for weights"
    )
    for problem in result.problems:
        if not problem.certain:
            print(problem)
    refuse(result)
    print("nothing is known that keeps it off the sensor")


def _layers(result: Check) -> str:
    """What is in memory while each layer runs."""
    from picosam2.cli._text import columns
    from picosam2.export.imx500.check import mib

    rows = [("layer", "operator", "gives", "MiB then")]
    rows += [
        (layer.layer, layer.operator, "x".join(map(str, layer.shape)), mib(layer.bytes))
        for layer in result.layers
    ]
    return columns(rows, left=2)
