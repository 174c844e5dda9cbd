"""A page for each command, made of what its `--help` prints, and of examples if there are any.

The pages are written to docs/cli/ whenever the documentation is built, so they cannot be out of
date. `docs/cli/examples/NAME.md`, if it exists, is shown above the help of `picosam2 NAME`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Console

_WIDTH = 96


def commands() -> Iterator[tuple[str, ...]]:
    """The words of every command that can be run or has subcommands: ("data", "prepare")."""
    from picosam2.cli.main import app

    yield from _below(app, ())


def _below(app: App, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name in app:
        if name.startswith("-"):
            continue
        yield (*words, name)
        yield from _below(app[name], (*words, name))


def help_text(words: tuple[str, ...]) -> str:
    """What `picosam2 WORDS --help` prints, without colors."""
    from picosam2.cli.main import app

    buffer = io.StringIO()
    app.help_print(list(words), console=Console(file=buffer, width=_WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in buffer.getvalue().strip().splitlines())


def page(words: tuple[str, ...], examples: str | None) -> str:
    """The page of a command, in Markdown."""
    parts = [f"# picosam2 {' '.join(words)}"]
    if examples:
        parts.append(examples.strip())
    parts.append(f"```text\n{help_text(words)}\n```")
    return "\n\n".join(parts) + "\n"


def write_pages(folder: Path) -> list[Path]:
    """Write a page for each command; pages of commands that are no more are removed."""
    written = []
    for words in commands():
        examples = folder / "examples" / f"{'-'.join(words)}.md"
        path = folder / f"{'-'.join(words)}.md"
        text = page(words, examples.read_text("utf-8") if examples.is_file() else None)
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
        written.append(path)
    for path in folder.glob("*.md"):
        if path not in written and path.name != "index.md":
            path.unlink()
    return written


def _build(sphinx: Any) -> None:
    write_pages(Path(sphinx.srcdir) / "cli")


def setup(sphinx: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    sphinx.connect("builder-inited", _build)
    return {"parallel_read_safe": True}
