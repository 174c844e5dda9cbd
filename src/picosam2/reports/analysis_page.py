"""The page of an analysis: scores, the loss by traits and causes, and the worst objects."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from picosam2._files import write_bytes, write_text
from picosam2._words import counted
from picosam2.data.contact_sheet import grid
from picosam2.errors import ConfigError
from picosam2.evaluation.analysis import LOW_IOU, Analysis, Case, Row
from picosam2.evaluation.causes import CAUSES, TRAITS
from picosam2.reports import figures
from picosam2.reports.blocks import Block, Figure, Heading, Table, Text, to_markdown

_COLUMNS = 10  # of the image of the worst objects
_STRIP = 18  # pixels under each tile, for its caption
_QUALITY = 84  # JPEG: fifty tiles stay far below the 600 kB that a page may well carry

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Written:
    """The files of a page."""

    page: Path
    worst: Path | None
    plot: Path


def check_name(out: Path) -> None:
    """Refuse a page that does not end in .md, before anything is measured.

    Raises:
        ConfigError: it does not.
    """
    if out.suffix.lower() != ".md":
        raise ConfigError(f"{out} is no name for a page: end it in .md")


def write_page(
    analysis: Analysis,
    out: Path,
    *,
    command: str,
    weights: str,
    problems: Sequence[str] = (),
    with_worst: bool = True,
) -> Written:
    """Write the page to `out`, and beside it the image of the worst objects and the plot.

    Args:
        analysis: the numbers and tiles to show.
        out: the page; ends in .md.
        command: the command that made it, without folders of this machine.
        weights: their name.
        problems: a sentence for each image or object that was left out.
        with_worst: whether the worst objects are shown in an image.

    Raises:
        ConfigError: `out` has another ending.
    """
    check_name(out)
    worst = _worst_figure(analysis, f"{out.stem}-worst") if with_worst else None
    plot = Figure(
        name=f"{out.stem}-classes",
        caption="mIoU by class of each trait. The dashed line is the mIoU of all objects.",
        svg=_plot(analysis),
    )
    written = Written(
        page=out,
        worst=out.with_name(worst.file_name) if worst else None,
        plot=out.with_name(plot.file_name),
    )
    if worst and written.worst:
        write_bytes(written.worst, worst.jpeg)
    write_text(written.plot, plot.svg)
    blocks = _blocks(analysis, weights, worst, plot, problems)
    write_text(out, f"Made by `{command}`.\n\n" + to_markdown(blocks, folder="."))
    return written


def _worst_figure(analysis: Analysis, name: str) -> Figure:
    return Figure(
        name=name,
        caption="The worst objects: green where mask and truth agree, blue what was missed, orange "
        "what was wrongly taken. Rank, IoU and cause are below each.",
        jpeg=worst_objects_image(analysis.worst, analysis.tiles),
    )


def worst_objects_image(worst: Sequence[Case], tiles: Mapping[int, ImageArray]) -> bytes:
    """The objects' tiles (T, T, 3) uint8 by annotation, in order, with captions: a JPEG."""
    shown = []
    for rank, case in enumerate(worst, 1):
        tile = np.pad(tiles[case.annotation], ((0, _STRIP), (0, 0), (0, 0)), constant_values=255)
        image = Image.fromarray(tile)
        place = (2, tile.shape[0] - _STRIP + 2)
        text = f"{rank}.  {case.iou:.2f}  {case.cause}"
        ImageDraw.Draw(image).text(place, text, fill="black", font_size=12)
        shown.append(np.asarray(image))
    stream = io.BytesIO()
    grid(np.stack(shown), _COLUMNS).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _titles() -> dict[str, str]:
    return {name: trait.title for name, trait in TRAITS.items()} | {"source": "Source"}


def _plot(analysis: Analysis) -> str:
    titles = _titles()
    return figures.by_class(
        {
            titles[name]: [(row.name, row.n, row.miou) for row in table]
            for name, table in analysis.by_trait().items()
        },
        float(analysis.evaluation.column("iou").mean()),
    )


