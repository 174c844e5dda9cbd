"""The report: accuracy, speed and size of the networks, their failures, and what was not measured.

`collect.collect` gathers the numbers of result files; `write_report` renders them as `report.json`,
`report.md` with `figures/`, and `report.html`, which needs no other file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picosam2._files import write_bytes, write_json, write_text
from picosam2._words import counted
from picosam2.evaluation.network_facts import config_of
from picosam2.reports import figures
from picosam2.reports.beside import beside_blocks
from picosam2.reports.blocks import (
    Block,
    Bullets,
    Code,
    Figure,
    Heading,
    Table,
    Text,
    to_html,
    to_markdown,
)
from picosam2.reports.domains import domain_blocks
from picosam2.reports.tables import (
    detail_table,
    method_name,
    models_table,
    percent,
    published_table,
    run_name,
    score_table,
)

TITLE = "PicoSAM2: what was measured"

SPEED_COMMAND = (
    "python -m timeit -s 'import picosam2; p = picosam2.Predictor(); i = picosam2.sample()' "
    "'p(i, boxes=[(310, 303, 396, 394)])'",
    "python -m timeit -s 'import picosam2; p = picosam2.Predictor(); i = picosam2.sample()' "
    "'p(i, points=[(353, 349)])'",
)
"""Milliseconds of one box and of one click, on any machine that has the package."""

NOT_TRIED = (
    "On the chip: exports for the IMX500 sensor were converted and checked by Sony's tools on a "
    "computer, and never ran on a sensor.",
    "On phones: LiteRT and ExecuTorch files were run on a computer only.",
    "In Safari and Firefox: the web page was measured in Chromium only.",
    "On whole data sets: the tables count the objects that were measured, a small part of COCO and "
    "LVIS.",
    "With people: every click here is simulated.",
)


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a report."""

    html: Path
    markdown: Path
    json: Path
    figures: tuple[Path, ...]


def blocks(report: Mapping[str, Any], examples: bytes = b"", examples_of: str = "") -> list[Block]:
    """The report's text, tables and figures, in the order of a reader's questions.

    Args:
        report: what `collect` returns.
        examples: the visual comparison, as a JPEG; empty for none.
        examples_of: which images those are.
    """
    return [
        Heading(text=TITLE, level=1),
        *_what_it_does(report),
        *_how_well(report),
        *_how_fast(report),
        *_where_it_fails(report, examples, examples_of),
        Heading(text="What was not tried"),
        Bullets(items=NOT_TRIED),
        *_method(report),
    ]


def _what_it_does(report: Mapping[str, Any]) -> list[Block]:
    return [
        Heading(text="What it can do"),
        Text(
            text="A click on an object, or a box around it, gives the object's mask. Further "
            "clicks correct it. Without a prompt, everything mode proposes a mask for every "
            "object. These weights were measured:"
        ),
        models_table(report),
    ]


def _how_well(report: Mapping[str, Any]) -> list[Block]:
    content: list[Block] = [Heading(text="How well, beside what you use now")]
    if report["beside"]:
        content += [Heading(text="Beside another model", level=3), *beside_blocks(report)]
    if report["domains"]:
        content += [
            Heading(text="On fields that no training image is from", level=3),
            *domain_blocks(report, all_weights=True),
        ]
    if report["beside"] or report["domains"]:
        content.append(Heading(text="All weights, by every protocol", level=3))
    if warned := [run for run in report["runs"] if run["leak"] and run["leak"]["met"]]:
        names = ", ".join(f"{run_name(run)} {run['protocol']} {run['dataset']}" for run in warned)
        content.append(Text(text=f"**Warning:** images of {names} are in the training store."))
    content += [
        Text(
            text="`box` and `click` are what a user gets: mIoU, in percent, of masks on the whole "
            "image, from the true box or from a click on the object's center point. "
            "`click-inside` is a click anywhere well inside the object. `paper-point` and "
            "`paper-roi` repeat published measurements on the crop. Scores of different protocols "
            "cannot be compared with each other. The baselines look at no pixel: filling the box, "
            "its ellipse, and the best disc of a fixed size around the click."
        ),
        score_table(report["runs"]),
        Figure(
            name="baselines",
            caption="mIoU beside what needs no network, on the same objects. Lines are intervals.",
            svg=figures.baselines(report["runs"]),
            wide=True,
        ),
        Heading(text="Beside published figures", level=3),
        Text(
            text="The same protocol does not mean the same objects: published figures are quoted "
            "as printed, most of them for whole data sets, and ours are of the objects counted "
            "here. A difference smaller than our interval says nothing."
        ),
        published_table(report),
    ]
    for dataset in dict.fromkeys(run["dataset"] for run in report["runs"]):
        content.append(
            Figure(
                name=f"size-accuracy-{dataset}",
                caption=f"{dataset.upper()}: mIoU and hit rate over the size of the weights. "
                "Only points of one color were measured the same way; sizes that are not stated "
                "are four bytes a parameter.",
                svg=figures.size_accuracy(report["runs"], report["published"], dataset),
                wide=True,
            )
        )
    return content + _clicks(report) + _proposals(report)


