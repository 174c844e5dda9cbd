"""The page of a fine-tuning: before and after, masks side by side, what was forgotten, the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from picosam2._words import counted
from picosam2.evaluation.metrics import interval
from picosam2.reports.blocks import Block, Bullets, Code, Figure, Heading, Table, Text

if TYPE_CHECKING:
    from picosam2.apps.finetune import Finetuned

_FEW = 10  # images: fewer give intervals that say little


def blocks(result: Finetuned, comparison: bytes) -> list[Block]:
    """The page's blocks; `comparison` is the image of masks from the best to the worst, a JPEG."""
    name = result.weights.stem
    masks, images = len(result.before.box), len(set(result.before.images))
    on_masks, on_images = result.trained_on
    page: list[Block] = [
        Heading(text=f"{name}: weights for your own images", level=1),
        Text(
            text=f"Trained on {counted(on_masks, 'mask')} in {counted(on_images, 'image')}, "
            f"{counted(result.samples, 'sample')} in {_minutes(result.seconds['training'])} "
            f"({_minutes(result.seconds['in all'])} in all)"
            + (", stopped early" if result.stopped else "")
            + f". Measured on {counted(masks, 'mask')} in "
            f"{counted(images, 'other image')} that the training did not use."
        ),
        Heading(text="Before and after"),
        Table(
            header=("prompt", "before", "after", "gain", "95 % of the gain", "INT8"),
            rows=tuple(_rows(result)),
        ),
        Text(text=_caution(images)),
        Text(
            text="Numbers are mean IoU in per cent: by the object's exact box, by one click at its "
            "center, and by that click with two more on what is wrong. Intervals are drawn over "
            "images."
        ),
    ]
    if verdict := _verdict(result):
        page.append(Text(text=f"**{verdict}**"))
    page += [
        Heading(text="Masks, from the best to the worst"),
        Figure(
            name="masks",
            caption="Held-out objects by the rank of the new weights, prompted by their boxes: the "
            "truth, the masks before and after, and the ellipse in the box.",
            jpeg=comparison,
            wide=True,
        ),
        Heading(text="What was forgotten"),
        Table(
            header=("the sample scene of the package", "before", "after"),
            rows=tuple(
                (prompt, _percent(before), _percent(after))
                for prompt, (before, after) in result.sample.items()
            ),
        ),
        Text(
            text="This is one scene of a few objects, none of yours: it shows whether other images "
            "became much worse, not by how much."
        ),
        Text(text=_kept(result)),
        Heading(text="Time"),
        Table(
            header=("part", "time"),
            rows=tuple((part, _minutes(seconds)) for part, seconds in result.seconds.items()),
        ),
        Text(text=f"{result.samples_per_s:.1f} samples a second while training."),
        Heading(text="Use it"),
        Code(lines=_commands(result)),
    ]
    if result.problems:
        more = len(result.problems) - 10
        page += [
            Heading(text="Left out"),
            Bullets(
                items=(*result.problems[:10], *([f"and {more:,} more"] if more > 0 else ())),
            ),
        ]
    return page


def _rows(result: Finetuned) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    images = np.array(result.before.images)
    after, int8 = result.after.columns(), result.int8_scores.columns()
    for prompt, values in result.before.columns().items():
        gains = np.array(after[prompt]) - np.array(values)
        low, high = interval(gains, images)
        rows.append(
            (
                prompt, _percent(_mean(values)), _percent(_mean(after[prompt])),
                _signed(float(gains.mean())), f"{_signed(low)} to {_signed(high)}",
                _percent(_mean(int8[prompt])),
            )
        )  # fmt: skip
    return rows


def _kept(result: Finetuned) -> str:
    """What share of the new weights was kept, and why."""
    if result.averaging == 1:
        return "The weights are the new ones: with them this scene stays about as it was by box."
    return (
        f"The weights are {_percent(result.averaging)} % new ones and otherwise those of before: "
        "the largest share tried with which this scene stays about as it was by box."
    )


def _caution(images: int) -> str:
    if images < _FEW:
        return (
            f"These are only {counted(images, 'image')}: the interval is wide, or, with fewer than "
            "five, not to be trusted at all. The best weights so far were also chosen on them, so "
            "the true gain may be a little smaller. Label more images to know better."
        )
    return (
        "The best weights so far were chosen on these images, so the true gain may be a little "
        "smaller."
    )


def _verdict(result: Finetuned) -> str:
    """A plain sentence where the new weights are worse."""
    after = result.after.columns()
    worse = [
        prompt for prompt, values in result.before.columns().items()
        if _mean(after[prompt]) < _mean(values)
    ]  # fmt: skip
    if not worse:
        return ""
    return (
        f"By {' and '.join(worse)} the weights of before are better on these images: label more, "
        "or keep using those."
    )


def _commands(result: Finetuned) -> tuple[str, ...]:
    weights = result.onnx.name
    return (
        f"picosam2 segment image.jpg --box 10,20,110,140 --weights {weights}",
        f"picosam2 labelme images --weights {weights}",
        f"picosam2 serve --weights {result.int8.name}",
        f"picosam2 export imx500 --weights {result.weights.name} --out imx500",
    )


def _mean(values: Sequence[float] | Mapping[str, float]) -> float:
    return float(np.mean(list(values)))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
