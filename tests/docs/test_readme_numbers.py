"""The numbers in the README and in the report are those of the committed result files."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "report" / "report.json"

pytestmark = pytest.mark.skipif(not REPORT.is_file(), reason="needs the checkout")


def test_the_readme_says_what_the_report_measured() -> None:
    pytest.importorskip("torch", reason="reports need the extra train")
    from picosam2.reports.readme import BEGIN, END, readme_block

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1, f"the README lacks {BEGIN} or {END}"
    shown = readme.split(BEGIN)[1].split(END)[0].strip()
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    assert shown == readme_block(report), "run: python tools/docs/render.py"


def test_the_report_says_what_was_measured(render: ModuleType) -> None:
    shown = (REPORT.parent / "report.md").read_text("utf-8")
    assert shown == render.report_markdown(), "run: python tools/docs/render.py"


def test_tables_of_the_guides_are_those_of_their_files(render: ModuleType) -> None:
    assert render.TABLES
    for name, (file, table) in render.TABLES.items():
        text = (ROOT / file).read_text("utf-8")
        message = f"{file}: run python tools/docs/render.py"
        assert text == render.with_table(text, name, table()), message


def test_the_images_that_were_measured_are_named() -> None:
    report = json.loads(REPORT.read_text("utf-8"))
    for run in report["runs"]:
        names = (REPORT.parent / "images" / f"{run['dataset']}.txt").read_text("utf-8").split()
        assert len(set(names)) == len(names) == run["photos"], run["dataset"]
