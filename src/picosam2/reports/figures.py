"""The report's drawings, as SVG: the same colors and marks everywhere, drawn from numbers only."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from picosam2.errors import require

if TYPE_CHECKING:
    from picosam2.models.network import ModelConfig

OURS, CITED, BASELINE = "#2f6fde", "#8a94a6", "#d9822b"
PROTOCOL_COLORS = {
    "box": "#2f6fde",
    "click": "#c2417c",
    "paper-roi": "#1b9e77",
    "click-inside": "#7a5ac8",
    "paper-point": "#d9822b",
}
INK, SOFT, LINE = "#1c2330", "#5b6678", "#dde2ea"

_RC = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef1f5",
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def _drawing(width: float, height: float, name: str) -> Iterator[Any]:
    """A figure of a size in inches; `_svg` turns it into text."""
    matplotlib = require("matplotlib", "train")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _percent(axes: Any, which: str = "y") -> None:
    from matplotlib.ticker import FuncFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}"))


def _plain(axes: Any, which: str, *, few: bool = False) -> None:
    """Ticks 1, 2, 5, 10 ... (or `few`: 1, 10 ...) on a log axis, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(10, subs=(1,) if few else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def latency_memory(models: Sequence[Mapping[str, Any]], published: Mapping[str, Any]) -> str:
    """Milliseconds a crop over the weights' megabytes, both log: measured, and cited."""
    with _drawing(6.4, 4.0, "latency-memory") as figure:
        axes = figure.subplots()
        timed = [model for model in models if model.get("ms_per_crop") is not None]
        for model in timed:
            place = model["bytes"] / 1e6, model["ms_per_crop"]
            axes.plot(*place, "o", ms=9, color=OURS, zorder=3)
            _label(axes, f"{model['name']} ({model['precision']})", place, color=INK)
        for cited in published["latency"]:
            place = cited["megabytes"], cited["milliseconds"]
            axes.plot(*place, "o", ms=9, mfc="white", mec=CITED, mew=1.8, zorder=3)
            _label(axes, f"{cited['model']} on {cited['device']}", place, color=SOFT)
        axes.set(xscale="log", yscale="log")
        xs = [model["bytes"] / 1e6 for model in timed] + [
            c["megabytes"] for c in published["latency"]
        ]
        ys = [model["ms_per_crop"] for model in timed]
        ys += [c["milliseconds"] for c in published["latency"]]
        axes.set_xlim(min(xs) / 1.6, max(xs) * 4)
        axes.set_ylim(min(ys) / 2, max(ys) * 2)
        _plain(axes, "x")
        _plain(axes, "y")
        axes.set_xlabel("weights file, MB")
        axes.set_ylabel("milliseconds a crop")
        axes.set_title("Latency and memory")
        _key(
            axes,
            [("measured here, CPU", OURS, True), ("published", CITED, False)],
            loc="upper right",
        )
        return _svg(figure)


def _label(axes: Any, text: str, place: tuple[float, float], *, color: str) -> None:
    axes.annotate(
        text, place, (8, 0), textcoords="offset points", va="center", color=color, fontsize=8
    )


def _key(place: Any, entries: Sequence[tuple[str, str, bool]], **options: Any) -> None:
    """A legend of round marks: name, color, and whether it is filled."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], ls="", marker="o", color=color, mfc=color if filled else "white", mew=1.6)
        for _, color, filled in entries
    ]
    place.legend(marks, [name for name, _, _ in entries], fontsize=8, **options)


def size_accuracy(
    runs: Sequence[Mapping[str, Any]], published: Mapping[str, Any], dataset: str
) -> str:
    """mIoU and hit rate over the weights' megabytes (log): ours with intervals, others cited.

    Each protocol has its color; only points of one color may be compared.
    """
    cited = [score for score in published["scores"] if score["dataset"] == dataset]
    with _drawing(10.4, 5.0, f"size-accuracy-{dataset}") as figure:
        panels = figure.subplots(1, 2, width_ratios=(1.5, 1))
        used: set[str] = set()
        for axes, field, title in zip(
            panels, ("miou", "hit_rate"), ("mIoU, %", "hit rate, %"), strict=True
        ):
            spots = []
            for score in cited:
                size = _megabytes(score)
                if score[field] is None or size is None:
                    continue
                color = PROTOCOL_COLORS[score["protocol"]]
                axes.plot(size, score[field], "o", ms=7, mfc="white", mec=color, mew=1.6)
                name = score["model"].removesuffix(" on 96x96 thumbnails")
                spots.append((size, score[field], name, SOFT))
                used.add(score["protocol"])
            for run in runs:
                if run["dataset"] != dataset or not run["weights"].get("bytes"):
                    continue
                color = PROTOCOL_COLORS[run["protocol"]]
                size = run["weights"]["bytes"] / 1e6
                if field == "miou":
                    axes.plot([size, size], run["miou_ci95"], color=color, lw=1.4)
                axes.plot(size, run[field], "o", ms=8, color=color, zorder=4)
                spots.append((size, run[field], run["weights"]["name"], INK))
                used.add(run["protocol"])
            axes.set_xscale("log")
            xs, ys = [s[0] for s in spots] or [1.0], [s[1] for s in spots] or [0.5]
            axes.set_xlim(min(xs) / 1.6, max(xs) * 9)
            axes.set_ylim(max(min(ys) - 0.08, 0), max(ys) + 0.06)
            _plain(axes, "x", few=max(xs) / min(xs) > 100)
            _percent(axes)
            axes.set_xlabel("weights, MB")
            axes.set_title(title)
            _spread(axes, spots)
        entries = [(name, color, True) for name, color in PROTOCOL_COLORS.items() if name in used]
        entries += [("measured here", INK, True), ("published", INK, False)]
        _key(figure, entries, loc="outside lower center", ncols=6)
        return _svg(figure)


def _megabytes(score: Mapping[str, Any]) -> float | None:
    """A published model's size: as stated, or its parameters at four bytes each."""
    if score["megabytes"] is not None:
        return float(score["megabytes"])
    return 4 * score["parameters"] / 1e6 if score["parameters"] else None


def _spread(axes: Any, spots: Sequence[tuple[float, float, str, str]]) -> None:
    """Label points at their right; labels that would overlap others or points move up."""
    low, high = axes.get_ylim()
    left, right = np.log(axes.get_xlim())
    wide = axes.get_position().width * axes.figure.get_size_inches()[0]  # inches, about
    letter, gap = 0.052 * (right - left) / wide, 0.09 * (right - left) / wide
    step = (high - low) * 0.036
    # What is taken: from, to (log x), and y. Points first.
    taken = [(np.log(x) - gap, np.log(x) + gap, y) for x, y, _, _ in spots]
    for x, y, text, color in sorted(spots, key=lambda spot: (spot[1], -spot[0])):
        start = np.log(x) + 1.4 * gap
        end, at = start + letter * len(text), y
        while any(abs(at - ty) < step and a < end and b > start for a, b, ty in taken):
            at += step / 6
        taken.append((start, end, at))
        line = {"arrowstyle": "-", "color": LINE, "lw": 0.8} if at - y > step else None
        axes.annotate(
            text,
            (x, y),
            (float(np.exp(start)), at),
            va="center",
            fontsize=7,
            color=color,
            arrowprops=line,
        )


def architecture(config: ModelConfig) -> str:
    """The network: every stage with its shape, parameters and share of the MACs."""
    from picosam2.models.costs import stage_costs

    model = config.build()
    stages = {stage.name: stage for stage in stage_costs(model)}
    depth = len(config.widths)
    total = sum(stage.macs for stage in stages.values())
    most = max(stage.macs for stage in stages.values())
    with _drawing(9.2, 1.15 * depth + 2.0, "architecture") as figure:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.patches import FancyBboxPatch

        shade = LinearSegmentedColormap.from_list("work", ["#eaf1fd", "#8fb4f3"])
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_xlim(0, 12)
        axes.set_ylim(-depth - 1.05, 1.0)

        def box(name: str, x: float, y: float, title: str) -> None:
            stage = stages[name]
            color = shade(stage.macs / most)
            patch = FancyBboxPatch(
                (x - 1.4, y - 0.29),
                2.8,
                0.58,
                boxstyle="round,pad=0.02,rounding_size=0.08",
                fc=color,
                ec="#7d98c9",
                lw=1,
            )
            axes.add_patch(patch)
            axes.text(x, y + 0.13, title, ha="center", va="center", weight="bold", fontsize=8.5)
            channels, side = stage.shape[0], stage.shape[-1]
            axes.text(
                x,
                y - 0.12,
                f"{channels} × {side} × {side} · {_count(stage.parameters)} · "
                f"{stage.macs / 1e6:.1f} M",
                ha="center",
                va="center",
                fontsize=7,
                color=SOFT,
            )

        def arrow(
            start: tuple[float, float], end: tuple[float, float], text: str = "", side: str = "left"
        ) -> None:
            axes.annotate(
                "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#7d98c9", "lw": 1.2}
            )
            if text:
                middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
                shift = {"left": (-5, 0), "right": (5, 0), "above": (0, 5)}[side]
                axes.annotate(
                    text,
                    middle,
                    shift,
                    textcoords="offset points",
                    ha={"left": "right", "right": "left", "above": "center"}[side],
                    va="bottom" if side == "above" else "center",
                    fontsize=7,
                    color=SOFT,
                )

        left, right, middle = 2.6, 9.4, 6.0
        top = 0.75
        side = config.input_size
        axes.text(left, top, f"crop 3 × {side} × {side}", ha="center", va="center", fontsize=8.5)
        arrow((left, top - 0.12), (left, 0.33))
        logits = stages["head"].shape
        axes.text(
            right,
            top,
            f"logits {logits[0]} × {logits[1]} × {logits[2]}",
            ha="center",
            va="center",
            fontsize=8.5,
        )
        arrow((right, 0.33), (right, top - 0.12), "1×1", "right")
        for level in range(depth):
            y = -float(level)
            box(f"encoder {level + 1}", left, y, f"encoder {level + 1}")
            number = depth - level
            box(f"decoder {number}", right, y, f"decoder {number}")
            skip = stages[f"skip {number}"]
            arrow(
                (left + 1.45, y),
                (right - 1.45, y),
                f"skip {number}: 1×1, {config.widths[level]} → {skip.shape[0]} channels, added",
                "above",
            )
            halving = "stride 2"
            if down := stages.get(f"down {level + 1}"):
                halving = "3×3, stride 2" if config.encoder == "paper" else halving
                halving += f"\n{_count(down.parameters)} · {down.macs / 1e6:.1f} M"
            if level + 1 < depth:
                arrow((left, y - 0.33), (left, y - 0.69), halving)
                arrow((right, y - 0.69), (right, y - 0.33), "×2, nearest", "right")
            else:  # around the corner, to the bottleneck and back
                bottom = y - 0.95
                axes.plot([left, left], [y - 0.31, bottom], color="#7d98c9", lw=1.2)
                arrow((left, bottom), (middle - 1.45, bottom))
                axes.plot([middle + 1.43, right], [bottom, bottom], color="#7d98c9", lw=1.2)
                arrow((right, bottom), (right, y - 0.33))
                options = {"fontsize": 7, "color": SOFT, "va": "center"}
                axes.text(left - 0.08, y - 0.62, halving, ha="right", **options)
                axes.text(right + 0.08, y - 0.62, "×2, nearest", ha="left", **options)
        y = -float(depth) + 0.05
        box("bottleneck", middle, y, "bottleneck")
        blocks = "encoder, decoder" if config.encoder == "paper" else f"{config.encoder}; decoder"
        axes.text(
            middle,
            y - 0.5,
            f"{blocks}, bottleneck: depthwise 3×3, pointwise 1×1, each with batch norm and ReLU.  "
            "In a box: channels × rows × columns · parameters · multiply-accumulates.",
            ha="center",
            va="top",
            fontsize=7.5,
            color=SOFT,
        )
        parameters = sum(stage.parameters for stage in stages.values())
        axes.text(
            middle,
            top,
            f"{parameters:,} parameters\n{total / 1e6:.1f} M multiply-accumulates a crop",
            ha="center",
            va="center",
            fontsize=9,
            weight="bold",
        )
        return _svg(figure)


