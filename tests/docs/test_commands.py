"""Every command that a guide or a script's docstring prints is one that the programs understand."""

from __future__ import annotations

import ast
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
    + sorted((ROOT / "tools").rglob("*.md"))
    + sorted((ROOT / "tools").rglob("*.py"))
    + sorted((ROOT / "benchmarks").glob("*.py"))
)
"""The pages, and the scripts, whose docstrings print how they are called."""

FENCE = re.compile(r"^ *```([^\n`]*)\n(.*?)^ *```[ \t]*$", re.DOTALL | re.MULTILINE)
PIPES = re.compile(r" (?:&&|\|) (?=(?:[^']*'[^']*')*[^']*$)")
"""What joins two commands, outside of quotes."""
SHELLS = {"", "sh", "bash", "console"}

pytestmark = pytest.mark.skipif(not PAGES[0].is_file(), reason="needs the checkout")


def blocks(page: Path) -> Iterator[str]:
    """A page's blocks of commands. Those in other languages are passed over, not taken for text."""
    text = page.read_text("utf-8")
    if page.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
        yield from re.findall(r"(?:^ {4}.*\n?)+", text, re.MULTILINE)
    else:
        yield from (block for language, block in FENCE.findall(text) if language in SHELLS)


def commands(page: Path) -> Iterator[str]:
    """The commands in a page's blocks: lines that go on are joined, comments and pipes are cut."""
    for block in blocks(page):
        for line in re.sub(r"\s*\\\n\s*", " ", block).split("\n"):
            for part in PIPES.split(re.sub(r"(^|\s)#.*", "", line)):
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


def inline(program: str) -> list[tuple[str, str]]:
    """Page and command of each command in the text of a page, between backticks."""
    return [
        (str(page.relative_to(ROOT)), " ".join(command.split()))
        for page in PAGES
        if page.suffix == ".md" and page.is_file()
        for command in dict.fromkeys(
            re.findall(rf"`({program}\b[^`]*)`", FENCE.sub("", page.read_text("utf-8")))
        )
        if " ..." not in command
    ]


def source_of(script: Path) -> str:
    """A script's text, and that of the scripts beside it whose options it shares."""
    source = script.read_text("utf-8")
    for beside in script.parent.glob("*.py"):
        if re.search(rf"^(?:from|import) {beside.stem}\b", source, re.MULTILINE):
            source += f"\n{beside.read_text('utf-8')}"
    return source


def required_options(source: str) -> set[str]:
    """The options that a script cannot do without."""
    return {
        node.args[0].value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and isinstance(node.args[0], ast.Constant)
        and any(
            keyword.arg == "required" and getattr(keyword.value, "value", False) is True
            for keyword in node.keywords
        )
    }


SCRIPTS = "python (?:benchmarks|tools|integrations)"


@pytest.mark.parametrize(("page", "command"), printed(SCRIPTS) + inline(SCRIPTS))
def test_a_script_is_there_and_has_the_options_that_a_guide_gives_it(
    page: str, command: str
) -> None:
    words = shlex.split(command)[1:]
    script = ROOT / words[0]
    assert script.is_file()
    source = source_of(script)
    # Some scripts add several options in a loop over their names.
    in_a_loop = set(re.findall(r'"([\w-]+)"', source)) if 'f"--{name}"' in source else set()
    options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    for option in options:
        assert f'"{option}"' in source or option[2:] in in_a_loop, option
    parsed = script.read_text("utf-8")
    needed = required_options(parsed if "ArgumentParser(" in parsed else source)
    assert needed - options == set()


def test_required_options_are_read() -> None:
    source = 'p.add_argument("--a", required=True)\np.add_argument("--b", required=False)\n'
    assert required_options(source) == {"--a"}


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="Unknown option"):
        app.parse_args(["info", "--no-such-option"], exit_on_error=False, print_error=False)


def test_commands_are_read_from_blocks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\na --b \\\n    c   # why\ncat x | d && e\n```\n\n```python\nf()\n```\n")
    assert list(commands(page)) == ["a --b c", "cat x", "d", "e"]


def test_blocks_after_one_of_another_language_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nf()\n```\n\nText.\n\n```sh\na\n```\n\n- x\n\n  ```sh\n  b\n  ```\n")
    assert list(commands(page)) == ["a", "b"]


def test_commands_are_read_from_docstrings(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text('"""What it does:\n\n    python a.py --b \\\\\n        --c\n\nMore.\n"""\n')
    assert list(commands(script)) == ["python a.py --b --c"]


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.is_file()],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_nothing_is_installed_from_an_index_that_lacks_it(page: Path) -> None:
    """The package is not on PyPI yet: guides install from a copy of the repository."""
    installs = re.findall(r"pip install [^`\n&|]*", page.read_text("utf-8"))
    assert [each for each in installs if re.search(r"(?<![/\w-])picosam2(?![-/\w])", each)] == []
