"""One model on several small sets from different fields, and the mean over the sets.

A folder holds one sub-folder per set, each with `images/` and `instances.json` in COCO's format. A
set counts the same whatever its size; the interval of the mean draws images within each set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage, EntryProblem, read_coco
from picosam2.errors import DataError
from picosam2.evaluation import metrics
from picosam2.evaluation.leak_check import TrainingImages, check_leaks
from picosam2.evaluation.models import ModelUnderTest
from picosam2.evaluation.run import GEOMETRIC, Evaluation, evaluate
from picosam2.predictor import Predictor

MEASURED_BY = ("box", "click", "click-inside")
"""The protocols that are measured on every set."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One set of annotated images."""

    name: str
    images: tuple[AnnotatedImage, ...]
    problems: tuple[EntryProblem, ...]

    @property
    def objects(self) -> int:
        """How many objects there are."""
        return sum(len(image.instances) for image in self.images)


@dataclass(frozen=True, kw_only=True)
class DomainEvaluation:
    """The scores of every set, by protocol and set."""

    results: Mapping[str, Mapping[str, Evaluation]]
    leaks: Mapping[str, Mapping[str, Any]]
    """The result of the leak check of each set; empty without one."""
    problems: tuple[EntryProblem, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the result file of `picosam2 eval --domains`."""
        protocols = {}
        for protocol, by_set in self.results.items():
            low, high = metrics.interval_of_means(
                [(result.column("iou"), result.column("image_id")) for result in by_set.values()]
            )
            sets = {name: result.to_json() for name, result in by_set.items()}
            protocols[protocol] = {
                "miou": float(np.mean([result["miou"] for result in sets.values()])),
                "miou_ci95": [low, high],
                "baselines": {
                    name: float(np.mean([result["baselines"][name] for result in sets.values()]))
                    for name in GEOMETRIC
                },
                "sets": sets,
            }
        return {"kind": "domains", "protocols": protocols, "leaks": dict(self.leaks)}

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A table: a row for every set and protocol, and the mean over sets."""
        yield ("set", "protocol", "objects", "mIoU", "95 %", *GEOMETRIC, "ms per prompt")
        for protocol, summary in self.to_json()["protocols"].items():
            for name, result in summary["sets"].items():
                yield (
                    name, protocol, f"{result['n']:,}", *_scores(result),
                    f"{result['ms_per_prompt']:.1f}",
                )  # fmt: skip
            yield ("mean over sets", protocol, "", *_scores(summary), "")


def _scores(result: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = result["miou_ci95"]
    guesses = (f"{100 * result['baselines'][name]:.1f}" for name in GEOMETRIC)
    return f"{100 * result['miou']:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", *guesses


def read_domains(folder: Path) -> tuple[Domain, ...]:
    """The sets in `folder`, by name.

    Raises:
        DataError: there is no such folder, no set in it, or one that lacks a part or any object.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: check the path")
    places = sorted(path for path in folder.iterdir() if path.is_dir())
    if not places:
        raise DataError(f"{folder} holds no sets: each is a sub-folder with images/ and "
                        "instances.json")  # fmt: skip
    domains = []
    for place in places:
        annotations, images = place / "instances.json", place / "images"
        if not annotations.is_file() or not images.is_dir():
            raise DataError(
                f"{place} is no set: it needs a file instances.json and a folder images"
            )
        read = read_coco(annotations, images)
        usable = tuple(image for image in read.images if image.instances)
        if not usable:
            why = f": {read.problems[0].what}" if read.problems else ""
            raise DataError(f"{place} holds no image with an object{why}")
        domains.append(Domain(name=place.name, images=usable, problems=tuple(read.problems)))
    return tuple(domains)


def evaluate_domains(
    model: Predictor | ModelUnderTest,
    domains: Sequence[Domain],
    *,
    protocols: Sequence[str] = MEASURED_BY,
    limit: int | None = None,
    store: TrainingImages | None = None,
    weights: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> DomainEvaluation:
    """Measure a model on every set by every protocol.

    Args:
        model: what is measured.
        domains: the sets.
        protocols: of `protocols.PROTOCOLS`, those that measure on the whole image.
        limit: take the first objects of each set only.
        store: check whether images of the sets are among these training images.
        weights: facts for the result file.
        progress: is called after every image.

    Raises:
        DataError: there was nothing to measure in a set.
    """
    counts = {
        domain.name: domain.objects if limit is None else min(limit, domain.objects)
        for domain in domains
    }
    total = len(protocols) * sum(counts.values())
    leaks = (
        {}
        if store is None
        else {domain.name: check_leaks(domain.images, store).to_json() for domain in domains}
    )
    results: dict[str, dict[str, Evaluation]] = {}
    finished = 0
    for protocol in protocols:
        results[protocol] = {}
        for domain in domains:
            results[protocol][domain.name] = evaluate(
                model, domain.images, protocol=protocol, dataset=domain.name, limit=limit,
                weights=weights,
                progress=_shifted(progress, finished, total, f"{protocol} on {domain.name}"),
            )  # fmt: skip
            finished += counts[domain.name]
    return DomainEvaluation(
        results=results,
        leaks=leaks,
        problems=tuple(
            replace(problem, where=f"{domain.name}: {problem.where}")
            for domain in domains
            for problem in domain.problems
        ),
    )


def _shifted(progress: Progress | None, finished: int, whole: int, what: str) -> Progress | None:
    """The progress of a part of the work, as that of the whole."""
    if progress is None:
        return None

    def advance(
        done: int, total: int | None = None, *, what: str | None = what, note: str = ""
    ) -> None:
        progress(finished + done, whole, what=what, note=note)

    return advance
