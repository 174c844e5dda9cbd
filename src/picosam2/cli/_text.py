"""Plain text for a person: aligned columns, lists that end somewhere, sizes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

_NAMED = 10  # problems that are named; the rest are counted


def columns(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows as aligned columns: the first `left` of them to the left, the others to the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def name_problems(problems: Sequence[str], heading: str) -> None:
    """Say on stderr what was left out, and how much: the first few by name, the rest counted."""
    if not problems:
        return
    print(f"picosam2: {heading} ({len(problems):,}):", file=sys.stderr)
    for problem in problems[:_NAMED]:
        print(f"  {one_line(problem)}", file=sys.stderr)
    if len(problems) > _NAMED:
        print(f"  and {len(problems) - _NAMED:,} more", file=sys.stderr)


def one_line(text: str) -> str:
    """Text that is safe on a terminal: one line, with all else that is no printable sign escaped.

    A file's name may hold a line break, or an escape sequence that moves the cursor.
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def size(count: int) -> str:
    """A file's bytes as MB (of 1,000,000 bytes), or as kB where it is small."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e4 else f"{count / 1e3:,.1f} kB"
