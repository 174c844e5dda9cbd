"""Which objects lose IoU, by their traits and by what is wrong with their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2 import geometry
from picosam2._progress import Progress
from picosam2.data.coco import AnnotatedImage
from picosam2.data.contact_sheet import agreement
from picosam2.data.split import spread
from picosam2.evaluation.causes import CAUSES, TRAITS, cause_of, traits_of
from picosam2.evaluation.protocols import Item, true_box
from picosam2.evaluation.run import Answered, Evaluation, Measured, evaluate
from picosam2.geometry import Window
from picosam2.masks import Mask
from picosam2.predictor import Predictor
from picosam2.prompts import Point

RgbImage = npt.NDArray[np.uint8]

LOW_IOU = 0.5
"""An object under this IoU counts as lost: COCO's lowest threshold of a match."""

WORST = 50
"""How many objects of the smallest IoU are listed and drawn."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One object: its IoU, its traits, and what its mask got wrong."""

    annotation: int
    photo: int
    file: str
    """The image's file name."""
    source: str
    iou: float
    recall: float
    precision: float
    """1 for an empty mask: nothing was wrongly taken."""
    cause: str
    traits: Mapping[str, float]
    """The value of each of `TRAITS`."""

    @property
    def loss(self) -> float:
        """1 - IoU, 0..1."""
        return 1 - self.iou


@dataclass(frozen=True, kw_only=True)
class Row:
    """The objects of one class: their count and mIoU, and their share of objects and of loss."""

    name: str
    n: int
    miou: float
    share: float
    """Of all objects."""
    loss: float
    """Of the whole loss, the sum of 1 - IoU; 0 where nothing was lost."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """The analysis of all objects; `to_json` gives the result file."""

    evaluation: Evaluation
    cases: tuple[Case, ...]
    tiles: Mapping[int, RgbImage]
    """Drawings (T, T, 3) RGB uint8 of the worst objects, by annotation."""

    @property
    def worst(self) -> list[Case]:
        """The `WORST` objects of the smallest IoU, worst first."""
        return sorted(self.cases, key=lambda case: case.iou)[:WORST]

    def by_trait(self) -> dict[str, list[Row]]:
        """Rows of each trait's classes that hold objects, in order; sources by their loss."""
        table = {}
        for name, trait in TRAITS.items():
            keys = [trait.class_of(case.traits[name]) for case in self.cases]
            table[name] = rows(self.cases, keys, trait.classes)
        sources = [case.source for case in self.cases]
        by_source = rows(self.cases, sources, dict.fromkeys(sources))
        table["source"] = sorted(by_source, key=lambda row: -row.loss)
        return table

    def by_cause(self) -> list[Row]:
        """Rows of the causes that were seen, of all objects."""
        return rows(self.cases, [case.cause for case in self.cases], CAUSES)

    def lost(self) -> dict[str, int]:
        """How many objects are under `LOW_IOU`, by cause."""
        low = [case.cause for case in self.cases if case.iou < LOW_IOU]
        return {name: low.count(name) for name in CAUSES if name in low}

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: the result file of `picosam2 analyse`."""
        result = self.evaluation.to_json()
        kept = ("protocol", "n", "photos", "miou", "miou_ci95", "weights_sha256", "skipped")
        return {
            "kind": "analysis",
            **{name: result[name] for name in kept},
            "traits": {k: [asdict(row) for row in table] for k, table in self.by_trait().items()},
            "causes": [asdict(row) for row in self.by_cause()],
            "low_iou": LOW_IOU,
            "lost": self.lost(),
            "items": [asdict(case) for case in self.cases],
        }


def rows(cases: Sequence[Case], keys: Sequence[str], names: Iterable[str]) -> list[Row]:
    """One row for each of `names` that is the key of some case; each case has a key."""
    total = sum(case.loss for case in cases)
    table = []
    for name in names:
        chosen = [case for case, theirs in zip(cases, keys, strict=True) if theirs == name]
        if chosen:
            lost = sum(case.loss for case in chosen)
            table.append(
                Row(
                    name=name,
                    n=len(chosen),
                    miou=1 - lost / len(chosen),
                    share=len(chosen) / len(cases),
                    loss=lost / total if total else 0.0,
                )
            )
    return table


def analyse(
    predictor: Predictor,
    images: Sequence[AnnotatedImage],
    *,
    protocol: str = "box",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Measure `predictor` on the objects of `images` and look at what each mask got wrong.

    Args:
        predictor: what is measured.
        images: images with their objects.
        protocol: `box` or `click`, whose masks are of the whole image.
        limit: take the first objects only.
        progress: receives the number of measured objects.

    Raises:
        DataError: there was nothing to measure.
    """
    assert protocol in ("box", "click"), "the published protocols have no mask of the image"
    side = predictor.runtime.info.output_size
    cases: list[Case] = []
    tiles: dict[int, tuple[float, RgbImage]] = {}

    def look(answered: Answered) -> None:
        truths = [item.mask for item in answered.items]
        for index, (item, region, measured) in enumerate(
            zip(answered.items, answered.regions, answered.measured, strict=True)
        ):
            mask = region.on_image(*item.mask.shape)
            others = truths[:index] + truths[index + 1 :]
            window = predictor.box_window(true_box(item.mask))
            case = _case(answered.image, item, mask, others, measured, window, side)
            cases.append(case)
            # The tiles of all objects would not fit in memory; those of the worst so far do.
            if len(tiles) < WORST or case.iou < max(iou for iou, _ in tiles.values()):
                tiles[case.annotation] = case.iou, _tile(answered.pixels, item.mask, mask)
            if len(tiles) > WORST:
                del tiles[max(reversed(tiles), key=lambda key: tiles[key][0])]

    evaluation = evaluate(
        predictor,
        images,
        protocol=protocol,
        dataset="validation",
        limit=limit,
        look=look,
        progress=progress,
    )
    return Analysis(
        evaluation=evaluation,
        cases=tuple(cases),
        tiles={key: tile for key, (_, tile) in tiles.items()},
    )


