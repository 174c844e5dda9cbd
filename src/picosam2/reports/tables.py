"""The report's tables, each made from the numbers that `collect` gathers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from picosam2.reports.blocks import Table

BASELINES = {"box": "filled box", "ellipse": "ellipse", "disc": "disc", "flood": "flood fill",
             "grabcut": "GrabCut"}  # fmt: skip


def run_name(run: Mapping[str, Any]) -> str:
    """The name of a run's weights, and whether each crop was also mirrored."""
    name = str(run["weights"].get("name", "network"))
    return f"{name}, flipped too" if run.get("flip") else name


def method_name(result: Mapping[str, Any], method: str) -> str:
    """A method of a result of `proposals`; everything mode with how it found the objects."""
    if method != "everything":
        return method
    return f"everything by {result.get('settings', {}).get('method', 'grid')}"


def percent(value: float | None) -> str:
    """A share in percent, with one decimal."""
    return "-" if value is None else f"{100 * value:.1f}"


def models_table(report: Mapping[str, Any]) -> Table:
    """The weights: size, work, and time of one crop."""
    header = ("weights", "precision", "parameters", "MACs", "file", "ms a crop", "SHA-256")
    rows = []
    for model in report["models"]:
        macs, time = model.get("macs"), model.get("ms_per_crop")
        rows.append(
            (
                model["name"],
                model["precision"],
                f"{model['parameters']:,}" if "parameters" in model else "-",
                f"{macs / 1e6:.1f} M" if macs else "-",
                f"{model['bytes'] / 1e6:.2f} MB",
                f"{time:.1f}" if time else "-",
                f"`{model['sha256'][:12]}`",
            )
        )
    return Table(header=header, rows=tuple(rows), left=2)


def score_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Each run's scores beside the baselines on the same objects."""
    kinds = [kind for kind in BASELINES if any(kind in run["baselines"] for run in runs)]
    header = ("weights", "protocol", "data", "objects", "mIoU", "95 % interval", "hit rate",
              *(BASELINES[kind] for kind in kinds), "ms a prompt")  # fmt: skip
    rows = [
        (
            run_name(run),
            f"`{run['protocol']}`",
            run["dataset"].upper(),
            f"{run['n']:,}",
            f"**{percent(run['miou'])}**",
            " - ".join(percent(value) for value in run["miou_ci95"]),
            percent(run["hit_rate"]),
            *(percent(run["baselines"].get(kind)) for kind in kinds),
            f"{run['ms_per_prompt']:.1f}",
        )
        for run in runs
    ]
    return Table(header=header, rows=tuple(rows), left=3)


def detail_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Each run's mIoU by kinds of objects."""
    header = ("weights", "protocol", "data", "small", "medium", "large", "boundary IoU",
              "best candidate", "alone", "1-2 others", "3+ others")  # fmt: skip
    rows = [
        (
            run_name(run),
            f"`{run['protocol']}`",
            run["dataset"].upper(),
            *(percent(run["by_size"][size]) for size in ("small", "medium", "large")),
            percent(run["boundary_iou"]),
            percent(run["best_candidate"]),
            *(percent(run["by_rivals"][others]["miou"]) for others in ("0", "1-2", "3+")),
        )
        for run in runs
    ]
    return Table(header=header, rows=tuple(rows), left=3)


def published_table(report: Mapping[str, Any]) -> Table:
    """Ours and published figures together, protocol by protocol."""
    header = ("protocol", "data", "model", "mIoU", "hit rate", "size", "objects", "source")
    rows = []
    keys = dict.fromkeys((run["protocol"], run["dataset"]) for run in report["runs"])
    sources = report["published"]["sources"]
    for protocol, dataset in keys:
        for run in report["runs"]:
            if (run["protocol"], run["dataset"]) == (protocol, dataset):
                size = run["weights"].get("bytes")
                rows.append(
                    (
                        f"`{protocol}`",
                        dataset.upper(),
                        f"**{run_name(run)}**",
                        f"**{percent(run['miou'])}**",
                        percent(run["hit_rate"]),
                        f"{size / 1e6:.2f} MB" if size else "-",
                        f"{run['n']:,}"
                        + (f" (first {run['first']:,})" if run.get("first") else ""),
                        "measured here",
                    )
                )
        for published in report["published"]["scores"]:
            if (published["protocol"], published["dataset"]) == (protocol, dataset):
                size = f"{published['megabytes']:g} MB" if published["megabytes"] else "-"
                if not published["megabytes"] and published["parameters"]:
                    size = f"{published['parameters'] / 1e6:g} M par."
                rows.append(
                    (
                        f"`{protocol}`",
                        dataset.upper(),
                        published["model"],
                        percent(published["miou"]),
                        percent(published["hit_rate"]),
                        size,
                        published["objects"],
                        sources[published["source"]]["where"],
                    )
                )
    return Table(header=header, rows=tuple(rows), left=3)
