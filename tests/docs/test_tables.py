"""Every table of the guides is made from a result file, or holds no measurement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results"

pytestmark = pytest.mark.skipif(not RECORDS.is_dir(), reason="needs the checkout")

WHOLE = {"docs/report/report.md"}
"""Pages that are made from a result file as a whole; `test_readme_numbers` compares them."""

MADE_BY_A_COMMAND = {"docs/error-analysis.md"}
"""Pages that a command writes as a whole; their first line names it."""

LOGS = {
    "benchmarks/README.md": "| date | machine | command | number | limit kept |",
}
"""Tables in which each row is a measurement of its own and names its date and its command."""

WITHOUT_MEASUREMENTS = {
    "CONTRIBUTING.md": ("| room, from the top down | what is in it | add here |",),
    "MODEL_CARD.md": (
        "| name | network | sees | prompts |",
        "| source | images | masks | what |",
    ),
    "README.md": ("| | |",),
    "benchmarks/README.md": ("| command | what is measured | limit |",),
    "docs/bulk.md": ("| `--boxes-format` | what is read | the image is found by |",),
    "docs/camera.md": ("| | |", "| message | remedy |"),
    "docs/checked.md": ("| environment | run | result |",),
    "docs/decisions.md": ("| part | decision |",),
    "docs/distillation.md": (
        "| `--teacher` | network | needs |",
        "| `form` | the teacher's term | from |",
    ),
    "docs/formats.md": ("| `--format` | file | holds | exact |",),
    "docs/how-it-works.md": ("| module or room | what it holds |",),
    "docs/imx500.md": ("| converts | does not |", "| file | what it is |"),
    "docs/in-sensor-design.md": ("| variant | setting | idea |",),
    "docs/integrations.md": ("| column in | holds |", "| column out | holds |"),
    "docs/runs/README.md": ("| weights | made of |",),
    "docs/runtimes.md": (
        "| `--runtime` | install | runs | what it adds on disk |",
        "| | in | out |",
    ),
    "docs/serve.md": ("| call | what it does |",),
    "docs/training.md": ("| view | context | trains |", "| recipe | what it trains |"),
    "docs/video.md": ("| `--out` | what is written |",),
    "docs/web.md": ("| | |",),
    "integrations/README.md": ("| tool | what it gets | how | tested |",),
    "web/README.md": ("| folder | what |", "| file | job |"),
    "web/packages/picosam2/README.md": ("| option | meaning |", "| prompt | meaning |"),
}
"""Tables that say what things are, by page and header line."""


class Found(NamedTuple):
    """A table of a page: its header line, its other lines, and the marks it stands between."""

    page: str
    header: str
    rows: list[str]
    name: str | None


def pages() -> list[Path]:
    """README, guides and the pages beside the code."""
    patterns = ("*.md", "docs/**/*.md", "benchmarks/*.md", "tools/**/*.md", "web/**/*.md",
                "integrations/**/*.md")  # fmt: skip
    files = {path for pattern in patterns for path in ROOT.glob(pattern)}
    left_out = {"node_modules", "cli", "api", "dist"}
    return sorted(path for path in files if not left_out & set(path.relative_to(ROOT).parts[:-1]))


def tables(page: Path) -> Iterator[Found]:
    """The tables of a page, those in code blocks left out."""
    name = str(page.relative_to(ROOT))
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    lines = text.split("\n")
    open_marks: list[str] = []
    index = 0
    while index < len(lines):
        if mark := re.fullmatch(r"<!-- ([\w-]+):(begin|end) -->", lines[index]):
            if mark[2] == "begin":
                open_marks.append(mark[1])
            elif mark[1] in open_marks:
                open_marks.remove(mark[1])
        start = index
        while index < len(lines) and lines[index].startswith("|"):
            index += 1
        if index > start:
            yield Found(name, lines[start], lines[start + 2 : index], (open_marks or [None])[-1])
        else:
            index += 1


def all_tables() -> list[Found]:
    return [table for page in pages() for table in tables(page)]


def test_every_table_has_a_result_file_or_holds_no_measurement(render: ModuleType) -> None:
    rendered = {(file, name) for name, (file, _) in render.TABLES.items()} | {
        ("README.md", "report")
    }
    unknown = [
        f"{table.page}: {table.header}"
        for table in all_tables()
        if table.page not in WHOLE | MADE_BY_A_COMMAND
        and (table.page, table.name) not in rendered
        and LOGS.get(table.page) != table.header
        and table.header not in WITHOUT_MEASUREMENTS.get(table.page, ())
    ]
    assert not unknown, (
        "a table with measurements is made from a file of docs/results by "
        "tools/docs/render.py; one without is named in WITHOUT_MEASUREMENTS:\n" + "\n".join(unknown)
    )


def test_the_lists_name_only_tables_that_are_there() -> None:
    there = {(table.page, table.header) for table in all_tables()}
    listed = {
        (page, header) for page, headers in WITHOUT_MEASUREMENTS.items() for header in headers
    }
    assert listed | set(LOGS.items()) <= there
    for page in WHOLE | MADE_BY_A_COMMAND:
        assert (ROOT / page).is_file()


@pytest.mark.parametrize("header", ["mIoU", "IoU", "AR@", "MiB", "NoC", "SHA-256"])
def test_tables_without_measurements_have_no_column_of_scores(header: str) -> None:
    for page, headers in WITHOUT_MEASUREMENTS.items():
        assert not any(header in line for line in headers), page


@pytest.mark.parametrize("page", sorted(MADE_BY_A_COMMAND))
def test_pages_made_by_a_command_name_it(page: str) -> None:
    first = (ROOT / page).read_text("utf-8").partition("\n")[0]
    assert re.match(r"Made by `picosam2 [\w-]+ .+`", first)


@pytest.mark.parametrize(("page", "header"), sorted(LOGS.items()))
def test_rows_of_logs_name_their_date_and_their_command(page: str, header: str) -> None:
    rows = next(t.rows for t in all_tables() if (t.page, t.header) == (page, header))
    assert rows
    # Some scripts take the options of another one.
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "benchmarks").glob("*.*"))
    last = ""
    for row in rows:
        date, _, command, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", date), row
        last = last if command == "the same" else command
        script = re.match(r"`([\w.]+)", last)
        assert script, row
        assert (ROOT / "benchmarks" / script[1]).is_file(), row
        for option in re.findall(r"(?<=[ `])--[\w-]+", command):
            assert f'"{option}"' in sources, f"{script[1]} {option}"


@pytest.mark.parametrize("file", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_records_say_when_and_how_they_were_measured(file: Path) -> None:
    record = json.loads(file.read_text("utf-8"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["measured"])
    assert (ROOT / record["page"]).is_file()
    assert record["commands"]
    text = (ROOT / record["page"]).read_text("utf-8")
    page = " ".join(text.replace("\\\n", " ").split())  # commands over several lines are joined
    for command in record["commands"]:
        words = command.split()
        assert words[0] in ("picosam2", "python"), command
        if words[0] == "python":
            assert (ROOT / words[1]).is_file(), command
        assert command in page, command
    width = len(record["header"])
    assert {len(row) for row in record["rows"]} == {width} == {len(record["numbers"])}
