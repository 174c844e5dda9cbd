"""Every command that a guide prints is one that the programs understand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from picosam2.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    + [ROOT / folder / "README.md" for folder in ("web", "benchmarks", "integrations")]
    + [ROOT / "MODEL_CARD.md", ROOT / "CONTRIBUTING.md"]
)

pytestmark = pytest.mark.skipif(not PAGES[0].is_file(), reason="needs the checkout")


def commands(page: Path) -> Iterator[str]:
    """The commands in a page's blocks: lines that go on are joined, comments and pipes are cut."""
    text = page.read_text("utf-8")
    for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\s*\\\n\s*", " ", block).split("\n"):
            for part in re.split(r" && | \| ", re.sub(r"(^|\s)#.*", "", line)):
                if part.strip():
                    yield part.strip()


def printed(program: str) -> list[tuple[str, str]]:
    """Page and command of each printed command that begins with `program`."""
    return [
        (str(page.relative_to(ROOT)), command)
        for page in PAGES
        if page.is_file()
        for command in dict.fromkeys(commands(page))
        if re.match(rf"{program}\b", command) and " ..." not in command
    ]


@pytest.mark.parametrize(("page", "command"), printed("picosam2"))
def test_a_command_has_the_options_that_a_guide_gives_it(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize(("page", "command"), printed("python (?:benchmarks|tools|integrations)"))
def test_a_script_is_there_and_has_the_options_that_a_guide_gives_it(
    page: str, command: str
) -> None:
    words = shlex.split(command)[1:]
    script = ROOT / words[0]
    assert script.is_file()
    source = script.read_text("utf-8")
    if script.parent.name == "benchmarks":
        source += (script.parent / "common.py").read_text("utf-8")
    for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
        assert f'"{option}"' in source, option


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="Unknown option"):
        app.parse_args(["info", "--no-such-option"], exit_on_error=False, print_error=False)


def test_commands_are_read_from_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\na --b \\\n    c   # why\ncat x | d && e\n```\n\n```python\nf()\n```\n")
    assert list(commands(page)) == ["a --b c", "cat x", "d", "e"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.is_file()], ids=lambda page: page.stem
)
def test_nothing_is_installed_from_an_index_that_lacks_it(page: Path) -> None:
    """The package is not on PyPI yet: guides install from a copy of the repository."""
    installs = re.findall(r"pip install [^`\n&|]*", page.read_text("utf-8"))
    assert [each for each in installs if re.search(r"(?<![/\w-])picosam2(?![-/\w])", each)] == []
