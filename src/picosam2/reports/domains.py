"""The drawing of scores on several sets, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from picosam2.reports.figures import BASELINE, INK, PROTOCOL_COLORS, SOFT, _drawing, _svg


def draw_domains(result: Mapping[str, Any]) -> str:
    """mIoU of every set and of their mean, as SVG text; `result` is what `eval --domains` writes.

    A dot is the mean, its line the 95 % interval over images; the mark beside it is the best of the
    guesses that look at no pixel: the filled box, the ellipse in it, or a disc around the click.
    """
    protocols = result["protocols"]
    names = [*next(iter(protocols.values()))["sets"], "mean over sets"]
    step = 1 / (len(protocols) + 1)
    with _drawing(6.8, 0.9 + 0.5 * len(names), "domains") as figure:
        axes = figure.subplots()
        for number, (protocol, scored) in enumerate(protocols.items()):
            color = PROTOCOL_COLORS.get(protocol, INK)
            for row, name in enumerate(names):
                scores = scored if name == "mean over sets" else scored["sets"][name]
                y = row + (number + 1) * step - 0.5
                low, high = scores["miou_ci95"]
                label = protocol if row == 0 else None
                axes.plot([100 * low, 100 * high], [y, y], color=color, linewidth=2)
                axes.plot([100 * scores["miou"]], [y], "o", color=color, label=label)
                kinds = ("box", "ellipse") if protocol == "box" else ("disc",)
                guess = 100 * max(scores["baselines"][kind] for kind in kinds)
                label = "best guess without pixels" if row == number == 0 else None
                axes.plot([guess], [y], "|", color=BASELINE, markersize=9, label=label)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("mIoU, %", color=SOFT)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(protocols) + 1)
        return _svg(figure)
