"""Scores on several sets: their table and their drawing, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from picosam2.reports.blocks import Block, Bullets, Code, Figure, Table, Text
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


def domain_blocks(report: Mapping[str, Any], *, all_weights: bool) -> list[Block]:
    """The sets, the scores of the first weights or of all, and the commands; nothing without."""
    results = report["domains"]
    if not results:
        return []
    first = results[0]
    return [
        Text(
            text="Sets from fields that no training image is from, none of which was used to "
            "train, calibrate or teach. mIoU in percent with its 95 % interval over images; the "
            "mean counts every set the same."
        ),
        domain_table(results if all_weights else results[:1], report["published"]["domains"]),
        Bullets(items=tuple(_leak_notes(results))),
        Figure(
            name="domains",
            caption=f"{first['weights']['name']} on every set. The mark beside each dot is the "
            "best guess that looks at no pixel.",
            svg=draw_domains(first),
            wide=True,
        ),
        _sources(first, report["published"]["domains"]),
        Code(
            lines=tuple(f"picosam2 eval --domains domains {result['option']}" for result in results)
        ),
    ]


def domain_table(results: Sequence[Mapping[str, Any]], known: Mapping[str, Any]) -> Table:
    """A row for each set and the mean over sets, for each of `results`."""
    protocols = list(results[0]["protocols"])
    measured = tuple(f"`{name}`" for name in protocols)
    header = ("weights", "set", "objects", *measured, "ellipse in the box", "disc at the center")
    rows = []
    for result in results:
        by_protocol = result["protocols"]
        of_box = by_protocol[protocols[0]]
        of_disc = by_protocol.get("click", of_box)
        names = list(of_box["sets"])
        for name in (*names, None):
            measured_scores = [
                scores if name is None else scores["sets"][name] for scores in by_protocol.values()
            ]
            guesses = [
                (each if name is None else each["sets"][name])["baselines"]
                for each in (of_box, of_disc)
            ]
            count = sum(each["n"] for each in of_box["sets"].values())
            rows.append(
                (
                    result["weights"]["name"],
                    "**mean over sets**"
                    if name is None
                    else known.get(name, {}).get("title", name),
                    f"{count if name is None else of_box['sets'][name]['n']:,}",
                    *map(_with_interval, measured_scores),
                    f"{100 * guesses[0]['ellipse']:.1f}",
                    f"{100 * guesses[1]['disc']:.1f}",
                )
            )
    return Table(header=header, rows=tuple(rows), left=2)


def _with_interval(scores: Mapping[str, Any]) -> str:
    low, high = scores["miou_ci95"]
    return f"{100 * scores['miou']:.1f} ({100 * low:.1f} - {100 * high:.1f})"


def _sources(result: Mapping[str, Any], known: Mapping[str, Any]) -> Table:
    sets = next(iter(result["protocols"].values()))["sets"]
    rows = tuple(
        (
            known.get(name, {}).get("title", name),
            f"`{name}`",
            f"{numbers['photos']:,}",
            f"{numbers['n']:,}",
            known.get(name, {}).get("source", "-"),
            known.get(name, {}).get("license", "-"),
        )
        for name, numbers in sets.items()
    )
    header = ("set", "folder", "images", "objects", "source", "license, as stated there")
    return Table(header=header, rows=rows, left=2)


def _leak_notes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    leaks = next((result["leaks"] for result in results if result["leaks"]), None)
    if leaks is None:
        return [
            "Whether images of the sets are among the training images was not checked "
            "(`--check-leak DIR`)."
        ]
    checked = sum(leak["checked"] for leak in leaks.values())
    met = sum(leak["met"] for leak in leaks.values())
    return [
        f"Of the {checked:,} images of the sets {met:,} are among the training images "
        "(`--check-leak DIR`: the same number and name, or an image that looks the same)."
    ]