def _count(value: int) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1_000_000 else f"{value / 1e3:.1f} k"


def baselines(runs: Sequence[Mapping[str, Any]]) -> str:
    """Our mIoU with its interval beside the baselines on the same objects, one group a run."""
    kinds = {
        "box": "filled box",
        "ellipse": "inscribed ellipse",
        "disc": "best fixed disc",
        "flood": "flood fill",
        "grabcut": "GrabCut",
    }
    rows: list[tuple[str, float, tuple[float, float] | None, str]] = []
    for run in runs:
        prompted = run["protocol"] in ("box", "paper-roi")
        shown = ["box", "ellipse", "grabcut"] if prompted else ["disc", "flood", "grabcut"]
        name = f"{run['weights'].get('name', 'network')} · {run['protocol']} · {run['dataset']}"
        rows.append((name, run["miou"], tuple(run["miou_ci95"]), PROTOCOL_COLORS[run["protocol"]]))
        rows += [
            (kinds[kind], run["baselines"][kind], None, "#cfd6e1")
            for kind in shown
            if kind in run["baselines"]
        ]
    with _drawing(6.8, 0.6 + 0.26 * len(rows), "baselines") as figure:
        axes = figure.subplots()
        for index, (name, value, interval, color) in enumerate(rows):
            axes.barh(index, value, color=color, height=0.72)
            end = value
            if interval is not None:
                axes.plot(interval, [index, index], color=INK, lw=1.4)
                end = max(value, interval[1])
            axes.text(end + 0.008, index, f"{100 * value:.1f}", va="center", fontsize=7.5)
            axes.text(
                -0.008,
                index,
                name,
                ha="right",
                va="center",
                fontsize=8,
                color=SOFT if interval is None else INK,
                weight="normal" if interval is None else "bold",
            )
        axes.set_xlim(0, 1)
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.invert_yaxis()
        _percent(axes, "x")
        axes.set_xlabel("mIoU, %")
        return _svg(figure)


