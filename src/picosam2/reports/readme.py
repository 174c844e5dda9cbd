"""The part of the README that the report writes: tables and commands between two marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from picosam2._files import write_text
from picosam2.errors import DataError
from picosam2.reports.beside import beside_blocks
from picosam2.reports.blocks import Code, Heading, Table, to_markdown
from picosam2.reports.domains import domain_blocks
from picosam2.reports.tables import BASELINES, models_table, percent, run_name

BEGIN, END = "<!-- report:begin -->", "<!-- report:end -->"
"""The marks."""

FIGURES = "docs/report/figures"
"""Where the README finds the report's figures."""


def readme_block(report: Mapping[str, Any]) -> str:
    """The README's table and commands, from a report's numbers; without the marks."""
    kinds = {"box": ("box", "ellipse"), "paper-roi": ("box", "ellipse")}
    header = ("weights", "protocol", "data", "mIoU", "95 % interval", "hit rate",
              "baselines (mIoU)")  # fmt: skip
    rows = tuple(
        (
            run_name(run),
            f"`{run['protocol']}`",
            f"{run['dataset'].upper()}, {run['n']:,} objects",
            f"**{percent(run['miou'])}**",
            " - ".join(percent(value) for value in run["miou_ci95"]),
            percent(run["hit_rate"]),
            ", ".join(
                f"{BASELINES[kind]} {percent(run['baselines'][kind])}"
                for kind in kinds.get(run["protocol"], ("disc",))
            ),
        )
        for run in report["runs"]
    )
    beside = beside_blocks(report)
    domains = domain_blocks(report, all_weights=False)
    return to_markdown(
        [
            *beside,
            *(
                [Heading(text="On fields that no training image is from", level=3)]
                if domains
                else []
            ),
            *domains,
            *([Heading(text="All weights", level=3)] if beside or domains else []),
            models_table(report),
            Table(header=header, rows=rows, left=3),
            Code(lines=tuple(dict.fromkeys(run["command"] for run in report["runs"]))),
        ],
        folder=FIGURES,
    ).strip()


def read_marked(path: Path) -> tuple[str, str]:
    """What stands before and after the README's marks. `DataError` if they are not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"there is no file {path}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"{path} needs one line {BEGIN} and, below it, one line {END}")
    before, rest = text.split(BEGIN)
    return before, rest.split(END)[1]


def update_readme(path: Path, report: Mapping[str, Any]) -> None:
    """Put `readme_block` between the README's marks. `DataError` if they are not there."""
    before, after = read_marked(path)
    write_text(path, f"{before}{BEGIN}\n{readme_block(report)}\n{END}{after}")
