"""Traits of an object, and causes of a mask's error: fixed rules for one object.

A trait is measured on the true mask alone, so its classes are the same objects for any weights. A
cause is found by comparing the mask with the true one and with the image's other objects. It names
the kind of error, not why the network made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from picosam2 import geometry, masks
from picosam2.evaluation.boundary import closed, opened
from picosam2.evaluation.protocols import true_box
from picosam2.geometry import Window
from picosam2.masks import Mask
from picosam2.prompts import Box

THIN_RADIUS = 2
"""In pixels of the network's grid, of a square's half side. What a square of 5 pixels does not fit
into is thin: a sixteenth of the box's side, two steps of the network's first coarser level."""

TINY = 16
"""Pixels. Under this shorter side, a box window enlarges the image five times or more."""

NEIGHBOR_SHARE = 0.1
"""Share of the object's area that has to lie on other objects.

Where all of an image is annotated, any outline that is a pixel off lies on some other object.
"""

LOPSIDED = 2.0
"""A mask errs to one side where that error's area is more than this many times the other's."""


@dataclass(frozen=True, kw_only=True)
class Trait:
    """A number measured on a true mask, and the classes that it is sorted into."""

    title: str
    says: str
    """What the number is."""
    classes: tuple[str, ...]
    bounds: tuple[float, ...]
    """Class i + 1 begins at bound i; one less than the classes."""

    def class_of(self, value: float) -> str:
        """The class of a value."""
        return self.classes[int(np.searchsorted(self.bounds, value, side="right"))]


_ANY = 1e-9  # less than any share of an image's pixels: parts "none" from "some"

TRAITS: dict[str, Trait] = {
    # Doubling; from about 80 pixels on, the network's grid shows less of the object than the image.
    "size": Trait(
        title="Size",
        says="shorter side of the object's box, pixels of the image",
        classes=("under 16", "16 to 32", "32 to 64", "64 to 128", "128 and more"),
        bounds=(TINY, 32, 64, 128),
    ),
    # The box window scales x and y separately: it distorts an object by this factor.
    "aspect": Trait(
        title="Aspect",
        says="longer side of the box over its shorter side",
        classes=("under 1.5", "1.5 to 3", "3 and more"),
        bounds=(1.5, 3),
    ),
    "rivals": Trait(
        title="Rivals",
        says="other annotated objects that cover at least 1 % of the object's box window",
        classes=("0", "1", "2 and more"),
        bounds=(1, 2),
    ),
    "border": Trait(
        title="Border",
        says="whether the object reaches the image's border",
        classes=("inside", "at the border"),
        bounds=(1,),
    ),
    # A compact object with a smooth outline loses only its tips, less than the first bound.
    "thin": Trait(
        title="Thin structures",
        says="share of the object, as the network's grid shows it, that is narrower than 5 of the "
        "grid's pixels",
        classes=("under 2 %", "2 to 10 %", "10 % and more"),
        bounds=(0.02, 0.1),
    ),
    "holes": Trait(
        title="Holes",
        says="background that the object encloses, as a share of its area",
        classes=("none", "under 5 %", "5 % and more"),
        bounds=(_ANY, 0.05),
    ),
    "parts": Trait(
        title="Parts",
        says="share of the object outside its largest connected part",
        classes=("none", "under 10 %", "10 % and more"),
        bounds=(_ANY, 0.1),
    ),
    # A disc fills 0.79 of its box, a triangle a half.
    "fill": Trait(
        title="Fill",
        says="the object's area over its box's",
        classes=("under 0.4", "0.4 to 0.7", "0.7 and more"),
        bounds=(0.4, 0.7),
    ),
}
"""Every trait that is a number, by name. The image's source is one more."""


CAUSES: dict[str, str] = {
    "empty": "the mask has no pixel",
    "neighbor": "another annotated object has a larger IoU with the mask than the asked one has; "
    "or more was wrongly taken than missed, and most of it, and a tenth of the object's area or "
    "more, lies on other annotated objects",
    "elsewhere": "less than half of the mask lies on the object, and it covers less than half of "
    "the object",
    "holes": "no less was wrongly taken than missed, and most of it lies in the object's holes",
    "parts": "no less was missed than wrongly taken, and most of it lies outside the object's "
    "largest connected part",
    "thin": "on the network's grid, no less was missed than wrongly taken, and most of it lies in "
    "thin structures; or no less was wrongly taken, and most of it lies in gaps as narrow; or the "
    "grid shows nothing of the object",
    "tiny": f"the shorter side of the object's box is under {TINY} pixels",
    "too much": f"the area wrongly taken is more than {LOPSIDED:g} times the area missed",
    "too little": f"the area missed is more than {LOPSIDED:g} times the area wrongly taken",
    "mixed": "about as much was wrongly taken as was missed",
    "none": "mask and truth are the same",
}
"""The kinds of error; a mask gets the first that is true of it. "Most" is more than half."""