def spread_objects(
    images: Sequence[AnnotatedImage], limit: int | None
) -> tuple[AnnotatedImage, ...]:
    """Whole images at even distances in their order, as many as hold at most `limit` objects.

    At least one image; None: all of them. Every source is in the sample, with each image's rivals.
    """
    if limit is None:
        return tuple(images)
    count = len(images)
    while count > 1 and sum(len(image.instances) for image in spread(images, count)) > limit:
        count -= 1
    return spread(images, count)


def _case(
    image: AnnotatedImage,
    item: Item,
    mask: Mask,
    others: Sequence[Mask],
    measured: Measured,
    window: Window,
    side: int,
) -> Case:
    both = int(np.count_nonzero(mask & item.mask))
    mask_area = int(np.count_nonzero(mask))
    traits = traits_of(item.mask, window, side) | {"rivals": float(measured.rivals)}
    return Case(
        annotation=measured.annotation,
        photo=image.id,
        file=image.path.name,
        source=image.source,
        iou=measured.iou,
        recall=both / int(np.count_nonzero(item.mask)),
        precision=both / mask_area if mask_area else 1.0,
        cause=cause_of(item.mask, mask, others, window, side),
        traits={name: traits[name] for name in TRAITS},
    )


TILE = 144
"""Side of the worst objects' tiles, in pixels."""

_SURROUNDINGS, _LEAST = 1.6, 48.0  # a tile shows so many times the object, and so many pixels


def _tile(image: RgbImage, truth: Mask, mask: Mask) -> RgbImage:
    """The object's surroundings (T, T, 3) uint8, with the mask drawn beside the true one."""
    box, (height, width) = true_box(truth), truth.shape
    side = min(max(max(box.width, box.height) * _SURROUNDINGS, _LEAST), max(height, width))
    # Moved into the image, so that as little as can be of a tile is padding.
    x = _inside(box.center.x, side / 2, width)
    y = _inside(box.center.y, side / 2, height)
    window = geometry.point_window(Point(x, y), side / 2)
    seen = [geometry.crop_mask(part, window, TILE) > 0.5 for part in (truth, mask)]
    return agreement(geometry.crop(image, window, TILE), *seen)


def _inside(center: float, half: float, length: float) -> float:
    """The center moved so that `half` on either side of it is inside, or else as much as can be."""
    return min(max(center, half), length - half) if 2 * half <= length else length / 2
