"""Write the tables of the documentation again, from the result files in the repository.

    python tools/docs/render.py

Nothing is measured: `docs/report/report.md` and the README's tables are made from
`docs/report/report.json`. `tests/docs` fails when a table differs from its file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def main() -> None:
    """Write every table and figure."""
    report, examples = read()
    for figure in (REPORT / "figures").iterdir():
        figure.unlink()
    write_report(report, REPORT, examples=examples, examples_of=EXAMPLES_OF)
    update_readme(ROOT / "README.md", report)


if __name__ == "__main__":
    main()