def traits_of(truth: Mask, window: Window, side: int) -> dict[str, float]:
    """The value of each of `TRAITS` but `rivals`, for a true mask (H, W) bool that is not empty.

    `window` is the box window of the object, and `side` the network's grid in pixels.
    """
    box = true_box(truth)
    patch = _patch(truth, box)
    area = int(np.count_nonzero(patch))
    height, width = truth.shape
    shorter, longer = sorted((box.width, box.height))
    grid = geometry.crop_mask(truth, window, side) > 0.5
    shown = int(np.count_nonzero(grid))
    compact = int(np.count_nonzero(opened(grid, THIN_RADIUS)))
    return {
        "size": shorter,
        "aspect": longer / shorter,
        "border": float(box.x0 <= 0 or box.y0 <= 0 or box.x1 >= width or box.y1 >= height),
        "thin": 1 - compact / shown if shown else 1.0,  # too thin for the grid to show it
        "holes": float(np.count_nonzero(masks.fill_holes(patch))) / area - 1,
        "parts": 1 - float(np.count_nonzero(_largest_part(patch))) / area,
        "fill": area / (box.width * box.height),
    }


def cause_of(truth: Mask, mask: Mask, others: Sequence[Mask], window: Window, side: int) -> str:
    """The first of `CAUSES` that is true of a mask.

    Args:
        truth: the true mask (H, W) bool, not empty.
        mask: the predicted mask, (H, W) bool.
        others: the image's other annotated objects, (H, W) bool.
        window: the box window of the object.
        side: of the network's grid, in pixels.
    """
    false, missed = mask & ~truth, truth & ~mask
    taken, lacking = int(np.count_nonzero(false)), int(np.count_nonzero(missed))
    if not taken + lacking:
        return "none"
    area, mask_area = int(np.count_nonzero(truth)), int(np.count_nonzero(mask))
    if not mask_area:
        return "empty"
    both = mask_area - taken
    if any(masks.iou(mask, other) > both / (area + taken) for other in others):
        return "neighbor"
    theirs = int(np.count_nonzero(false & _union(others, truth.shape)))
    if taken > lacking and 2 * theirs > taken and theirs >= NEIGHBOR_SHARE * area:
        return "neighbor"
    if 2 * both < mask_area and 2 * both < area:
        return "elsewhere"
    if taken >= lacking and _most(false, masks.fill_holes(truth) & ~truth):
        return "holes"
    if lacking >= taken and _most(missed, truth & ~_largest_part(truth)):
        return "parts"
    if _is_thin(truth, mask, window, side):
        return "thin"
    box = true_box(truth)
    if min(box.width, box.height) < TINY:
        return "tiny"
    if taken > LOPSIDED * lacking:
        return "too much"
    return "too little" if lacking > LOPSIDED * taken else "mixed"


def _is_thin(truth: Mask, mask: Mask, window: Window, side: int) -> bool:
    shown = geometry.crop_mask(truth, window, side) > 0.5
    if not shown.any():
        return True
    answer = geometry.crop_mask(mask, window, side) > 0.5
    false, missed = answer & ~shown, shown & ~answer
    taken, lacking = int(np.count_nonzero(false)), int(np.count_nonzero(missed))
    return (lacking >= taken and _most(missed, ~opened(shown, THIN_RADIUS))) or (
        taken >= lacking and _most(false, closed(shown, THIN_RADIUS))
    )


def _most(part: Mask, of: Mask) -> bool:
    """Whether more than half of `part` lies in `of`; an empty part does not."""
    return 2 * int(np.count_nonzero(part & of)) > int(np.count_nonzero(part))


def _union(parts: Sequence[Mask], shape: tuple[int, ...]) -> Mask:
    union = np.zeros(shape, np.bool_)
    for part in parts:
        union |= part
    return union


def _largest_part(mask: Mask) -> Mask:
    labels, count = masks.label(mask)
    if count <= 1:
        return mask
    largest: Mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return largest


def _patch(mask: Mask, box: Box) -> Mask:
    """A true mask's box and one pixel of background around it, so that holes stay holes."""
    rows, columns = slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1))
    return np.pad(mask[rows, columns], 1)
