"""`picosam2 robustness`: how scores fall with careless prompts and degraded images."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from picosam2.cli._measuring import AnnotationFile, Dataset, Images, Limit, ResultFile, number
from picosam2.cli._options import RuntimeName, Threads, Weights
from picosam2.cli._targets import check_files, check_sources


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
    """Measure how scores fall with careless prompts and degraded images.

    Box jitter, clicks beside the center or anywhere inside, JPEG compression, low light, blur and
    fewer pixels; and by how many other objects share the window. All curves take about 50 times as
    long as one evaluation: --limit 200 gives a good estimate.

    Args:
        curve: Only these curves, for instance --curve box-jitter --curve jpeg.
        protocol: Only this protocol.
    """
    from picosam2._files import write_json
    from picosam2._words import counted
    from picosam2.cli._progress import progress
    from picosam2.cli._text import columns
    from picosam2.data.datasets import read_annotations
    from picosam2.evaluation.network_facts import describe_weights
    from picosam2.evaluation.robustness import CURVES, check_curves
    from picosam2.evaluation.robustness import robustness as measure
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    check_files(json)
    check_sources((annotations, images))
    check_curves(curve or ())
    predictor = Predictor(weights, runtime=runtime, threads=threads)
    facts = describe_weights(weights, find_weights(weights, runtime), predictor)
    annotated = read_annotations(dataset, annotations, images).images_to_measure()
    with progress("measuring", "evaluations") as update:
        result = measure(
            predictor,
            annotated,
            dataset=dataset,
            curves=curve or tuple(CURVES),
            protocols=protocol or ("box", "click"),
            limit=limit,
            weights=facts,
            progress=update,
        )
    print(f"{counted(result['n'], 'object')} in {counted(result['photos'], 'image')}, mIoU")
    for entry in result["curves"].values():
        rows = [(entry["unit"], *(f"{level:g}" for level in entry["levels"]))]
        rows += [
            (name, *(f"{value:.4f}" for value in scores["miou"]))
            for name, scores in entry["protocols"].items()
        ]
        print(f"\n{entry['title']}\n{columns(rows)}")
    for name, classes in result["rivals"].items():
        rows = [("other objects in the window", *classes)]
        rows.append((name, *(number(group["miou"]) for group in classes.values())))
        rows.append(("objects", *(f"{group['n']:,}" for group in classes.values())))
        print(f"\nCompeting objects\n{columns(rows)}")
    if json is not None:
        write_json(json, result)
