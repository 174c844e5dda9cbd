"""`picosam2 analyse`: where weights lose, on images that they were not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from picosam2.cli._options import RuntimeName, Threads, Weights
from picosam2.cli._targets import check_files

if TYPE_CHECKING:
    from picosam2.evaluation.analysis import Analysis


def analyse(
    *,
    weights: Weights = "default",
    store: Annotated[Path, Parameter(metavar="STORE")],
    out: Annotated[Path, Parameter(metavar="PAGE.md")],
    protocol: Literal["box", "click"] = "box",
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    sheet: bool = True,
    json: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    runtime: RuntimeName = "onnx",
    threads: Threads = None,
) -> None:
    """Show where weights lose: by traits of the objects, and by what their masks got wrong.

    Measures the images that a crop store keeps for validation and writes a page in Markdown: mIoU
    and the share of the whole loss for each class of size, shape, source and surroundings; what was
    wrong with the masks, by stated rules; and the worst fifty objects, drawn in a file beside it.

    Args:
        store: The store that the weights were trained on; its validation images are measured.
        out: The page to write. PAGE-worst.jpg and PAGE-classes.svg are written beside it.
        protocol: Whether the object's true box or its center point is the prompt.
        limit: Measure at most so many objects, in images spread over all sources.
        sheet: Draw the worst objects into a file. It shows parts of the images: leave it out of
            pages for others if the images are not yours to give.
        json: Also write the numbers, of every object too, to this file.
    """
    from picosam2._files import write_json
    from picosam2.cli._progress import progress
    from picosam2.cli._text import name_problems
    from picosam2.data.store import Store
    from picosam2.errors import require
    from picosam2.evaluation.analysis import analyse as measure
    from picosam2.evaluation.analysis import spread_objects
    from picosam2.predictor import Predictor
    from picosam2.reports.analysis_page import check_name, write_page

    check_name(out)
    check_files(out, json)
    require("matplotlib", "train")
    predictor = Predictor(weights, runtime=runtime, threads=threads)
    measured = spread_objects(Store(store).held_out(), limit)
    with progress(f"measuring {protocol}", "objects") as update:
        analysis = measure(predictor, measured, protocol=protocol, limit=limit, progress=update)
    problems = [f"{p.where}: {p.what}" for p in analysis.evaluation.problems]
    # Names only: a page is read on other machines.
    shown = Path(weights).name
    words = ["picosam2 analyse", f"--weights {shown}", f"--store {store.name}"]
    words += [f"--protocol {protocol}"] + ([f"--limit {limit}"] if limit is not None else [])
    words += [f"--runtime {runtime}"] if runtime != "onnx" else []
    words += ([] if sheet else ["--no-sheet"]) + [f"--out {out.name}"]
    written = write_page(
        analysis,
        out,
        command=" ".join(words),
        weights=Path(shown).stem,
        problems=problems,
        with_worst=sheet,
    )
    print(_table(analysis))
    for file in (written.page, written.worst, written.plot):
        if file is not None:
            print(file)
    name_problems(problems, "images or annotations skipped")
    if json is not None:
        write_json(json, {**analysis.to_json(), "limit": limit, "problems": problems})


def _table(analysis: Analysis) -> str:
    from picosam2._words import counted
    from picosam2.cli._text import columns

    numbers = analysis.evaluation.to_json()
    low, high = numbers["miou_ci95"]
    lost = analysis.lost()
    rows = [("cause", "objects", "of the loss", "under IoU 0.5")]
    rows += [
        (row.name, f"{row.n:,}", f"{row.loss:.1%}", f"{lost.get(row.name, 0):,}")
        for row in analysis.by_cause()
    ]
    return (
        f"{counted(numbers['n'], 'object')} in {counted(numbers['photos'], 'image')}, "
        f"mIoU {numbers['miou']:.4f} "
        f"(95 %: {low:.4f} to {high:.4f})\n{columns(rows)}"
    )
