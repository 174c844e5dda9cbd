"""`picosam2 eval`: how good weights are on photos with masks, beside baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli.options import RuntimeName, Threads, Weights

if TYPE_CHECKING:
    from picosam2.evaluate.run import Evaluation


def evaluate(
    *,
    images: Annotated[Path, Parameter(metavar="DIR")],
    annotations: Annotated[Path, Parameter(metavar="FILE")],
    dataset: Literal["coco", "lvis"] = "coco",
    protocol: Literal["box", "click", "paper-point", "paper-roi"] = "box",
    weights: Weights = "default",
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    jitter: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.0,
    json: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> None:
    """Measure weights on annotated photos.

    `box` and `click` are what a user gets: the object's true box or its centre point is the
    prompt, and IoU is measured on the whole photo. `paper-point` and `paper-roi` repeat the
    published measurements on the crop. Crowds and empty masks are skipped.

    Args:
        images: The folder of the photos.
        annotations: Masks in COCO's or LVIS's format.
        dataset: The annotations' format.
        protocol: Which prompt each object gives, and where IoU is measured.
        limit: Measure the first objects only.
        jitter: Move the box's edges, or the click, by up to this share of the object's box.
        json: Also write the numbers, of every object too, to this file.
    """
    from picosam2.cli.progress import progress
    from picosam2.cli.report import name_problems
    from picosam2.data.readers import read_annotations
    from picosam2.evaluate.run import evaluate as measure
    from picosam2.files import write_json
    from picosam2.predictor import Predictor

    predictor = Predictor(weights, runtime=runtime, threads=threads)
    read = read_annotations(dataset, annotations, images)
    total = sum(len(photo.instances) for photo in read.photos)
    total = total if limit is None else min(limit, total)
    with progress(f"measuring {protocol}", "objects") as update:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            update(done, total)

        result = measure(
            predictor,
            read.photos,
            protocol=protocol,
            dataset=dataset,
            limit=limit,
            jitter=jitter,
            progress=advance,
        )
    print(_table(result))
    problems = [f"{p.where}: {p.what}" for p in (*read.problems, *result.problems)]
    name_problems(problems, f"{len(problems):,} photos or annotations were skipped")
    if json is not None:
        write_json(json, {**result.to_json(), "crowds": read.crowds, "problems": problems})


def _table(result: Evaluation) -> str:
    from picosam2.cli.report import columns

    found = result.to_json()
    low, high = found["miou_ci95"]
    rows = [
        ("objects", f"{found['n']:,} in {found['photos']:,} photos"),
        ("mIoU", f"{_number(found['miou'])} (95 %: {_number(low)} to {_number(high)})"),
        ("hit rate", _number(found["hit_rate"])),
        ("best candidate", _number(found["best_candidate"])),
        *((f"{name} objects", _number(value)) for name, value in found["by_size"].items()),
        *((f"baseline {name}", _number(value)) for name, value in found["baselines"].items()),
        ("ms per prompt", f"{found['ms_per_prompt']:.1f}"),
        ("weights", found["weights_sha256"][:16]),
    ]
    return f"{found['protocol']} on {found['dataset']}\n{columns(rows, left=2)}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}"
