"""Put a table of measurements of a guide into a file of docs/results, and marks around it.

    python tools/docs/record.py docs/PAGE.md '| header | line |' NAME --measured 2026-11-29 \\
        --command 'picosam2 eval --weights default ...'

From then on `tools/docs/render.py` writes the table from the file, and a test compares the two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from picosam2._files import write_json, write_text
from picosam2.cli._exit_codes import run_script

ROOT = Path(__file__).resolve().parents[2]


def cells(line: str) -> list[str]:
    """The cells of a table's line."""
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def record(page: str, header: str, name: str, measured: str, commands: list[str]) -> None:
    """Write the file of one table, and its marks into the page.

    Raises:
        ValueError: the page has not one such table, or the name is taken.
    """
    path, file = ROOT / page, ROOT / "docs" / "results" / f"{name}.json"
    text = path.read_text("utf-8")
    if file.exists():
        raise ValueError(f"{file} is there already: choose another name")
    if text.count(f"\n{header}\n") != 1:
        raise ValueError(f"{page} has {text.count(header)} lines {header!r}; there must be one")
    start = text.index(f"\n{header}\n") + 1
    lines = []
    for line in text[start:].split("\n"):
        if not line.startswith("|"):
            break
        lines.append(line)
    rows = [cells(line) for line in lines]
    write_json(
        file,
        {
            "page": page,
            "measured": measured,
            "commands": commands,
            "header": rows[0],
            "numbers": ["right" if rule.endswith(":") else "left" for rule in rows[1]],
            "rows": rows[2:],
        },
    )
    end = start + len("\n".join(lines))
    table = text[start:end]
    marked = f"<!-- {name}:begin -->\n{table}\n<!-- {name}:end -->"
    write_text(path, text[:start] + marked + text[end:])


def main() -> None:
    """Record the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", help="from the repository's root")
    parser.add_argument("header", help="the table's first line")
    parser.add_argument("name", help="of the file and the marks")
    parser.add_argument("--measured", required=True, metavar="DATE")
    parser.add_argument("--command", required=True, action="append")
    options = parser.parse_args()
    record(options.page, options.header, options.name, options.measured, options.command)


if __name__ == "__main__":
    run_script(main)
