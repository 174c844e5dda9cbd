"""A report as a list of blocks, rendered as Markdown or by a template as one HTML page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from picosam2.errors import require


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading; `level` 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph. `code` in backquotes."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Commands, one a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its first `left` columns are text, the others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing as SVG, or an image as JPEG bytes, with its caption. `name` is its file's stem."""

    name: str
    caption: str
    svg: str = ""
    jpeg: bytes = b""
    wide: bool = False
    """Takes the page's whole width."""

    @property
    def file_name(self) -> str:
        """The file that Markdown points at."""
        return f"{self.name}.{'svg' if self.svg else 'jpg'}"

    @property
    def svg_element(self) -> str:
        """The drawing without its XML declaration, to be put into HTML."""
        return self.svg[self.svg.index("<svg") :]

    @property
    def data_url(self) -> str:
        """The JPEG as a data: address."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode()}"


Block = Heading | Text | Bullets | Code | Table | Figure


def to_markdown(blocks: Sequence[Block], *, folder: str = "figures") -> str:
    """Markdown; figures are links to files in `folder`."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
        elif isinstance(block, Bullets):
            parts.append("\n".join(f"- {item}" for item in block.items))
        elif isinstance(block, Code):
            parts.append("\n".join(("```", *block.lines, "```")))
        elif isinstance(block, Table):
            parts.append(_markdown_table(block))
        else:
            parts.append(f"![{block.caption}]({folder}/{block.file_name})\n\n*{block.caption}*")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rule = [":--" if index < table.left else "--:" for index in range(len(table.header))]
    rows = [table.header, tuple(rule), *table.rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows)


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One HTML page that needs no other file: style, drawings and images are inside."""
    jinja2 = require("jinja2", "train")
    markup = require("markupsafe", "train").Markup
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("picosam2.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["inline"] = lambda text: markup(_inline(text))
    page: str = environment.get_template("report.html").render(title=title, groups=_grouped(blocks))
    return page


def _grouped(blocks: Sequence[Block]) -> list[tuple[str, list[Any]]]:
    """Blocks with the name of their template; small figures in a row become one grid."""
    groups: list[tuple[str, list[Any]]] = []
    for block in blocks:
        kind = type(block).__name__.lower()
        if isinstance(block, Figure) and not block.wide:
            kind = "grid"
        if kind == "grid" and groups and groups[-1][0] == "grid":
            groups[-1][1].append(block)
        else:
            groups.append((kind, [block]))
    return groups


def _inline(text: str) -> str:
    """Escaped text with `code` and **bold**."""
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
