"""`picosam2 clicks`: how fast masks get good when a user keeps correcting them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._measuring import AnnotationFile, Dataset, Images, Limit, ResultFile
from picosam2.cli._options import RuntimeName, Threads, Weights


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
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns, name_problems
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.clicks import measure_clicks
    from picosam2.evaluation.network_facts import weights_facts
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    predictor = Predictor(weights, runtime=runtime, threads=threads)
    facts = weights_facts(weights, find_weights(weights, runtime), predictor)
    photos = read_annotations(dataset, annotations, images).images
    with progress("clicking", "objects") as update:
        result = measure_clicks(
            predictor,
            photos,
            dataset=dataset,
            clicks=clicks,
            limit=limit,
            weights=facts,
            progress=update,
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