def reliability(run: Mapping[str, Any]) -> str:
    """The mean IoU of objects by their predicted IoU: on the diagonal the score is right."""
    bins = run["score"]["reliability"]
    with _drawing(3.9, 3.7, f"reliability-{run['protocol']}-{run['dataset']}") as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, lw=1.4)
        most = max(each["count"] for each in bins)
        scores, ious = [each["score"] for each in bins], [each["iou"] for each in bins]
        color = PROTOCOL_COLORS[run["protocol"]]
        axes.plot(scores, ious, color=color, lw=1.4)
        axes.scatter(
            scores,
            ious,
            s=[16 + 110 * each["count"] / most for each in bins],
            color=color,
            zorder=3,
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        _percent(axes)
        _percent(axes, "x")
        axes.set_xlabel("predicted IoU, %")
        axes.set_ylabel("IoU, %")
        axes.set_title(f"{run['weights'].get('name', '')} · {run['protocol']} · {run['dataset']}")
        return _svg(figure)


def curve(name: str, entry: Mapping[str, Any]) -> str:
    """One robustness curve: mIoU by level with its band, for each protocol."""
    levels = entry["levels"]
    with _drawing(3.9, 3.0, f"curve-{name}") as figure:
        axes = figure.subplots()
        places = np.arange(len(levels))
        for protocol, scores in entry["protocols"].items():
            color = PROTOCOL_COLORS[protocol]
            axes.fill_between(places, scores["low"], scores["high"], color=color, alpha=0.12, lw=0)
            axes.plot(places, scores["miou"], "o-", ms=4.5, color=color, label=protocol)
        axes.set_xticks(places, [f"{level:g}" for level in levels])
        axes.set_xlim(-0.25, len(levels) - 0.75)
        axes.set_ylim(0, 1)
        _percent(axes)
        axes.set_xlabel(entry["unit"], fontsize=8)
        axes.set_ylabel("mIoU, %")
        axes.set_title(entry["title"])
        axes.legend(loc="lower left", fontsize=8)
        return _svg(figure)


def competing_objects(classes_by_protocol: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """mIoU by how many other objects share the window, for each protocol."""
    with _drawing(3.9, 3.0, "competing-objects") as figure:
        axes = figure.subplots()
        wide = 0.8 / len(classes_by_protocol)
        names: list[str] = []
        for index, (protocol, classes) in enumerate(classes_by_protocol.items()):
            names = list(classes)
            for place, scores in enumerate(classes.values()):
                if scores["miou"] is None:
                    continue
                x = place - 0.4 + wide * (index + 0.5)
                label = protocol if place == 0 else None
                color = PROTOCOL_COLORS[protocol]
                axes.bar(x, scores["miou"], wide * 0.92, color=color, label=label)
                axes.text(x, scores["miou"] + 0.02, f"n {scores['n']}", ha="center", fontsize=7)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylim(0, 1)
        axes.grid(visible=False, axis="x")
        _percent(axes)
        axes.set_xlabel("other objects in the window", fontsize=8)
        axes.set_ylabel("mIoU, %")
        axes.set_title("Competing objects")
        axes.legend(loc="upper right", fontsize=8)
        return _svg(figure)


def click_curve(results: Sequence[Mapping[str, Any]]) -> str:
    """mIoU after each corrective click."""
    with _drawing(5.2, 3.4, "clicks") as figure:
        axes = figure.subplots()
        colors = list(PROTOCOL_COLORS.values())
        most = 1
        for index, result in enumerate(results):
            counts = np.arange(1, result["clicks"] + 1)
            most = max(most, result["clicks"])
            color = colors[index % len(colors)]
            axes.fill_between(counts, result["low"], result["high"], color=color, alpha=0.12, lw=0)
            name = f"{result['weights'].get('name', 'network')} · {result['dataset']}"
            if "start" in result:
                name += f" · {result['start']}"
            axes.plot(counts, result["miou"], "o-", ms=4.5, color=color, label=name)
        axes.set_xticks(range(1, most + 1))
        axes.set_ylim(0, 1)
        _percent(axes)
        axes.set_xlabel("clicks")
        axes.set_ylabel("mIoU, %")
        axes.legend(loc="lower right", fontsize=8)
        axes.set_title("Corrective clicks")
        return _svg(figure)


def peer_clicks(pair: Mapping[str, Any]) -> str:
    """mIoU after each click of weights (drawn through) and of a peer (dashed), by the start."""
    with _drawing(6.4, 3.6, "peer-clicks") as figure:
        axes = figure.subplots()
        most = 1
        for session in pair["clicks"]:
            color = PROTOCOL_COLORS.get(session["start"], PROTOCOL_COLORS["click-inside"])
            sides = (("b", pair["weights"]["name"], "o-"), ("a", pair["peer"]["name"], "s--"))
            for side, name, style in sides:
                curve = session["curves"][side]
                counts = np.arange(1, curve["clicks"] + 1)
                most = max(most, curve["clicks"])
                band = curve["low"], curve["high"]
                axes.fill_between(counts, *band, color=color, alpha=0.1, lw=0)
                label = f"{name}, first a {session['start']}"
                axes.plot(counts, curve["miou"], style, ms=4.5, color=color, label=label)
        axes.set_xticks(range(1, most + 1))
        axes.set_ylim(0.3, 1)
        _percent(axes)
        axes.set_xlabel("clicks; a box counts as one")
        axes.set_ylabel("mIoU, %")
        axes.legend(loc="lower right", fontsize=8)
        axes.set_title("Corrective clicks, beside a peer")
        return _svg(figure)


def by_class(
    traits: Mapping[str, Sequence[tuple[str, int, float]]], miou: float, *, columns: int = 3
) -> str:
    """mIoU of each trait's classes (class, objects, mIoU); the line is that of all objects."""
    named = list(traits.items())
    rows = [named[start : start + columns] for start in range(0, len(named), columns)]
    longest = [max(len(classes) for _, classes in row) for row in rows]
    height = sum(0.24 * count + 0.62 for count in longest)
    with _drawing(10.4, height, "by-class") as figure:
        ratios = {"height_ratios": [count + 1.2 for count in longest]}
        grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=ratios)
        for axes in grid.flat[len(named) :]:
            axes.axis("off")
        for axes, (title, classes) in zip(grid.flat, named, strict=False):
            places = range(len(classes))
            axes.barh(places, [value for _, _, value in classes], 0.72, color=OURS)
            axes.axvline(miou, color=CITED, ls="--", lw=1.2)
            labels = [f"{name} (n {count:,})" for name, count, _ in classes]
            axes.set_yticks(places, labels, fontsize=8)
            axes.set_xlim(0, 1)
            axes.grid(visible=False, axis="y")
            _percent(axes, "x")
            axes.tick_params(axis="x", labelsize=7)
            axes.set_title(title)
        for row, count in zip(grid, longest, strict=True):
            for axes in row:
                axes.set_ylim(count - 0.4, -0.6)  # bars are as thick in the whole row
        for axes in grid[-1]:
            axes.set_xlabel("mIoU, %", fontsize=8)
        return _svg(figure)
