"""`picosam2 report`: results as one page, with figures, baselines and published figures."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from picosam2.cli._targets import check_folders, check_sources

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from picosam2.predictor import Predictor


SECTIONS = {
    "beside": "the weights and one of a peer, `picosam2 eval --peer`, on the same objects",
    "domains": "`picosam2 eval --domains`",
    "robustness": "`picosam2 robustness`",
    "clicks": "`picosam2 clicks`",
    "proposals": "`picosam2 proposals`",
}
"""What a report may lack, by its name in report.json, and what fills it."""


def report(
    runs: Annotated[list[Path], Parameter(metavar="RUN.json", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(metavar="DIR")],
    images: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    annotations: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    dataset: Literal["coco", "lvis"] = "coco",
    readme: Annotated[Path | None, Parameter(metavar="FILE")] = None,
) -> None:
    """Make a report of results: report.html (one file, no network), report.md and report.json.

    Results of a peer (`--peer`) are paired with those of the weights that were measured the same
    way. The visual comparison segments the
    bundled sample image; with --images and --annotations it shows images of the first `box` run
    instead, chosen by rank.

    Args:
        runs: Files written by the option --json of `eval`, `eval --domains`, `robustness`,
            `clicks`, `proposals` and `benchmarks/peer.py`.
        out: The folder for the report.
        images: Images for the visual comparison; they become part of the report.
        annotations: Their masks, as given to `eval`.
        dataset: The annotations' format.
        readme: Also rewrite the part of this file between its two report marks.
    """
    from picosam2.errors import ConfigError, require
    from picosam2.evaluation.compare import read_result
    from picosam2.reports import qualitative
    from picosam2.reports.beside import is_peer
    from picosam2.reports.collect import collect
    from picosam2.reports.readme import read_marked, update_readme
    from picosam2.reports.report import write_report

    if (images is None) != (annotations is None):
        raise ConfigError("examples from images need both --images and --annotations")
    check_folders(out)
    if images is not None and annotations is not None:
        check_sources((annotations, images))
    if readme is not None:
        read_marked(readme)
    for module in ("matplotlib", "jinja2"):
        require(module, "train")
    results = [read_result(path) for path in runs]
    boxed = [run for run in results if run["kind"] == "evaluation" and run["protocol"] == "box"]
    if images is not None and not boxed:
        raise ConfigError("examples from images need a result of `eval --protocol box`")
    collected = collect(results)
    for section, command in SECTIONS.items():
        if not collected[section]:
            print(f"picosam2: no section {section!r}: give a result of {command}", file=sys.stderr)
    models = _models([result for result in results if not is_peer(result)])
    examples, examples_of = b"", ""
    if models and images is not None and annotations is not None:
        from picosam2.data.datasets import read_annotations

        annotated = read_annotations(dataset, annotations, images).images_to_measure()
        examples = qualitative.comparison_image(
            qualitative.of_images(boxed[0]["items"], annotated, models)
        )
        examples_of = dataset.upper()
    elif models:
        examples = qualitative.comparison_image(qualitative.of_sample(models))
        examples_of = "the bundled sample image"
    written = write_report(collected, out, examples=examples, examples_of=examples_of)
    print(written.html)
    if readme is not None:
        update_readme(readme, collected)
        print(readme)


def _models(results: Sequence[Mapping[str, Any]]) -> dict[str, Predictor]:
    """The networks of the runs that are still where they were, by a short name; at most three."""
    from picosam2.errors import WeightsError
    from picosam2.predictor import Predictor
    from picosam2.runtimes.weights import find_weights

    predictors: dict[str, Predictor] = {}
    seen: set[str] = set()
    for result in results:
        weights = result.get("weights")
        if not weights or weights["sha256"] in seen or weights["runtime"] == "transformers":
            continue
        seen.add(weights["sha256"])
        try:
            predictor = Predictor(find_weights(weights["name"], weights["runtime"]))
        except WeightsError as error:
            print(f"picosam2: no visual comparison of {weights['name']}: {error}", file=sys.stderr)
            continue
        if predictor.runtime.info.weights_sha256 != weights["sha256"]:
            print(
                f"picosam2: no visual comparison of {weights['name']}: its file has changed since",
                file=sys.stderr,
            )
            continue
        if len(predictors) < 3:
            name = _short_name(Path(str(weights["name"])), weights["precision"], predictors)
            predictors[name] = predictor
    return predictors


def _short_name(path: Path, precision: str, taken: Collection[str]) -> str:
    """A name that is not taken: most trainings leave a file of the same name."""
    names = (f"{path.stem} {precision}", f"{path.parent.name}/{path.stem} {precision}")
    numbered = (f"{names[0]} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain(names, numbered) if name not in taken)