def _how_fast(report: Mapping[str, Any]) -> list[Block]:
    return [
        Heading(text="How fast, here and on your machine"),
        Text(
            text="Times above are of the machine below: milliseconds of the network alone on one "
            "crop, and of a whole prompt. A click runs up to six crops, and then one more. "
            f"{_machines(report)} For yours, with the installed package:"
        ),
        Code(lines=SPEED_COMMAND),
        Figure(
            name="latency-memory",
            caption="Latency of the network alone on one crop over the size of its weights.",
            svg=figures.latency_memory(report["models"], report["published"]),
            wide=True,
        ),
    ]


def _machines(report: Mapping[str, Any]) -> str:
    machines = dict.fromkeys(
        f"{model['machine']['processor']}, {model['machine']['cores']} cores, "
        f"{model['machine']['system']}"
        for model in report["models"]
        if "machine" in model
    )
    if not machines:
        return ""
    return f"{'; '.join(machines)}; ONNX Runtime or PyTorch on the CPU."


def _where_it_fails(report: Mapping[str, Any], examples: bytes, examples_of: str) -> list[Block]:
    content: list[Block] = [Heading(text="Where it fails")]
    if examples:
        content += [
            Text(
                text=f"Objects of {examples_of}, prompted by their true box and chosen by rank of "
                "the first network's IoU, not by hand: the last rows are its worst."
            ),
            Figure(
                name="qualitative",
                caption="Prompt, truth, masks, and the inscribed ellipse as a baseline.",
                jpeg=examples,
                wide=True,
            ),
        ]
    content += [
        Heading(text="By size, outline and neighbors", level=3),
        Text(
            text="mIoU by COCO's size classes and by how many other annotated objects share the "
            "window; boundary IoU after Cheng et al. 2021; the best candidate by truth, where a "
            "click has several."
        ),
        detail_table(report["runs"]),
    ]
    return content + _robustness(report) + _calibration(report)


def _method(report: Mapping[str, Any]) -> list[Block]:
    config = next((c for c in map(config_of, report["models"]) if c is not None), None)
    content: list[Block] = [
        Heading(text="How it was measured"),
        Text(
            text="Every number was measured by the commands below, except those marked as "
            "published, which are quoted with their source. IoU is a mean over objects; intervals "
            "are 95 % bootstrap intervals over images. The hit rate is the share of (object, "
            "threshold) pairs that pass, over IoU thresholds .50:.05:.95, which the PicoSAM papers "
            "call mAP."
        ),
        Code(lines=tuple(dict.fromkeys(run["command"] for run in report["runs"]))),
    ]
    if config is not None:
        content.append(
            Figure(
                name="architecture",
                caption="The architecture, drawn from the model itself. Darker boxes do more work.",
                svg=figures.architecture(config),
                wide=True,
            )
        )
    sources = report["published"]["sources"].values()
    rows = tuple((source["where"], f"{source['title']} ({source['year']})") for source in sources)
    return [
        *content,
        Heading(text="Sources of published figures", level=3),
        Table(header=("where", "what"), rows=rows, left=2),
    ]


def _calibration(report: Mapping[str, Any]) -> list[Block]:
    runs = [run for run in report["runs"] if run["score"]["reliability"]]
    if not runs:
        return []
    header = ("weights", "protocol", "data", "rank correlation", "calibration error")
    rows = tuple(
        (
            run_name(run),
            f"`{run['protocol']}`",
            run["dataset"].upper(),
            f"{run['score']['spearman']:.3f}",
            f"{run['score']['calibration_error']:.3f}",
        )
        for run in runs
    )
    return [
        Heading(text="Can its score be believed?", level=3),
        Text(
            text="Each mask comes with a predicted IoU. Spearman's rank correlation with the true "
            "one says whether it can tell good from bad; the expected calibration error (ten bins) "
            "whether it can be taken at its word."
        ),
        Table(header=header, rows=rows, left=3),
        *(
            Figure(
                name=f"reliability-{index + 1}",
                caption="Larger dots hold more objects; on the line the score is right.",
                svg=figures.reliability(run),
            )
            for index, run in enumerate(runs)
        ),
    ]


