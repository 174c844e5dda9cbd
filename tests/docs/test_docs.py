"""The documentation: examples run, pages build without a warning, every command has one."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.scripts import load_script

from picosam2.runtimes.weights import shipped

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md") if ">>> " in path.read_text("utf-8"))
MODULES = [
    "picosam2",
    "picosam2.predictor",
    "picosam2.io.formats.outlines",
    "picosam2.tasks.everything",
]

needs_docs = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")
needs_weights = pytest.mark.skipif("default" not in shipped(), reason="no weights are shipped yet")


def check(test: doctest.DocTest) -> None:
    messages: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=messages.append)
    assert runner.failures == 0, "".join(messages)
    assert runner.tries > 0


@needs_docs
@needs_weights
@pytest.mark.parametrize("name", PAGES)
def test_examples_of_pages(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    # A fence that closes right after an answer would be taken for a part of it.
    code = "\n\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    check(doctest.DocTestParser().get_doctest(code, {}, name, str(DOCS / name), 0))


@needs_weights
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_modules(name: str) -> None:
    tests = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    collected = [test for test in tests if test.examples]
    assert collected
    for test in collected:
        check(test)


@pytest.fixture
def cli_pages() -> ModuleType:
    pytest.importorskip("rich")
    place = DOCS / "_ext" / "cli_pages.py"
    if not place.is_file():
        pytest.skip("the documentation is not here")
    return load_script(place)


def test_every_command_has_a_page(cli_pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "segment.md").write_text("An example.")
    (tmp_path / "gone.md").write_text("of a command that is no more")
    (tmp_path / "index.md").write_text("kept")
    written = {path.stem for path in cli_pages.write_pages(tmp_path)}
    assert {"segment", "everything", "data", "data-prepare"} <= written
    assert {path.stem for path in tmp_path.glob("*.md")} == written | {"index"}
    text = (tmp_path / "segment.md").read_text("utf-8")
    assert text.startswith("# picosam2 segment\n\nAn example.\n\n```text\nUsage: picosam2 segment")
    assert "--boxes" in text
    assert "\x1b" not in text


def test_examples_are_of_commands(cli_pages: ModuleType) -> None:
    known = {"-".join(words) for words in cli_pages.commands()}
    assert {path.stem for path in (DOCS / "cli" / "examples").glob("*.md")} <= known


@needs_docs
def test_builds_without_a_warning(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    options = ["-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
