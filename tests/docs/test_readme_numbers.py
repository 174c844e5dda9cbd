"""The README's numbers are those of the committed report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "report" / "report.json"


def test_the_readme_says_what_the_report_measured() -> None:
    if not REPORT.is_file():
        pytest.skip("no report is committed: picosam2 report ... --out docs/report")
    pytest.importorskip("torch", reason="reports need the extra train")
    from picosam2.reports.report import BEGIN, END, readme_block

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1, f"the README lacks {BEGIN} or {END}"
    shown = readme.split(BEGIN)[1].split(END)[0].strip()
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert shown == readme_block(report), "run: picosam2 report ... --readme README.md"
