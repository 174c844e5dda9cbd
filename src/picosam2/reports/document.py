"""A report as text, tables and figures, written once and rendered as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass


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
    """A drawing as SVG, or a picture as JPEG bytes, with its caption. `name` is its file's stem."""

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


Block = Heading | Text | Code | Table | Figure


def to_markdown(blocks: Sequence[Block], *, folder: str = "figures") -> str:
    """Markdown; figures are links to files in `folder`."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Text):
            parts.append(block.text)
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
    """One HTML page that needs nothing else: style, drawings and pictures are inside."""
    body: list[str] = []
    grid: list[str] = []  # small figures that follow each other stand side by side

    def close_grid() -> None:
        if grid:
            body.append('<div class="grid">' + "".join(grid) + "</div>")
            grid.clear()

    for block in blocks:
        if isinstance(block, Figure) and not block.wide:
            grid.append(_html_figure(block))
            continue
        close_grid()
        if isinstance(block, Heading):
            body.append(f"<h{block.level}>{_inline(block.text)}</h{block.level}>")
        elif isinstance(block, Text):
            body.append(f"<p>{_inline(block.text)}</p>")
        elif isinstance(block, Code):
            body.append(f"<pre>{html.escape(chr(10).join(block.lines))}</pre>")
        elif isinstance(block, Table):
            body.append(_html_table(block))
        else:
            body.append(_html_figure(block))
    close_grid()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        made = [
            f'<{tag} class="{"text" if index < table.left else "number"}">{_inline(cell)}</{tag}>'
            for index, cell in enumerate(cells)
        ]
        return "<tr>" + "".join(made) + "</tr>"

    rows = "".join(row(cells, "td") for cells in table.rows)
    return (
        '<div class="scroll"><table><thead>'
        f"{row(table.header, 'th')}</thead><tbody>{rows}</tbody></table></div>"
    )


def _html_figure(figure: Figure) -> str:
    import base64

    if figure.svg:
        picture = figure.svg[figure.svg.index("<svg") :]
    else:
        data = base64.b64encode(figure.jpeg).decode()
        caption = html.escape(figure.caption)
        picture = f'<img src="data:image/jpeg;base64,{data}" alt="{caption}">'
    kind = ' class="wide"' if figure.wide else ""
    return f"<figure{kind}>{picture}<figcaption>{_inline(figure.caption)}</figcaption></figure>"


def _inline(text: str) -> str:
    """Escaped text with `code` and **bold**."""
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


_STYLE = """
:root { color-scheme: light; --ink: #1c2330; --soft: #5b6678; --line: #dde2ea; --card: #fff;
  --page: #f4f6f9; --mark: #2f6fde; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .5rem 0 .9rem; max-width: 72ch; }
code { font: .9em ui-monospace, "SF Mono", Consolas, monospace; background: #e9edf3;
  border-radius: 4px; padding: .08em .3em; }
pre { font: .85rem/1.5 ui-monospace, "SF Mono", Consolas, monospace; background: #1c2330;
  color: #e7ecf4; border-radius: 8px; padding: .9rem 1.1rem; overflow-x: auto; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; margin: .8rem 0 1.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { padding: .42rem .6rem; white-space: nowrap; text-align: right;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
td { border-top: 1px solid #eef1f5; }
tbody tr:first-child td { border-top: 0; }
.text { text-align: left; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1rem;
  margin: .8rem 0 1.2rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem; }
figure.wide { margin: .8rem 0 1.2rem; }
figure svg, figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .5rem; }
@media print { body { background: #fff; } figure { break-inside: avoid; } }
"""
