"""Draws a study's results: mIoU against what the network costs.

    python tools/studies/plot.py OUT/results.json --protocol box --out docs/images/in-sensor.svg

Points of several seeds are means with their range; the line is the study's first variant.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from picosam2._files import write_text
from picosam2.cli._exit_codes import run_script

COSTS = {
    "sensor_bytes": ("memory in the sensor, MiB (estimate)", 2**20),
    "macs": ("multiply-accumulates, M", 1e6),
    "parameters": ("parameters, M", 1e6),
}


def main() -> None:
    """Write the image that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--protocol", default="box")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = {
        name: result
        for name, result in json.loads(args.results.read_text()).items()
        if any(args.protocol in seed for seed in result["seeds"])
    }
    write_text(args.out, drawn(results, args.protocol))


def drawn(results: dict[str, Any], protocol: str) -> str:
    """An SVG with one panel for each of `COSTS`."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    scores = {
        name: [100 * seed[protocol]["miou"] for seed in result["seeds"] if protocol in seed]
        for name, result in results.items()
    }
    means = {name: sum(values) / len(values) for name, values in scores.items()}
    first = next(iter(means))
    for axes, (cost, (label, unit)) in zip(panels, COSTS.items(), strict=True):
        x = {name: result["costs"][cost] / unit for name, result in results.items()}
        for name, mean in means.items():
            color = "#d9822b" if name == first else "#2f6fde"
            axes.plot([x[name]] * 2, [min(scores[name]), max(scores[name])], color=color, lw=1.2)
            axes.plot(x[name], mean, "o", color=color, ms=5)
        axes.axhline(means[first], color="#d9822b", lw=0.8, ls=":")
        for name, height in spread(x, means).items():
            axes.annotate(
                name, (x[name], means[name]), (x[name] + 0.04 * span(x), height),
                fontsize=6.5, color="#5b6678", va="center",
                arrowprops={"arrowstyle": "-", "color": "#c3cad5", "lw": 0.5, "shrinkB": 3},
            )  # fmt: skip
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eef1f5")
        axes.set_axisbelow(True)
        axes.margins(x=0.22)
    panels[0].set_ylabel(f"{protocol}, mIoU in %")
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "picosam2"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def spread(x: dict[str, float], y: dict[str, float]) -> dict[str, float]:
    """Heights for the names of points at `x` and `y`, from the lowest up, none on another."""
    heights: dict[str, float] = {}
    gap = span(y) / 42
    for name in sorted(y, key=lambda name: y[name]):
        near = [h for other, h in heights.items() if abs(x[other] - x[name]) < 0.35 * span(x)]
        heights[name] = max([y[name], *(h + gap for h in near)])
    return heights


def span(values: dict[str, float]) -> float:
    """From the least to the largest; 1 where they are the same."""
    return max(values.values()) - min(values.values()) or 1.0


if __name__ == "__main__":
    run_script(main)
