"""Write the tables of the documentation again, from the result files in the repository.

    python tools/docs/render.py

Nothing is measured. `docs/report/report.md`, the README's tables and the table of INT8 weights in
`docs/quantize.md` are made from `docs/report/report.json`. `tests/docs` fails when a table differs
from its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picosam2._files import write_text
from picosam2.reports.blocks import to_markdown
from picosam2.reports.readme import update_readme
from picosam2.reports.report import blocks, write_report

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "report"
EXAMPLES_OF = "COCO"


def read() -> tuple[dict[str, Any], bytes]:
    """The numbers of the committed report, and its comparison in images."""
    report = json.loads((REPORT / "report.json").read_text("utf-8"))
    return report, (REPORT / "figures" / "qualitative.jpg").read_bytes()


def report_markdown() -> str:
    """The text of the committed report, from its numbers."""
    report, examples = read()
    return to_markdown(blocks(report, examples, EXAMPLES_OF))


def int8_table() -> str:
    """What 8 bits cost: the runs of `default` and `default-int8` side by side."""
    report, _ = read()
    runs = {
        (run["weights"]["name"], run["protocol"], run["dataset"]): run for run in report["runs"]
    }
    rows = ["| protocol | data | FP32 | INT8 | change |", "|---|---|--:|--:|--:|"]
    for (name, protocol, dataset), run in runs.items():
        if name == "default" and (int8 := runs.get(("default-int8", protocol, dataset))):
            before, after = 100 * run["miou"], 100 * int8["miou"]
            data = f"{dataset.upper()} val, {run['n']:,} objects"
            rows.append(
                f"| `{protocol}` | {data} | {before:.2f} | {after:.2f} | {after - before:+.2f} |"
            )
    return "\n".join(rows)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "int8": ("docs/quantize.md", int8_table),
}
"""By the name in its marks, `<!-- NAME:begin -->` and `<!-- NAME:end -->`: file and content."""


def with_table(text: str, name: str, table: str) -> str:
    """`text` with `table` between the marks of `name`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the marks {begin} and {end} must each be there once")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Write every table and figure."""
    report, examples = read()
    for figure in (REPORT / "figures").iterdir():
        figure.unlink()
    write_report(report, REPORT, examples=examples, examples_of=EXAMPLES_OF)
    update_readme(ROOT / "README.md", report)
    for name, (file, table) in TABLES.items():
        path = ROOT / file
        write_text(path, with_table(path.read_text("utf-8"), name, table()))


if __name__ == "__main__":
    main()
