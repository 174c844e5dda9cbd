"""A mask on part of an image, and how it is laid on the whole one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from picosam2.errors import DataError
from picosam2.masks.ops import bbox, iou_of_areas
from picosam2.masks.runs import Mask
from picosam2.prompts import Box, Point

OUTSIDE_LOGIT: Final = -32.0
"""The logit given to pixels that no window has seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A mask on the image pixels from column `x`, row `y`; the image is background elsewhere.

    `values` is (h, w), logits float32 (the mask is where they are above 0) or bool. It may be
    empty. It lies within the image.
    """

    x: int
    y: int
    values: NDArray[np.float32] | Mask

    @property
    def rows(self) -> slice:
        """The image rows covered."""
        return slice(self.y, self.y + self.values.shape[0])

    @property
    def columns(self) -> slice:
        """The image columns covered."""
        return slice(self.x, self.x + self.values.shape[1])

    @property
    def mask(self) -> Mask:
        """The mask (h, w) bool."""
        return cast(Mask, self.values) if self.values.dtype == np.bool_ else self.values > 0

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits (h, w) float32. `DataError` for a region that holds a mask only."""
        if self.values.dtype == np.bool_:
            raise DataError("this region holds a mask without logits")
        return cast("NDArray[np.float32]", self.values)

    @property
    def area(self) -> int:
        """The number of pixels on the object."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> Box | None:
        """The tight box around the mask, in pixels of the image; None if the mask is empty."""
        bounds = bbox(self.mask)
        if bounds is None:
            return None
        x0, y0, x1, y1 = bounds
        return Box(x0 + self.x, y0 + self.y, x1 + self.x, y1 + self.y)

    def covers(self, point: Point) -> bool:
        """Whether the pixel of a point of the image is in the mask."""
        x, y = int(point.x) - self.x, int(point.y) - self.y
        height, width = self.values.shape
        return 0 <= x < width and 0 <= y < height and bool(self.values[y, x] > 0)

    def iou(self, truth: Mask, area: int | None = None) -> float:
        """IoU with a true mask (H, W) bool of the whole image, 0..1; 1 if both are empty.

        Only the region's part of the image is looked at; `area` is the true mask's, if known.
        """
        mask = self.mask
        both = int(np.count_nonzero(mask & truth[self.rows, self.columns]))
        truth_area = int(np.count_nonzero(truth)) if area is None else area
        return iou_of_areas(both, int(np.count_nonzero(mask)), truth_area)

    def overlap(self, other: Region) -> int:
        """The number of pixels that the masks of two regions of one image share."""
        x0, y0 = max(self.x, other.x), max(self.y, other.y)
        x1 = min(self.columns.stop, other.columns.stop)
        y1 = min(self.rows.stop, other.rows.stop)
        if x0 >= x1 or y0 >= y1:
            return 0
        mine = self.values[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x] > 0
        theirs = other.values[y0 - other.y : y1 - other.y, x0 - other.x : x1 - other.x] > 0
        return int(np.count_nonzero(mine & theirs))

    def tight(self) -> Region:
        """The region without its empty rows and columns, as a mask of its own memory."""
        mask = self.mask
        x0, y0, x1, y1 = bbox(mask) or (0, 0, 0, 0)
        return Region(self.x + x0, self.y + y0, mask[y0:y1, x0:x1].copy())

    def on_image(self, height: int, width: int) -> Mask:
        """The mask on the whole image, (height, width) bool."""
        full = np.zeros((height, width), np.bool_)
        full[self.rows, self.columns] = self.mask
        return full

    def logits_on_image(
        self, height: int, width: int, outside: float = OUTSIDE_LOGIT
    ) -> NDArray[np.float32]:
        """The logits on the whole image, (height, width) float32, `outside` elsewhere."""
        full = np.full((height, width), outside, np.float32)
        full[self.rows, self.columns] = self.logits
        return full


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask kept small: one bit for each pixel of the tight box around it."""

    x: int
    y: int
    width: int
    height: int
    area: int
    """The number of pixels on the object."""
    bits: NDArray[np.uint8]
    """Eight pixels a byte, row by row, (ceil(width * height / 8),)."""

    @classmethod
    def of(cls, region: Region) -> PackedMask:
        """The mask of a region."""
        tight = region.tight()
        height, width = tight.values.shape
        return cls(tight.x, tight.y, width, height, tight.area, np.packbits(tight.mask))

    @property
    def box(self) -> Box | None:
        """The tight box, in pixels of the image; None if the mask is empty."""
        if not self.area:
            return None
        return Box(self.x, self.y, self.x + self.width, self.y + self.height)

    def region(self) -> Region:
        """The mask as a region of bool."""
        pixels = np.unpackbits(self.bits, count=self.width * self.height)
        return Region(self.x, self.y, pixels.reshape(self.height, self.width).view(np.bool_))
