"""The report: every number and figure of the results, beside baselines and published figures.

`collect` makes one JSON-like table of numbers from result files; `write_report` renders it as
`report.json`, `report.md` with `figures/`, and `report.html`, which needs no other file.
`readme_block` is the part of it that the README shows between two marks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from picosam2._files import write_bytes, write_json, write_text
from picosam2.errors import DataError
from picosam2.evaluation.network_facts import config_of
from picosam2.reports import figures
from picosam2.reports.document import (
    Block,
    Code,
    Figure,
    Heading,
    Table,
    Text,
    to_html,
    to_markdown,
)

BEGIN, END = "<!-- report:begin -->", "<!-- report:end -->"
"""The README's marks around the part that the report writes."""

TITLE = "PicoSAM2: what we measured"
MODEL_FIELDS = ("name", "precision", "parameters", "macs", "bytes", "ms_per_crop", "runtime",
                "sha256", "model", "machine")  # fmt: skip
_ORDER = ("box", "click", "paper-roi", "paper-point")
BASELINES = {"box": "filled box", "ellipse": "ellipse", "disc": "disc", "flood": "flood fill",
             "grabcut": "GrabCut"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a report."""

    html: Path
    markdown: Path
    json: Path
    figures: tuple[Path, ...]


def published() -> dict[str, Any]:
    """Scores and latencies that others have published, with their sources."""
    text = (resources.files("picosam2") / "reports" / "published.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def collect(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of result files, without their objects: what `report.json` holds.

    Raises:
        DataError: there is no evaluation, or one lacks a number.
    """
    try:
        runs = [_run(one) for one in results if one["kind"] == "evaluation"]
        if not runs:
            raise DataError("a report needs a result of `picosam2 eval`: pass at least one")
        runs.sort(key=lambda one: (one["dataset"], _ORDER.index(one["protocol"])))
        models: dict[str, dict[str, Any]] = {}
        for one in results:
            weights = one.get("weights")
            if weights:
                kept = {key: weights[key] for key in MODEL_FIELDS if key in weights}
                kept["name"] = Path(str(weights["name"])).stem
                models.setdefault(weights["sha256"], kept)
        return {
            "kind": "report",
            "models": list(models.values()),
            "runs": runs,
            "robustness": [_named(one) for one in results if one["kind"] == "robustness"],
            "clicks": [_named(one) for one in results if one["kind"] == "clicks"],
            "proposals": [
                {key: value for key, value in one.items() if key != "problems"}
                for one in results
                if one["kind"] == "proposals"
            ],
            "published": published(),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"a result file lacks {error}: measure again with this version") from error


def _named(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result whose weights are only named: a report tells no paths of the machine."""
    weights = result["weights"]
    short = {key: weights[key] for key in ("precision", "bytes", "sha256") if key in weights}
    if weights:
        short["name"] = Path(str(weights["name"])).stem
    return {**result, "weights": short}


def _run(result: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {"items", "problems", "kind", "weights_sha256", "leak"}
    run = _named({key: value for key, value in result.items() if key not in left_out})
    leak = result["leak"]
    run["leak"] = None if leak is None else {k: leak[k] for k in ("checked", "met", "trained_on")}
    run["command"] = _command(run)
    return run


def _command(run: Mapping[str, Any]) -> str:
    """The command that measured a run; of files and folders it tells the last part."""
    files = run.get("files", {"images": "IMAGES", "annotations": "ANNOTATIONS"})
    words = ["picosam2 eval", f"--weights {run['weights'].get('name', 'default')}"]
    words.append(f"--protocol {run['protocol']}")
    if run["dataset"] != "coco":
        words.append(f"--dataset {run['dataset']}")
    words.append(f"--images {files['images']} --annotations {files['annotations']}")
    words += [f"--{name} {run[name]}" for name in ("first", "limit") if run.get(name)]
    if run["jitter"]:
        words.append(f"--jitter {run['jitter']:g}")
    if "grabcut" in run["baselines"]:
        words.append("--pixel-baselines")
    return " ".join(words)


# --- what is said -------------------------------------------------------------------------------


def blocks(report: Mapping[str, Any], sheet: bytes = b"", sheet_of: str = "") -> list[Block]:
    """The report's text, tables and figures. `sheet` is the qualitative comparison as a JPEG."""
    found: list[Block] = [
        Heading(text=TITLE, level=1),
        Text(
            text="Every number here was measured by the commands printed with it, except those "
            "marked as published, which are quoted with their source. IoU is a mean over objects; "
            "intervals are 95 % bootstrap intervals over photos. The hit rate is the share of "
            "(object, threshold) pairs that pass, over IoU thresholds .50:.05:.95, which the "
            "PicoSAM papers call mAP."
        ),
        Heading(text="Models"),
        _models(report),
    ]
    if machines := _machines(report):
        found.append(Text(text=machines))
    found.append(
        Figure(
            name="latency-memory",
            caption="Latency of the bare network on one crop over the size of its weights.",
            svg=figures.latency_memory(report["models"], report["published"]),
            wide=True,
        )
    )
    config = next((c for c in map(config_of, report["models"]) if c is not None), None)
    if config is not None:
        found.append(
            Figure(
                name="architecture",
                caption="The architecture, drawn from the model itself. Darker boxes do more work.",
                svg=figures.architecture(config),
                wide=True,
            )
        )
    found += _scores(report)
    if sheet:
        found += [
            Heading(text="What it looks like"),
            Text(
                text=f"Objects of {sheet_of}, prompted by their true box and chosen by rank of the "
                "first network's IoU, not by hand: the last rows are its worst."
            ),
            Figure(
                name="qualitative",
                caption="Prompt, truth, masks, and the inscribed ellipse as a baseline.",
                jpeg=sheet,
                wide=True,
            ),
        ]
    found += _calibration(report) + _robustness(report) + _clicks(report) + _proposals(report)
    return found + _sources(report)


def _models(report: Mapping[str, Any]) -> Table:
    header = ("weights", "precision", "parameters", "MACs", "file", "ms a crop", "SHA-256")
    rows = []
    for one in report["models"]:
        macs, time = one.get("macs"), one.get("ms_per_crop")
        rows.append(
            (
                one["name"],
                one["precision"],
                f"{one['parameters']:,}" if "parameters" in one else "-",
                f"{macs / 1e6:.1f} M" if macs else "-",
                f"{one['bytes'] / 1e6:.2f} MB",
                f"{time:.1f}" if time else "-",
                f"`{one['sha256'][:12]}`",
            )
        )
    return Table(header=header, rows=tuple(rows), left=2)


def _machines(report: Mapping[str, Any]) -> str:
    names = []
    for one in report["models"]:
        if "machine" in one:
            where = one["machine"]
            name = f"{where['processor']}, {where['cores']} cores, {where['system']}"
            if name not in names:
                names.append(name)
    return f"Times: {'; '.join(names)}; ONNX Runtime or PyTorch on the CPU." if names else ""


def _scores(report: Mapping[str, Any]) -> list[Block]:
    found: list[Block] = [Heading(text="Scores")]
    if warned := [run for run in report["runs"] if run["leak"] and run["leak"]["met"]]:
        found.append(
            Text(
                text="**Warning:** photos of "
                + ", ".join(f"{_name(run)} {run['protocol']} {run['dataset']}" for run in warned)
                + " are in the training store."
            )
        )
    found += [
        Text(
            text="`box` and `click` are what a user gets, measured on the whole photo; "
            "`paper-point` and `paper-roi` repeat the published measurements on the crop. Scores "
            "of different protocols cannot be compared with each other."
        ),
        _score_table(report["runs"]),
        Figure(
            name="baselines",
            caption="mIoU beside what needs no network, on the same objects. Lines are intervals.",
            svg=figures.baselines(report["runs"]),
            wide=True,
        ),
        Heading(text="By size, outline and company", level=3),
        Text(
            text="mIoU by COCO's size classes and by how many other annotated objects share the "
            "window; boundary IoU after Cheng et al. 2021; the best candidate by truth, where a "
            "click has several."
        ),
        _detail_table(report["runs"]),
        Code(lines=tuple(dict.fromkeys(run["command"] for run in report["runs"]))),
        Heading(text="Beside published figures"),
        Text(
            text="The same protocol does not mean the same objects: published figures are quoted "
            "as printed, most of them for whole data sets, and ours are of the objects counted "
            "here. A difference smaller than our interval says nothing."
        ),
        _beside(report),
    ]
    for dataset in dict.fromkeys(run["dataset"] for run in report["runs"]):
        found.append(
            Figure(
                name=f"size-accuracy-{dataset}",
                caption=f"{dataset.upper()}: mIoU and hit rate over the size of the weights. "
                "Only points of one colour were measured the same way; sizes that are not stated "
                "are four bytes a parameter.",
                svg=figures.size_accuracy(report["runs"], report["published"], dataset),
                wide=True,
            )
        )
    return found


def _score_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    kinds = [kind for kind in BASELINES if any(kind in run["baselines"] for run in runs)]
    header = ("weights", "protocol", "data", "objects", "mIoU", "95 % interval", "hit rate",
              *(BASELINES[kind] for kind in kinds), "ms a prompt")  # fmt: skip
    rows = [
        (
            _name(run),
            f"`{run['protocol']}`",
            run["dataset"].upper(),
            f"{run['n']:,}",
            f"**{_percent(run['miou'])}**",
            " - ".join(_percent(value) for value in run["miou_ci95"]),
            _percent(run["hit_rate"]),
            *(_percent(run["baselines"].get(kind)) for kind in kinds),
            f"{run['ms_per_prompt']:.1f}",
        )
        for run in runs
    ]
    return Table(header=header, rows=tuple(rows), left=3)


def _detail_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    header = ("weights", "protocol", "data", "small", "medium", "large", "boundary IoU",
              "best candidate", "alone", "1-2 others", "3+ others")  # fmt: skip
    rows = [
        (
            _name(run),
            f"`{run['protocol']}`",
            run["dataset"].upper(),
            *(_percent(run["by_size"][size]) for size in ("small", "medium", "large")),
            _percent(run["boundary_iou"]),
            _percent(run["best_candidate"]),
            *(_percent(run["by_rivals"][others]["miou"]) for others in ("0", "1-2", "3+")),
        )
        for run in runs
    ]
    return Table(header=header, rows=tuple(rows), left=3)


def _beside(report: Mapping[str, Any]) -> Table:
    """Ours and published figures together, protocol by protocol."""
    header = ("protocol", "data", "model", "mIoU", "hit rate", "size", "objects", "source")
    rows = []
    keys = dict.fromkeys((run["protocol"], run["dataset"]) for run in report["runs"])
    sources = report["published"]["sources"]
    for protocol, dataset in keys:
        for run in report["runs"]:
            if (run["protocol"], run["dataset"]) == (protocol, dataset):
                size = run["weights"].get("bytes")
                rows.append(
                    (
                        f"`{protocol}`",
                        dataset.upper(),
                        f"**{_name(run)}**",
                        f"**{_percent(run['miou'])}**",
                        _percent(run["hit_rate"]),
                        f"{size / 1e6:.2f} MB" if size else "-",
                        f"{run['n']:,}"
                        + (f" (first {run['first']:,})" if run.get("first") else ""),
                        "measured here",
                    )
                )
        for one in report["published"]["scores"]:
            if (one["protocol"], one["dataset"]) == (protocol, dataset):
                size = f"{one['megabytes']:g} MB" if one["megabytes"] else "-"
                if not one["megabytes"] and one["parameters"]:
                    size = f"{one['parameters'] / 1e6:g} M par."
                rows.append(
                    (
                        f"`{protocol}`",
                        dataset.upper(),
                        one["model"],
                        _percent(one["miou"]),
                        _percent(one["hit_rate"]),
                        size,
                        one["objects"],
                        sources[one["source"]]["where"],
                    )
                )
    return Table(header=header, rows=tuple(rows), left=3)


def _calibration(report: Mapping[str, Any]) -> list[Block]:
    runs = [run for run in report["runs"] if run["score"]["reliability"]]
    if not runs:
        return []
    header = ("weights", "protocol", "data", "rank correlation", "calibration error")
    rows = tuple(
        (
            _name(run),
            f"`{run['protocol']}`",
            run["dataset"].upper(),
            f"{run['score']['spearman']:.3f}",
            f"{run['score']['calibration_error']:.3f}",
        )
        for run in runs
    )
    return [
        Heading(text="Can its score be believed?"),
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
    found: list[Block] = []
    for index, one in enumerate(report["robustness"]):
        found += [
            Heading(text=f"When things are less than ideal: {_name(one)}"),
            Text(
                text=f"{one['n']:,} objects in {one['photos']:,} photos of "
                f"{one['dataset'].upper()}, the same for every point. The first level of each "
                "curve changes nothing."
            ),
        ]
        rows = [
            (entry["title"], f"`{protocol}`", f"{level:g}", _percent(miou), _percent(rate))
            for entry in one["curves"].values()
            for protocol, scores in entry["protocols"].items()
            for level, miou, rate in zip(
                entry["levels"], scores["miou"], scores["hit_rate"], strict=True
            )
        ]
        rows += [
            ("Competing objects", f"`{protocol}`", others, _percent(each["miou"]), "-")
            for protocol, classes in one["rivals"].items()
            for others, each in classes.items()
        ]
        suffix = f"-{index + 1}" if index else ""
        found += [
            Figure(
                name=f"curve-{name}{suffix}",
                caption=f"{entry['title']}: {entry['unit']}.",
                svg=figures.curve(name, entry),
            )
            for name, entry in one["curves"].items()
        ]
        found.append(
            Figure(
                name=f"curve-rivals{suffix}",
                caption="Other annotated objects that cover at least 1 % of the object's window.",
                svg=figures.rivals(one["rivals"]),
            )
        )
        header = ("what", "protocol", "level", "mIoU", "hit rate")
        found.append(Table(header=header, rows=tuple(rows), left=2))
    return found


def _clicks(report: Mapping[str, Any]) -> list[Block]:
    if not report["clicks"]:
        return []
    targets = list(report["clicks"][0]["noc"])
    header = ("weights", "data", "objects", "clicks", "mIoU at 1", "mIoU at the last",
              *(f"NoC@{target}" for target in targets),
              *(f"never {target}" for target in targets))  # fmt: skip
    rows = tuple(
        (
            _name(one),
            one["dataset"].upper(),
            f"{one['n']:,}",
            str(one["clicks"]),
            _percent(one["miou"][0]),
            _percent(one["miou"][-1]),
            *(f"{one['noc'][target]['clicks']:.2f}" for target in targets),
            *(f"{100 * one['noc'][target]['failed']:.0f} %" for target in targets),
        )
        for one in report["clicks"]
    )
    return [
        Heading(text="Corrective clicks"),
        Text(
            text="A simulated user clicks on the object's centre and then on what is most wrong. "
            "NoC is the mean number of clicks to that IoU; who never gets there counts as the "
            "limit."
        ),
        Table(header=header, rows=rows, left=2),
        Figure(
            name="clicks",
            caption="mIoU after each click.",
            svg=figures.click_curve(report["clicks"]),
            wide=True,
        ),
    ]


def _proposals(report: Mapping[str, Any]) -> list[Block]:
    if not report["proposals"]:
        return []
    names = {one["sha256"]: one["name"] for one in report["models"]}
    header = ("weights", "method", "objects", "AR@1", "AR@10", "AR@100", "masks a photo",
              "s a photo")  # fmt: skip
    rows = tuple(
        (
            names.get(one["weights_sha256"], "network"),
            method,
            f"{one['n']:,}",
            *(_percent(found[f"ar@{count}"]) for count in (1, 10, 100)),
            f"{found['masks_per_photo']:.0f}",
            f"{found['seconds_per_photo']:.2f}",
        )
        for one in report["proposals"]
        for method, found in one["methods"].items()
    )
    return [
        Heading(text="Everything mode"),
        Text(
            text="Average recall of the first masks of everything mode, without classes, by "
            "COCO's own evaluation; beside a grid of boxes that looks at no pixel."
        ),
        Table(header=header, rows=rows, left=2),
    ]


def _sources(report: Mapping[str, Any]) -> list[Block]:
    rows = tuple(
        (one["where"], f"{one['title']} ({one['year']})")
        for one in report["published"]["sources"].values()
    )
    return [
        Heading(text="Sources of published figures"),
        Table(header=("where", "what"), rows=rows, left=2),
    ]


def readme_block(report: Mapping[str, Any]) -> str:
    """The README's table and commands, from a report's numbers; without the marks."""
    kinds = {"box": ("box", "ellipse"), "paper-roi": ("box", "ellipse")}
    header = ("weights", "protocol", "data", "mIoU", "95 % interval", "hit rate",
              "baselines (mIoU)")  # fmt: skip
    rows = tuple(
        (
            _name(run),
            f"`{run['protocol']}`",
            f"{run['dataset'].upper()}, {run['n']:,} objects",
            f"**{_percent(run['miou'])}**",
            " - ".join(_percent(value) for value in run["miou_ci95"]),
            _percent(run["hit_rate"]),
            ", ".join(
                f"{BASELINES[kind]} {_percent(run['baselines'][kind])}"
                for kind in kinds.get(run["protocol"], ("disc",))
            ),
        )
        for run in report["runs"]
    )
    return to_markdown(
        [
            _models(report),
            Table(header=header, rows=rows, left=3),
            Code(lines=tuple(dict.fromkeys(run["command"] for run in report["runs"]))),
        ]
    ).strip()


def update_readme(path: Path, report: Mapping[str, Any]) -> None:
    """Put `readme_block` between the README's marks. `DataError` if they are not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"there is no file {path}") from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"{path} needs one line {BEGIN} and, below it, one line {END}")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_text(path, f"{before}{BEGIN}\n{readme_block(report)}\n{END}{after}")


def _name(run: Mapping[str, Any]) -> str:
    return str(run["weights"].get("name", "network"))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def write_report(
    report: Mapping[str, Any], out: Path, *, sheet: bytes = b"", sheet_of: str = ""
) -> Written:
    """Write a report's files into the folder `out`; see `collect` and `blocks`."""
    made = blocks(report, sheet, sheet_of)
    paths = []
    for block in made:
        if isinstance(block, Figure):
            path = out / "figures" / block.file_name
            data = f'<?xml version="1.0" encoding="utf-8"?>\n{block.svg}'.encode()
            write_bytes(path, data if block.svg else block.jpeg)
            paths.append(path)
    write_text(out / "report.md", to_markdown(made))
    write_text(out / "report.html", to_html(TITLE, made))
    write_json(out / "report.json", report)
    return Written(
        html=out / "report.html",
        markdown=out / "report.md",
        json=out / "report.json",
        figures=tuple(paths),
    )
