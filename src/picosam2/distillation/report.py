"""What a teacher cache is worth: how far the teacher is right, and what keeping it in 8 bits cost.

report.json     the numbers
histogram.png   IoU of the teacher's masks with the true ones, and what it expected
best.png        objects that it found best, worst, and
worst.png       those where it was surest of a mask that the annotation contradicts: a mistake
disputed.png    of the teacher, or of the annotation
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2._files import write_bytes, write_json
from picosam2._words import counted
from picosam2.data.contact_sheet import agreement, caption, grid
from picosam2.data.store import Store
from picosam2.distillation.cache import STEP, TeacherCache
from picosam2.errors import require
from picosam2.evaluation.metrics import spearman
from picosam2.results import encode_image

BINS = 10
"""Of the histogram, from 0 to 1."""

_TILES, _COLUMNS = 24, 6


def write_report(cache: TeacherCache, store: Store) -> dict[str, Any]:
    """Write the report of the finished parts into the cache's folder; its numbers."""
    summary = summarize(cache, store)
    write_json(cache.path / "report.json", summary)
    rows = _objects(cache, store)
    rows = rows[cache.records["valid"][rows]]
    if len(rows):
        _draw_histogram(cache, rows, cache.path / "histogram.png")
        iou = cache.records["iou"][rows]
        unduly_sure = cache.records["predicted_iou"][rows] - iou
        for name, order in (("best", -iou), ("worst", iou), ("disputed", -unduly_sure)):
            chosen = rows[np.argsort(order, kind="stable")[:_TILES]]
            _draw_sheet(cache, store, chosen, cache.path / f"{name}.png")
    return summary


def summarize(cache: TeacherCache, store: Store) -> dict[str, Any]:
    """The numbers of the finished parts; each object counts once. null is what is not known."""
    rows = _objects(cache, store)
    records = cache.records[rows]
    valid = records["valid"]
    iou, expected = records["iou"][valid], records["predicted_iou"][valid]
    sources = store.records["source"][rows][valid]
    counted = list(cache.counted.values())
    return {
        "teacher": cache.teacher,
        "fingerprint": cache.fingerprint,
        "store": store.fingerprint,
        "shards": len(store.ends),
        "shards_done": len(counted),
        "photos": sum(shard["photos"] for shard in counted),
        "objects": len(rows),
        "invalid": int(np.count_nonzero(~valid)),
        "agree": cache.agree,
        "disagreeing": int(np.count_nonzero(valid & ~records["agrees"])),
        "miou": _mean(iou),
        "predicted_iou": _mean(expected),
        "spearman": _known(spearman(expected, iou)) if len(iou) > 1 else None,
        "histogram": np.histogram(iou, BINS, (0, 1))[0].tolist(),
        "miou_by_source": {
            name: _mean(iou[sources == index]) for index, name in enumerate(store.source_names)
        },
        "quantization": _quantization(counted),
        "problems": [problem for shard in counted for problem in shard["problems"]],
    }


def _objects(cache: TeacherCache, store: Store) -> npt.NDArray[np.int64]:
    """A row of each object of the finished parts: the one of the first view."""
    return np.flatnonzero(cache.done & (store.records["view"] == 0))


def _mean(values: npt.NDArray[np.float32]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _quantization(counted: list[dict[str, Any]]) -> dict[str, Any]:
    """The error that was made by keeping logits in steps, over all pixels of all rows."""
    total = {
        name: sum(shard[name] for shard in counted)
        for name in ("seen", "clipped", "changed", "squares")
    }
    kept, seen = max(total["seen"] - total["clipped"], 1), max(total["seen"], 1)
    return {
        "step": STEP,
        "pixels": total["seen"],
        "rms": math.sqrt(total["squares"] / kept),
        "largest": max((shard["largest"] for shard in counted), default=0.0),
        "clipped": total["clipped"] / seen,
        "changed": total["changed"] / seen,
    }


def _draw_histogram(cache: TeacherCache, rows: npt.NDArray[np.int64], out: Path) -> None:
    figure = require("matplotlib.figure", "train").Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 2 * BINS + 1)
    for name, label, color in (
        ("iou", "with the true mask", "#0072b2"),
        ("predicted_iou", "predicted by the teacher", "#d55e00"),
    ):
        values = cache.records[name][rows]
        axes.hist(values, bins, histtype="step", linewidth=1.5, color=color, label=label)
    axes.axvline(cache.agree, color="gray", linestyle=":", label="taken for another object below")
    axes.set(title=cache.teacher["name"], xlabel="IoU", ylabel="objects", xlim=(0, 1))
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_bytes(out, buffer.getvalue())


def _draw_sheet(cache: TeacherCache, store: Store, rows: npt.NDArray[np.int64], out: Path) -> None:
    """Context crops with both masks: where they agree, the truth alone, the teacher alone."""
    tiles = []
    for row, crop, logits in zip(rows, store.gather(rows), cache.gather(rows), strict=True):
        tile = Image.fromarray(agreement(crop[..., :3], crop[..., 3] > 127, logits > 0))
        iou, expected = (float(cache.records[name][row]) for name in ("iou", "predicted_iou"))
        caption(tile, f"{iou:.2f}, expected {expected:.2f}")
        tiles.append(np.asarray(tile))
    write_bytes(out, encode_image(grid(np.stack(tiles), _COLUMNS), "PNG"))


def describe(summary: dict[str, Any]) -> str:
    """The report for a terminal."""
    objects, invalid, off = summary["objects"], summary["invalid"], summary["disagreeing"]
    lines = [
        f"{summary['teacher']['name']}: {counted(objects, 'object')} of "
        f"{counted(summary['photos'], 'image')}, "
        f"{summary['shards_done']} of {summary['shards']} parts"
    ]
    if summary["miou"] is not None:
        lines.append(
            f"IoU with the truth {summary['miou']:.3f}, expected {summary['predicted_iou']:.3f}"
        )
        most = max(summary["histogram"])
        for index, count in enumerate(summary["histogram"]):
            bar = "#" * round(40 * count / most)
            lines.append(
                f"  {index / BINS:.1f}-{(index + 1) / BINS:.1f} {count:>9,}  {bar}".rstrip()
            )
    lines.append(
        f"{counted(off, 'mask')} under {summary['agree']:g}, taken for another object; "
        f"{counted(invalid, 'object')} without a usable answer"
    )
    error = summary["quantization"]
    lines.append(
        f"8 bits in steps of {error['step']:g}: error {error['rms']:.3f} rms, "
        f"{error['largest']:.4f} at most; {error['clipped']:.2%} of the pixels clipped, "
        f"{error['changed']:.2%} moved across the mask's edge"
    )
    return "\n".join(lines)
