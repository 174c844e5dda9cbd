"""`picosam2 eval`: how good weights are on images with masks, beside baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._measuring import check_peer, open_peer
from picosam2.cli._options import Flip, RuntimeName, Threads, Weights
from picosam2.cli._targets import check_files, check_sources
from picosam2.errors import ConfigError, DataError, require

if TYPE_CHECKING:
    from picosam2.data.coco import AnnotatedImage
    from picosam2.evaluation.leak_check import Leaks
    from picosam2.evaluation.models import ModelUnderTest
    from picosam2.evaluation.run import Evaluation
    from picosam2.predictor import Predictor


def evaluate(
    *,
    images: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    annotations: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    domains: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    dataset: Literal["coco", "lvis"] = "coco",
    protocol: Literal["box", "click", "click-inside", "paper-point", "paper-roi"] = "box",
    weights: Weights = "default",
    peer: Annotated[str | None, Parameter(metavar="KIND:WHERE")] = None,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    first: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    check_leak: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    pixel_baselines: Annotated[bool, Parameter(negative="")] = False,
    jitter: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.0,
    json: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    plot: Annotated[Path | None, Parameter(metavar="FILE.svg")] = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
    flip: Flip = False,
) -> None:
    """Measure weights on annotated images.

    `box`, `click` and `click-inside` are what a user gets: the object's true box, its center point
    or a random point inside it is the prompt, and IoU is measured on the whole image.
    `paper-point` and `paper-roi` repeat the published measurements on the crop. Crowds and empty
    masks are skipped.

    --peer measures another model of the SAM family instead, the same way on the same objects;
    `picosam2 compare` then tells the two apart.

    Args:
        images: The folder of the images.
        domains: Instead of --images and --annotations: a folder with a sub-folder for each of
            several sets, with images/ and instances.json in COCO's format. Every set is measured
            by box, click and click-inside, and the mean is over sets.
        annotations: Masks in COCO's or LVIS's format.
        dataset: The annotations' format.
        protocol: Which prompt each object gives, and where IoU is measured.
        peer: `onnx:ENCODER,DECODER` for a pair of ONNX files in SAM's layout (or a folder with
            encoder.onnx and decoder.onnx), `sam2:FOLDER` for a folder in Hugging Face's format
            (likewise sam, edgetam; extra `sam2`).
        limit: Measure the first objects only, image by image.
        first: Measure only the first annotations of the file, as published results do (1000).
        check_leak: Warn if images measured on are in this training store, or in this folder of
            training images.
        pixel_baselines: Also flood fill and GrabCut, which take their time (extra `baselines`).
        jitter: Move the box's edges, or the click, by up to this share of the object's box.
        json: Also write the numbers, of every object too, to this file.
        plot: With --domains: also draw them to this file.
    """
    check_peer(peer, weights, runtime, flip=flip)
    if check_leak is not None and not check_leak.is_dir():
        raise DataError(f"there is no folder {check_leak}: check the path")
    if pixel_baselines:
        require("cv2", "baselines")
    if (images is None or annotations is None) and domains is None:
        raise ConfigError("give --images and --annotations, or --domains")
    if plot is not None and domains is None:
        raise ConfigError("--plot is for --domains; `picosam2 report` draws the others")
    if plot is not None and plot.suffix != ".svg":
        raise ConfigError(f"--plot writes SVG: {plot} should end in .svg")
    if domains is not None:
        if images or annotations or first or jitter or pixel_baselines:
            raise ConfigError(
                "--domains has its own images and protocols: leave --images, --annotations, "
                "--first, --jitter and --pixel-baselines out"
            )
        if protocol != "box" or dataset != "coco":
            raise ConfigError(
                "--domains measures sets in COCO's format by box, click and click-inside: leave "
                "--protocol and --dataset out"
            )
        check_files(json, plot)
        if plot is not None:
            require("matplotlib", "train")
        if not domains.is_dir():
            raise DataError(f"there is no folder {domains}: check the path")
        opened = _open(weights, peer, runtime, threads, flip)
        _evaluate_domains(domains, *opened, limit, check_leak, json, plot)
        return
    if jitter and protocol == "click-inside":
        raise ConfigError("the points of click-inside are anywhere already: leave --jitter out")
    assert images is not None
    assert annotations is not None
    check_files(json)
    check_sources((annotations, images))
    from picosam2._files import write_json
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.protocols import first_annotations
    from picosam2.evaluation.run import evaluate as measure

    model, facts = _open(weights, peer, runtime, threads, flip)
    read = read_annotations(dataset, annotations, images)
    annotated = read.images_to_measure()
    if first is not None:
        annotated = tuple(first_annotations(annotations, annotated, first))
    leaks = None if check_leak is None else _check_leak(annotated, check_leak)
    with progress(f"measuring {protocol}", "objects") as update:
        result = measure(
            model,
            annotated,
            protocol=protocol,
            dataset=dataset,
            limit=limit,
            jitter=jitter,
            pixel_baselines=pixel_baselines,
            weights=facts,
            leak=None if leaks is None else leaks.to_json(),
            progress=update,
        )
    if leaks is not None and leaks.warning:
        print(f"picosam2: warning: {leaks.warning}", file=sys.stderr)
    print(_table(result))
    problems = [f"{p.where}: {p.what}" for p in (*read.problems, *result.problems)]
    name_problems(problems, "images or annotations skipped")
    if json is not None:
        more = {
            **_costs(model),
            "files": {"annotations": annotations.name, "images": images.name},
            "first": first,
            "limit": limit,
            "flip": flip,
            "crowds": read.crowds,
            "problems": problems,
        }
        write_json(json, {**result.to_json(), **more})


def _evaluate_domains(
    folder: Path,
    model: Predictor | ModelUnderTest,
    facts: dict[str, Any],
    limit: int | None,
    check_leak: Path | None,
    json: Path | None,
    plot: Path | None,
) -> None:
    """Measure every set of a folder."""
    from picosam2._files import write_json, write_text
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns, name_problems
    from picosam2.evaluation.domains import evaluate_domains, read_domains
    from picosam2.evaluation.leak_check import training_images

    sets = read_domains(folder)
    store = None if check_leak is None else training_images(check_leak)
    with progress("measuring", "objects") as update:
        result = evaluate_domains(
            model, sets, limit=limit, store=store, weights=facts, progress=update
        )
    for name, leaks in result.leaks.items():
        if leaks["met"]:
            print(
                f"picosam2: warning: {leaks['met']} of the {leaks['checked']} images of {name} "
                f"are in the training store, for instance {leaks['photos'][0]}: its scores do "
                "not show how the weights do on new images",
                file=sys.stderr,
            )
    print(columns(list(result.rows())))
    problems = [f"{problem.where}: {problem.what}" for problem in result.problems]
    name_problems(problems, "images or annotations skipped")
    if json is not None:
        write_json(json, {**result.to_json(), "weights": facts, "limit": limit, **_costs(model)})
    if plot is not None:
        from picosam2.reports.domains import draw_domains

        write_text(plot, draw_domains(result.to_json()))


def _costs(model: Predictor | ModelUnderTest) -> dict[str, float]:
    """Times of a peer's two halves, and the memory that this process took at its peak."""
    from picosam2.evaluation.peers import Peer

    costs = model.timing() if isinstance(model, Peer) else {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        costs["peak_memory_mb"] = round(peak / 1e6, 1)
    return costs


def _open(
    weights: str, peer: str | None, runtime: str, threads: int | None, flip: bool
) -> tuple[Predictor | ModelUnderTest, dict[str, Any]]:
    """What to measure, and what the result file says of it."""
    from picosam2.evaluation import network_facts as network
    from picosam2.evaluation.sam import KINDS
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    if weights.partition(":")[0] in KINDS and not Path(weights).exists():
        raise ConfigError(f"{weights} is another model: say --peer {weights}")
    if peer is not None:
        opened = open_peer(peer, threads)
        return opened, opened.facts()
    predictor = Predictor(weights, runtime=runtime, threads=threads, flip=flip)
    return predictor, network.describe_weights(weights, find_weights(weights, runtime), predictor)


def _check_leak(images: Sequence[AnnotatedImage], store: Path) -> Leaks:
    from picosam2.evaluation.leak_check import check_leaks, training_images

    return check_leaks(images, training_images(store))


def _table(result: Evaluation) -> str:
    from picosam2._words import counted
    from picosam2.cli._text import columns

    numbers = result.to_json()
    low, high = numbers["miou_ci95"]
    rows = [
        ("objects", f"{numbers['n']:,} in {counted(numbers['photos'], 'image')}"),
        ("mIoU", f"{_number(numbers['miou'])} (95 %: {_number(low)} to {_number(high)})"),
        ("hit rate", _number(numbers["hit_rate"])),
        ("boundary IoU", _number(numbers["boundary_iou"])),
        ("best candidate", _number(numbers["best_candidate"])),
        *((f"{name} objects", _number(value)) for name, value in numbers["by_size"].items()),
        *((f"baseline {name}", _number(value)) for name, value in numbers["baselines"].items()),
        ("score's rank correlation", _number(numbers["score"]["spearman"])),
        ("score's calibration error", _number(numbers["score"]["calibration_error"])),
        ("ms per prompt", f"{numbers['ms_per_prompt']:.1f}"),
        ("weights", numbers["weights_sha256"][:16]),
    ]
    return f"{numbers['protocol']} on {numbers['dataset']}\n{columns(rows, left=2)}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
