"""Does a teacher help? Equal trainings with and without one, measured by every protocol.

    python tools/studies/distillation.py tools/studies/distillation.toml --stores STORES --out OUT \
        --coco instances_val2017.json val2017 --lvis lvis_val.json val2017

Each variant is trained with each of its seeds (`--only NAME` for one variant; a run goes on where
it was stopped) and measured on COCO and LVIS. OUT/results.md compares it, object by object and with
the intervals of `picosam2 compare`, with the variant `supervised`; OUT/results.svg shows the same,
OUT/hits.md compares the hit rates, and OUT/sizes.md objects of different sizes.

A study may name the weights that all its runs start from (`init`), the `protocols` to measure by,
and a teacher's `cache` for the variants that have `distill`. A variant may name a `teacher` that
is asked in the loop.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from run import merged

from picosam2._config import from_table
from picosam2._files import atomic_write, sha256_file, write_json, write_text
from picosam2.cli._exit_codes import run_script
from picosam2.cli._memory import keep_memory
from picosam2.data.datasets import read_annotations
from picosam2.data.store import Store
from picosam2.distillation.cache import TeacherCache
from picosam2.distillation.in_loop import InLoopTeacher
from picosam2.evaluation import metrics
from picosam2.evaluation.compare import compare
from picosam2.evaluation.run import evaluate
from picosam2.models.checkpoint import load_weights, read_tensors
from picosam2.predictor import Predictor
from picosam2.runtimes.torch import TorchRuntime
from picosam2.runtimes.weights import find_weights
from picosam2.training.config import Recipe
from picosam2.training.trainer import train

PROTOCOLS = ("box", "click", "paper-point", "paper-roi")
CONTROL = "supervised"
SIZES = ((0, 12), (12, 24), (24, 48), (48, 96), (96, 192), (192, 0))
"""From and to, in pixels; 0 is no end."""


def main() -> None:
    """Run the study that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--stores", type=Path, required=True, help="folder of store and cache")
    parser.add_argument("--out", type=Path, required=True)
    for name in ("coco", "lvis"):
        parser.add_argument(f"--{name}", type=Path, nargs=2, required=True, metavar=("FILE", "DIR"))
    parser.add_argument("--only", help="train and measure this variant only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    study = tomllib.loads(args.study.read_text())
    images = {
        name: read_annotations(name, *getattr(args, name)).images for name in ("coco", "lvis")
    }
    for name, variant in study["variants"].items():
        if args.only in (None, name):
            for seed in variant.get("seeds", study["seeds"]):
                run(study, variant, seed, args.stores, args.out / f"{name}-{seed}", images)
    results = {
        name: [
            measured
            for seed in variant.get("seeds", study["seeds"])
            if (measured := read(args.out / f"{name}-{seed}"))
        ]
        for name, variant in study["variants"].items()
    }
    text = table(results)
    write_text(args.out / "results.md", text)
    write_text(args.out / "hits.md", hits(results))
    write_text(args.out / "sizes.md", sizes(results))
    plot(results, args.out / "results.svg")
    print(text)


def run(
    study: Mapping[str, Any],
    variant: Mapping[str, Any],
    seed: int,
    stores: Path,
    folder: Path,
    images: Mapping[str, Any],
) -> None:
    """Train one variant with one seed and measure what came of it, unless that is done."""
    weights, measured = folder / "weights.safetensors", folder / "measured.json"
    if measured.exists():
        return
    table = merged(study["base"], variant, seed)
    store = Store(stores / study["store"])
    teacher: TeacherCache | InLoopTeacher | None = None
    if "teacher" in variant:
        teacher = InLoopTeacher.load(variant["teacher"])
    elif "distill" in variant:
        teacher = TeacherCache(stores / study["cache"], store)
    recipe = from_table(Recipe, table, where=folder.name)
    init = find_weights(study["init"], "torch") if "init" in study else None
    train(recipe, store, folder, resume=True, init=init, teacher=teacher)
    facts = read_tensors(weights).info
    runtime = TorchRuntime(load_weights(weights), weights_sha256=sha256_file(weights), facts=facts)
    predictor = Predictor(runtime)
    results = {}
    for dataset, some in images.items():
        for protocol in study.get("protocols", PROTOCOLS):
            result = evaluate(predictor, some, protocol=protocol, dataset=dataset).to_json()
            results[f"{protocol} {dataset}"] = result
            print(folder.name, dataset, protocol, f"{result['miou']:.4f}", flush=True)
    write_json(measured, results)


def read(folder: Path) -> dict[str, Any]:
    """The measurements of one run; nothing where there are none yet."""
    path = folder / "measured.json"
    return json.loads(path.read_text()) if path.exists() else {}


def pooled(runs: Iterable[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """One result whose objects have the mean IoU of all runs."""
    results = [run[key] for run in runs]
    first = results[0]
    items = [
        {**item, "iou": float(np.mean([r["items"][i]["iou"] for r in results]))}
        for i, item in enumerate(first["items"])
    ]
    return {**first, "items": items}


def compared(
    results: Mapping[str, Any],
) -> Iterator[tuple[str, list[str], Sequence[Any], Sequence[Any]]]:
    """What each row of a table is of: key, first cells, runs, and the control's runs.

    These have the same seeds; there are none for the control itself, or where it has fewer.
    """
    control = results.get(CONTROL) or []
    for key in next((list(runs[0]) for runs in results.values() if runs), []):
        protocol, dataset = key.split()
        for name, runs in results.items():
            if runs:
                same = control[: len(runs)]
                comparable = name != CONTROL and len(same) == len(runs)
                first = [f"`{protocol}`", dataset.upper(), name, f"{len(runs)}"]
                yield key, first, runs, same if comparable else []


def change_cells(change: float, low: float, high: float) -> list[str]:
    """A difference and its interval, in points of a hundred."""
    return [f"{100 * change:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}"]


def table(results: Mapping[str, Any]) -> str:
    """mIoU and hit rate by protocol, the spread over seeds, and the difference to the control."""
    lines = [
        "| protocol | data | variant | seeds | mIoU | spread | hit rate | against control | 95 % |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for key, first, runs, control in compared(results):
        scores = [run[key]["miou"] for run in runs]
        hits = np.mean([run[key]["hit_rate"] for run in runs])
        row = [*first, f"{100 * np.mean(scores):.2f}", f"{100 * np.ptp(scores):.2f}",
               f"{100 * hits:.2f}", "", ""]  # fmt: skip
        if control:
            comparison = compare(pooled(control, key), pooled(runs, key))
            row[-2:] = change_cells(comparison.difference, comparison.low, comparison.high)
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def hits(results: Mapping[str, Any]) -> str:
    """The hit rate by protocol, and its difference to the control with an interval over images."""
    lines = [
        "| protocol | data | variant | seeds | hit rate | against control | 95 % |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for key, first, runs, control in compared(results):
        shares = hit_shares(runs, key)
        row = [*first, f"{100 * shares.mean():.2f}", "", ""]
        if control:
            change = shares - hit_shares(control, key)
            image_ids = np.array([item["photo"] for item in runs[0][key]["items"]])
            row[-2:] = change_cells(change.mean(), *metrics.interval(change, image_ids))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def sizes(results: Mapping[str, Any]) -> str:
    """The difference to the control's mIoU, in points of a hundred, by the objects' size.

    The size is the square root of the mask's area, in pixels of the image.
    """
    names = [f"{low} to {high}" if high else f"from {low}" for low, high in SIZES]
    lines = [
        "| " + " | ".join(["protocol", "data", "variant", *names]) + " |",
        "|---|---|---|" + "--:|" * len(SIZES),
    ]
    for key, first, runs, control in compared(results):
        side = np.sqrt([item["area"] for item in runs[0][key]["items"]])
        values = mean_ious(runs, key)
        if control:
            values -= mean_ious(control, key)
        cells = []
        for low, high in SIZES:
            some = (side >= low) & (side < (high or np.inf))
            if not some.any():
                cells.append("-")
                continue
            mean = 100 * values[some].mean()
            cells.append(f"{mean:+.1f}" if control else f"{mean:.1f} ({some.sum()})")
        lines.append("| " + " | ".join([*first[:3], *cells]) + " |")
    return "\n".join(lines) + "\n"


def mean_ious(runs: Iterable[Mapping[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """The IoU (N,) of each object, a mean over the runs."""
    return np.mean([[item["iou"] for item in run[key]["items"]] for run in runs], 0)


def hit_shares(runs: Iterable[Mapping[str, Any]], key: str) -> npt.NDArray[np.float64]:
    """The hit rate (N,) of each object, a mean over the runs."""
    ious = np.array([[item["iou"] for item in run[key]["items"]] for run in runs])
    shares: npt.NDArray[np.float64] = (ious[..., None] >= metrics.THRESHOLDS).mean((0, 2))
    return shares


def plot(results: Mapping[str, Any], path: Path) -> None:
    """Every variant's mIoU by protocol and data, one dot a seed."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    shown = {name: runs for name, runs in results.items() if runs}
    if not shown:
        return
    keys = list(next(iter(shown.values()))[0])
    rows = 2 if len(keys) > 2 else 1
    columns = -(-len(keys) // rows)
    size = (3 * columns, 3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis, key in zip(axes.flat, keys, strict=True):
        for place, runs in enumerate(shown.values()):
            scores = [100 * run[key]["miou"] for run in runs]
            axis.plot([place] * len(scores), scores, "o", color="tab:blue", alpha=0.5)
            axis.plot([place - 0.3, place + 0.3], [np.mean(scores)] * 2, color="black")
        axis.set_title(key)
        axis.set_xticks(range(len(shown)), shown, rotation=60, ha="right")
    for axis in axes[:, 0]:
        axis.set_ylabel("mIoU, %")
    figure.tight_layout()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="svg")
    plt.close(figure)


if __name__ == "__main__":
    run_script(main)
