"""`picosam2 robustness` and `picosam2 clicks`: scores where things are less than ideal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import RuntimeName, Threads, Weights

Images = Annotated[Path, Parameter(metavar="DIR", help="The folder of the photos.")]
AnnotationFile = Annotated[
    Path, Parameter(metavar="FILE", help="Masks in COCO's or LVIS's format.")
]
Dataset = Annotated[Literal["coco", "lvis"], Parameter(help="The annotations' format.")]
Limit = Annotated[
    int | None, Parameter(validator=Number(gte=1), help="Measure the first objects only.")
]
ResultFile = Annotated[
    Path | None, Parameter(metavar="FILE", help="Also write the numbers to this file.")
]


def robustness(
    *,
    images: Images,
    annotations: AnnotationFile,
    dataset: Dataset = "coco",
    curve: Annotated[list[str] | None, Parameter(negative="")] = None,
    protocol: Annotated[list[Literal["box", "click"]] | None, Parameter(negative="")] = None,
    weights: Weights = "default",
    limit: Limit = None,
    json: ResultFile = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> None:
    """Measure how scores fall with careless prompts and bad photos.

    Box jitter, clicks beside the centre or anywhere inside, JPEG compression, low light, blur and
    fewer pixels; and by how many other objects share the window. All curves take about 50 times as
    long as one evaluation: --limit 200 gives a good picture.

    Args:
        curve: Only these curves, for instance --curve box-jitter --curve jpeg.
        protocol: Only this protocol.
    """
    from picosam2._files import write_json
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.network_facts import weights_facts
    from picosam2.evaluation.robustness import CURVES
    from picosam2.evaluation.robustness import robustness as measure
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    predictor = Predictor(weights, runtime=runtime, threads=threads)
    facts = weights_facts(weights, find_weights(weights, runtime), predictor)
    photos = read_annotations(dataset, annotations, images).images
    with progress("measuring", "evaluations") as update:
        found = measure(
            predictor,
            photos,
            dataset=dataset,
            curves=curve or tuple(CURVES),
            protocols=protocol or ("box", "click"),
            limit=limit,
            weights=facts,
            progress=lambda done, total, what: update(done, total, what=f"measuring {what}"),
        )
    print(f"{found['n']:,} objects in {found['photos']:,} photos, mIoU")
    for entry in found["curves"].values():
        rows = [(entry["unit"], *(f"{level:g}" for level in entry["levels"]))]
        rows += [
            (name, *(f"{value:.4f}" for value in scores["miou"]))
            for name, scores in entry["protocols"].items()
        ]
        print(f"\n{entry['title']}\n{columns(rows)}")
    for name, classes in found["rivals"].items():
        rows = [("other objects in the window", *classes)]
        rows.append((name, *(_number(one["miou"]) for one in classes.values())))
        rows.append(("objects", *(f"{one['n']:,}" for one in classes.values())))
        print(f"\nCompeting objects\n{columns(rows)}")
    if json is not None:
        write_json(json, found)


def clicks(
    *,
    images: Images,
    annotations: AnnotationFile,
    dataset: Dataset = "coco",
    clicks: Annotated[int, Parameter(validator=Number(gte=1, lte=20))] = 6,
    weights: Weights = "default",
    limit: Limit = None,
    json: ResultFile = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> None:
    """Measure how fast masks get good when a user keeps clicking on what is wrong.

    The first click is the object's centre point, the next ones go where the largest error is. NoC
    is the mean number of clicks to an IoU of 0.85 or 0.90; an object that does not get there counts
    as the limit.

    Args:
        clicks: How many clicks to give to each object.
    """
    from picosam2._files import write_json
    from picosam2.cli._progress import counted
    from picosam2.cli._text import columns, name_problems
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.clicks import measure_clicks
    from picosam2.evaluation.network_facts import weights_facts
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    predictor = Predictor(weights, runtime=runtime, threads=threads)
    facts = weights_facts(weights, find_weights(weights, runtime), predictor)
    photos = read_annotations(dataset, annotations, images).images
    total = sum(len(photo.instances) for photo in photos)
    total = total if limit is None else min(limit, total)
    with counted("clicking", "objects", total) as advance:
        result = measure_clicks(
            predictor,
            photos,
            dataset=dataset,
            clicks=clicks,
            limit=limit,
            weights=facts,
            progress=advance,
        )
    found = result.to_json()
    rows = [("clicks", *(str(count) for count in range(1, clicks + 1)))]
    rows.append(("mIoU", *(f"{value:.4f}" for value in found["miou"])))
    print(f"{found['n']:,} objects in {found['photos']:,} photos\n{columns(rows)}")
    for target, one in found["noc"].items():
        print(f"NoC@{target}  {one['clicks']:.2f}  ({one['failed']:.0%} never get there)")
    name_problems(
        [f"{p.where}: {p.what}" for p in result.problems],
        f"{len(result.problems):,} photos or annotations were skipped",
    )
    if json is not None:
        write_json(json, found)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