def _robustness(report: Mapping[str, Any]) -> list[Block]:
    content: list[Block] = []
    for index, result in enumerate(report["robustness"]):
        content += [
            Heading(text=f"With careless prompts and bad images: {run_name(result)}", level=3),
            Text(
                text=f"{counted(result['n'], 'object')} in {counted(result['photos'], 'image')} of "
                f"{result['dataset'].upper()}, the same for every point. The first level of each "
                "curve changes nothing."
            ),
        ]
        rows = [
            (entry["title"], f"`{protocol}`", f"{level:g}", percent(miou), percent(rate))
            for entry in result["curves"].values()
            for protocol, scores in entry["protocols"].items()
            for level, miou, rate in zip(
                entry["levels"], scores["miou"], scores["hit_rate"], strict=True
            )
        ]
        rows += [
            ("Competing objects", f"`{protocol}`", others, percent(each["miou"]), "-")
            for protocol, classes in result["rivals"].items()
            for others, each in classes.items()
        ]
        suffix = f"-{index + 1}" if index else ""
        content += [
            Figure(
                name=f"curve-{name}{suffix}",
                caption=f"{entry['title']}: {entry['unit']}.",
                svg=figures.curve(name, entry),
            )
            for name, entry in result["curves"].items()
        ]
        content.append(
            Figure(
                name=f"curve-competing-objects{suffix}",
                caption="Other annotated objects that cover at least 1 % of the object's window.",
                svg=figures.competing_objects(result["rivals"]),
            )
        )
        header = ("what", "protocol", "level", "mIoU", "hit rate")
        content.append(Table(header=header, rows=tuple(rows), left=2))
    return content


def _after(miou: Sequence[float], clicks: int) -> str:
    """The mIoU after so many clicks, if as many were given."""
    return percent(miou[clicks - 1]) if clicks <= len(miou) else "-"


def _clicks(report: Mapping[str, Any]) -> list[Block]:
    if not report["clicks"]:
        return []
    results = report["clicks"]
    targets = list(results[0]["noc"])
    shown = [count for count in (1, 2, 3, 5, 10) if count <= max(r["clicks"] for r in results)]
    header = ("weights", "start", "data", "objects",
              *(f"mIoU at {count}" for count in shown),
              *(f"NoC@{target}" for target in targets),
              *(f"never {target}" for target in targets), "harmful")  # fmt: skip
    rows = tuple(
        (
            run_name(result),
            f"`{result.get('start', 'click')}`",
            result["dataset"].upper(),
            f"{result['n']:,}",
            *(_after(result["miou"], count) for count in shown),
            *(f"{result['noc'][target]['clicks']:.2f}" for target in targets),
            *(f"{100 * result['noc'][target]['failed']:.0f} %" for target in targets),
            f"{100 * result['harmful']:.1f} %" if "harmful" in result else "-",
        )
        for result in results
    )
    return [
        Heading(text="Corrective clicks", level=3),
        Text(
            text="A simulated user starts with a click on the object's center (`click`), a click "
            "anywhere inside it (`inside`) or its box (`box`), and then clicks on what is most "
            "wrong. NoC is the mean number of clicks to that IoU; an object that never gets there "
            "counts as the limit. A correction is harmful if it loses more than two points."
        ),
        Table(header=header, rows=rows, left=3),
        Figure(
            name="clicks",
            caption="mIoU after each click.",
            svg=figures.click_curve(results),
            wide=True,
        ),
    ]


def _proposals(report: Mapping[str, Any]) -> list[Block]:
    if not report["proposals"]:
        return []
    names = {model["sha256"]: model["name"] for model in report["models"]}
    header = ("weights", "method", "objects", "AR@1", "AR@10", "AR@100", "small", "medium",
              "large", "masks an image", "s an image")  # fmt: skip
    rows = tuple(
        (
            names.get(result["weights_sha256"], f"`{result['weights_sha256'][:12]}`"),
            method_name(result, method),
            f"{result['n']:,}",
            *(percent(scores[f"ar@{count}"]) for count in (1, 10, 100)),
            *(percent(scores["by_size"][size]) for size in ("small", "medium", "large")),
            f"{scores['masks_per_photo']:.0f}",
            f"{scores['seconds_per_photo']:.2f}",
        )
        for result in report["proposals"]
        for method, scores in result["methods"].items()
    )
    return [
        Heading(text="Everything mode", level=3),
        Text(
            text="Average recall of the first masks of everything mode, without classes, by "
            "COCO's own evaluation; beside a grid of boxes that looks at no pixel. The sizes are "
            "AR@100 of COCO's size classes. Weights that are named by their SHA-256 are not those "
            "of the other tables. Seconds compare within the rows of the same weights only: others "
            "may be of another machine."
        ),
        Table(header=header, rows=rows, left=2),
    ]


def write_report(
    report: Mapping[str, Any], out: Path, *, examples: bytes = b"", examples_of: str = ""
) -> Written:
    """Write a report's files into the folder `out`; see `collect` and `blocks`."""
    content = blocks(report, examples, examples_of)
    paths = []
    for block in content:
        if isinstance(block, Figure):
            path = out / "figures" / block.file_name
            data = f'<?xml version="1.0" encoding="utf-8"?>\n{block.svg}'.encode()
            write_bytes(path, data if block.svg else block.jpeg)
            paths.append(path)
    write_text(out / "report.md", to_markdown(content))
    write_text(out / "report.html", to_html(TITLE, content))
    write_json(out / "report.json", report)
    return Written(
        html=out / "report.html",
        markdown=out / "report.md",
        json=out / "report.json",
        figures=tuple(paths),
    )
