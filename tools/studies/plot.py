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

from picosam2.files import write_text

COSTS = {
    "sensor_bytes": ("memory in the sensor, MiB (estimate)", 2**20),
    "macs": ("multiply-accumulates, M", 1e6),
    "parameters": ("parameters, M", 1e6),
}


def main() -> None:
    """Write the picture that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--protocol", default="box")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = {
        name: found
        for name, found in json.loads(args.results.read_text()).items()
        if any(args.protocol in seed for seed in found["seeds"])
    }
    write_text(args.out, drawn(results, args.protocol))


def drawn(results: dict[str, Any], protocol: str) -> str:
    """An SVG with one panel for each of `COSTS`."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    for axes, (cost, (label, unit)) in zip(panels, COSTS.items(), strict=True):
        for index, (name, found) in enumerate(results.items()):
            scores = [100 * seed[protocol]["miou"] for seed in found["seeds"] if protocol in seed]
            mean, x = sum(scores) / len(scores), found["costs"][cost] / unit
            colour = "#d9822b" if index == 0 else "#2f6fde"
            if index == 0:
                axes.axhline(mean, color=colour, lw=0.8, ls=":")
            axes.plot([x, x], [min(scores), max(scores)], color=colour, lw=1.2)
            axes.plot(x, mean, "o", color=colour, ms=5)
            axes.annotate(
                name, (x, mean), (5, 3), textcoords="offset points", fontsize=6.5, color="#5b6678"
            )
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eef1f5")
        axes.set_axisbelow(True)
        axes.margins(x=0.18)
    panels[0].set_ylabel(f"{protocol}, mIoU in %")
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "picosam2"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


if __name__ == "__main__":
    main()
