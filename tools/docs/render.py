"""Write the tables of the documentation again, from the result files in the repository.

    python tools/docs/render.py

Nothing is measured. `docs/report/report.md`, the README's tables and those of `docs/quantize.md`
and `docs/click.md` are made from `docs/report/report.json`, tables of earlier measurements from
`docs/results`. `tests/docs` fails when a table differs from its file, or has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from picosam2._files import write_text
from picosam2.cli._exit_codes import run_script
from picosam2.reports.blocks import to_markdown
from picosam2.reports.collect import published
from picosam2.reports.readme import update_readme
from picosam2.reports.report import blocks, write_report
from picosam2.reports.tables import method_name

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "report"
RECORDS = ROOT / "docs" / "results"
"""Tables of earlier measurements, one file each, with the date and the commands."""
EXAMPLES_OF = "COCO"


def read() -> tuple[dict[str, Any], bytes]:
    """The numbers of the committed report, and its comparison in images."""
    report = json.loads((REPORT / "report.json").read_text("utf-8"))
    return report, (REPORT / "figures" / "qualitative.jpg").read_bytes()


def report_markdown() -> str:
    """The text of the committed report, from its numbers."""
    report, examples = read()
    return to_markdown(blocks(report, examples, EXAMPLES_OF))


def int8_table() -> str:
    """What 8 bits cost: the runs of `default` and `default-int8` side by side."""
    report, _ = read()
    runs = {
        (run["weights"]["name"], run["protocol"], run["dataset"]): run for run in report["runs"]
    }
    rows = ["| protocol | data | FP32 | INT8 | change |", "|---|---|--:|--:|--:|"]
    for (name, protocol, dataset), run in runs.items():
        if name == "default" and (int8 := runs.get(("default-int8", protocol, dataset))):
            before, after = 100 * run["miou"], 100 * int8["miou"]
            data = f"{dataset.upper()} val, {run['n']:,} objects"
            rows.append(
                f"| `{protocol}` | {data} | {before:.2f} | {after:.2f} | {after - before:+.2f} |"
            )
    return "\n".join(rows)


def clicks_table() -> str:
    """What corrections gain: a row for each weights and start."""
    report, _ = read()
    shown = (1, 2, 3, 5, 10)
    header = (*map(str, shown[:-1]), f"{shown[-1]} clicks")
    rows = [
        f"| weights, start | {' | '.join(header)} | NoC@85 (never) | harmful | obeyed |",
        "|---|" + "--:|" * (len(shown) + 3),
    ]
    for result in report["clicks"]:
        noc = result["noc"]["85"]
        cells = (
            f"`{result['weights']['name']}`, `{result['start']}`",
            *(f"{100 * result['miou'][count - 1]:.1f}" for count in shown),
            f"{noc['clicks']:.2f} ({100 * noc['failed']:.0f} %)",
            f"{100 * result['harmful']:.1f} %",
            f"{100 * result['obeyed']:.1f} %",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def proposals_table() -> str:
    """How many of the annotated objects everything mode finds."""
    report, _ = read()
    lines = [
        "| weights | method | AR@1 | AR@10 | AR@100 | small | medium | large | s an image |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in report["proposals"]:
        for method, scores in result["methods"].items():
            recalls = [scores[f"ar@{count}"] for count in (1, 10, 100)]
            sizes = [scores["by_size"][size] for size in ("small", "medium", "large")]
            cells = (
                f"`{result['weights_sha256'][:12]}`",
                method_name(result, method),
                *("-" if value is None else f"{value:.3f}" for value in (*recalls, *sizes)),
                f"{scores['seconds_per_photo']:.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def recorded_table(file: Path) -> str:
    """The table of an earlier measurement: `header`, `numbers` and `rows` of its file."""
    record = json.loads(file.read_text("utf-8"))
    rule = ["--:" if side == "right" else "---" for side in record["numbers"]]
    rows = [record["header"], *record["rows"]]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def published_table() -> str:
    """Published figures of `reports/published.json` on COCO and LVIS, by model and protocol."""
    known = published()
    rows: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for score in known["scores"]:
        if score["model"] not in SHOWN_MODELS or score["source"] == "third-party":
            continue
        source = known["sources"][score["source"]]
        where = f"{source['title'].partition(':')[0]}, {source['where']}"
        size = f"{score['parameters'] / 1e6:g} M"
        key = (score["model"], size, score["protocol"], where)
        rows.setdefault(key, {})[score["dataset"]] = f"{100 * score['miou']:.1f}"
    lines = ["| model | parameters | protocol | COCO | LVIS | source |"]
    lines.append("|---|--:|---|--:|--:|---|")
    for (model, size, protocol, where), scores in rows.items():
        both = " | ".join(scores.get(dataset, "-") for dataset in ("coco", "lvis"))
        lines.append(f"| {model} | {size} | `{protocol}` | {both} | {where} |")
    return "\n".join(lines)


SHOWN_MODELS = (
    "PicoSAM2, distilled", "PicoSAM2, supervised", "PicoSAM3", "EdgeSAM", "MobileSAM", "SAM-H",
)  # fmt: skip
"""Of the published figures, those in the README."""

TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "int8": ("docs/quantize.md", int8_table),
    "clicks": ("docs/click.md", clicks_table),
    "proposals": ("docs/everything.md", proposals_table),
    "published": ("README.md", published_table),
    **{
        file.stem: (json.loads(file.read_text("utf-8"))["page"], partial(recorded_table, file))
        for file in sorted(RECORDS.glob("*.json"))
    },
}
"""By the name in its marks, `<!-- NAME:begin -->` and `<!-- NAME:end -->`: file and content."""


def with_table(text: str, name: str, table: str) -> str:
    """`text` with `table` between the marks of `name`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the marks {begin} and {end} must each be there once")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Write every table and figure."""
    report, examples = read()
    for figure in (REPORT / "figures").iterdir():
        figure.unlink()
    write_report(report, REPORT, examples=examples, examples_of=EXAMPLES_OF)
    update_readme(ROOT / "README.md", report)
    for name, (file, table) in TABLES.items():
        path = ROOT / file
        write_text(path, with_table(path.read_text("utf-8"), name, table()))


if __name__ == "__main__":
    run_script(main)
