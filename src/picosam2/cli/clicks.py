"""`picosam2 clicks`: how fast masks get good when a user keeps correcting them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._measuring import (
    AnnotationFile,
    Dataset,
    Images,
    Limit,
    ResultFile,
    check_peer,
    open_peer,
)
from picosam2.cli._options import RuntimeName, Threads, Weights
from picosam2.cli._targets import check_files, check_sources
from picosam2.errors import ConfigError, require

if TYPE_CHECKING:
    from picosam2.evaluation.clicks import ClickedModel
    from picosam2.predictor import Predictor


def clicks(
    *,
    images: Images,
    annotations: AnnotationFile,
    dataset: Dataset = "coco",
    start: Literal["click", "inside", "box"] = "click",
    clicks: Annotated[int, Parameter(validator=Number(gte=1, lte=20))] = 10,
    weights: Weights = "default",
    peer: Annotated[str | None, Parameter(metavar="KIND:WHERE")] = None,
    limit: Limit = None,
    json: ResultFile = None,
    plot: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> None:
    """Measure how fast masks get good when a user keeps clicking on what is wrong.

    After the first prompt each click goes where the largest error is. NoC is the mean number of
    clicks to an IoU of 0.85 or 0.90; an object that does not get there counts as the limit. A
    correction is harmful if it loses more than 2 points of IoU, and obeyed if the mask that follows
    has the click on its side.

    --peer measures another model instead, the same way on the same objects; `picosam2 compare` then
    tells the two apart, click by click, and `picosam2 report` draws both.

    Args:
        start: What comes first: a click at the object's center point, a click anywhere inside it,
            or its box, which counts as a click.
        clicks: How many clicks to give to each object.
        peer: Another model of the SAM family instead of the weights: `onnx:ENCODER,DECODER`,
            `sam2:FOLDER` and so on, as for `picosam2 eval`.
        plot: Also draw mIoU by clicks, an SVG file.
    """
    from picosam2._files import write_json, write_text
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns, name_problems
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.clicks import ClickedPeer, measure_clicks

    if plot is not None and plot.suffix.lower() != ".svg":
        raise ConfigError(f"{plot} is no name for an SVG file: end it in .svg")
    if plot is not None:
        require("matplotlib", "train")
    check_peer(peer, weights, runtime)
    check_files(json, plot)
    check_sources((annotations, images))
    model: Predictor | ClickedModel
    opened = None if peer is None else open_peer(peer, threads)
    if opened is None:
        model, facts = _weights(weights, runtime, threads)
    else:
        model, facts = ClickedPeer(opened), opened.facts()
    annotated = read_annotations(dataset, annotations, images).images_to_measure()
    with progress("clicking", "objects") as update:
        result = measure_clicks(
            model,
            annotated,
            dataset=dataset,
            start=start,
            clicks=clicks,
            limit=limit,
            weights=facts,
            progress=update,
        )
    numbers = {**result.to_json(), "limit": limit, **({} if opened is None else opened.timing())}
    rows = [
        ("clicks", *(str(count) for count in range(1, clicks + 1))),
        ("mIoU", *(f"{value:.4f}" for value in numbers["miou"])),
    ]
    print(f"{counted(numbers['n'], 'object')} in {counted(numbers['photos'], 'image')}")
    print(columns(rows))
    for target, noc in numbers["noc"].items():
        print(f"NoC@{target}  {noc['clicks']:.2f}  ({noc['failed']:.0%} never get there)")
    print(
        f"{counted(numbers['corrections'], 'correction')}: {numbers['harmful']:.1%} harmful, "
        f"{numbers['obeyed']:.1%} obeyed"
    )
    problems = [f"{p.where}: {p.what}" for p in result.problems]
    name_problems(problems, "images or annotations skipped")
    if json is not None:
        files = {"annotations": annotations.name, "images": images.name}
        write_json(json, {**numbers, "files": files})
    if plot is not None:
        from picosam2.reports.figures import click_curve

        write_text(plot, click_curve([numbers]))


def _weights(weights: str, runtime: str, threads: int | None) -> tuple[Predictor, dict[str, Any]]:
    from picosam2.evaluation.network_facts import describe_weights
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    predictor = Predictor(weights, runtime=runtime, threads=threads)
    return predictor, describe_weights(weights, find_weights(weights, runtime), predictor)