def _blocks(
    analysis: Analysis,
    weights: str,
    worst_figure: Figure | None,
    plot: Figure,
    problems: Sequence[str],
) -> list[Block]:
    numbers = analysis.evaluation.to_json()
    low, high = numbers["miou_ci95"]
    lost = sum(analysis.lost().values())
    by_click = numbers["protocol"] == "click"
    scorers = ", but scorers that were fitted on it have" if by_click else ""
    left_out = counted(len(problems), "image or object", "images or objects")
    prompts = {"box": "its true box", "click": "its center point"}
    blocks: list[Block] = [
        Heading(text=f"Where {weights} loses", level=1),
        Text(
            text=f"The weights `{weights}` (SHA-256 `{numbers['weights_sha256'][:12]}`) were "
            f"measured on {counted(numbers['n'], 'object')} in "
            f"{counted(numbers['photos'], 'image')} that the crop store keeps for "
            f"validation: weights trained on this store have not seen them{scorers}. "
            f"Protocol `{numbers['protocol']}`: each object's prompt is "
            f"{prompts[numbers['protocol']]}, and IoU is measured on the whole image."
        ),
        Text(
            text=f"mIoU is **{_percent(numbers['miou'])} %** (95 % interval over images "
            f"{_percent(low)} to {_percent(high)}). {lost:,} objects, "
            f"{_percent(lost / numbers['n'])} %, are under an IoU of {LOW_IOU:g}."
            + (f" Left out: {left_out}." if problems else "")
        ),
        Text(
            text="The *loss* of an object is 1 - IoU. Below, a class's share of the whole loss "
            "stands beside its share of the objects: where the first is larger, the loss is "
            "concentrated, and the two tell how much could be won there at most."
        ),
        Heading(text="By cause"),
        Text(
            text="Every object has one cause: the first in this list that is true of its mask. It "
            "says what was seen in mask and truth, not why. *Wrongly taken* is what is in the mask "
            "only, *missed* what is in the truth only; *most* is more than half."
        ),
        _cause_rules(),
        _cause_table(analysis),
        Heading(text="By trait"),
        Text(
            text="Traits are seen in the true mask (and, for rivals, in those of the image's other "
            "objects), so their classes are the same objects for any weights."
        ),
        plot,
    ]
    says = {name: trait.says for name, trait in TRAITS.items()}
    says["source"] = "the data set that the image is from, by its share of the loss"
    titles = _titles()
    for name, table in analysis.by_trait().items():
        blocks.append(Heading(text=titles[name], level=3))
        blocks.append(Text(text=f"{says[name][0].upper()}{says[name][1:]}."))
        blocks.append(_trait_table(table))
    worst = analysis.worst
    blocks += [
        Heading(text=f"The worst {len(worst)} objects"),
        *([worst_figure] if worst_figure is not None else []),
        Table(
            header=("rank", "source", "image", "annotation", "cause", "IoU"),
            rows=tuple(
                (
                    str(rank),
                    case.source,
                    case.file,
                    str(case.annotation),
                    case.cause,
                    f"{case.iou:.3f}",
                )
                for rank, case in enumerate(worst, 1)
            ),
            left=5,
        ),
    ]
    return blocks


def _cause_rules() -> Table:
    return Table(header=("cause", "what was seen"), rows=tuple(CAUSES.items()), left=2)


def _cause_table(analysis: Analysis) -> Table:
    lost = analysis.lost()
    total = max(sum(lost.values()), 1)
    return Table(
        header=(
            "cause",
            "objects",
            "mIoU, %",
            "of the objects, %",
            "of the loss, %",
            f"under IoU {LOW_IOU:g}",
            "of those, %",
        ),
        rows=tuple(
            (
                *_cells(row),
                f"{lost.get(row.name, 0):,}",
                _percent(lost.get(row.name, 0) / total),
            )
            for row in analysis.by_cause()
        ),
    )


def _trait_table(table: Sequence[Row]) -> Table:
    return Table(
        header=("class", "objects", "mIoU, %", "of the objects, %", "of the loss, %"),
        rows=tuple(_cells(row) for row in table),
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.n:,}",
        _percent(row.miou),
        _percent(row.share),
        _percent(row.loss),
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
