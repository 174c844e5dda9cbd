"""Masks as runs: the maximal stretches of True along a row, of which a mask has few.

What a mask is (`Mask`) and what is taken for one (`as_mask`) is settled here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from picosam2.errors import DataError

Mask: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def as_mask(mask: ArrayLike) -> Mask:
    """`mask` (H, W) as bool: integers count as True where they are not 0. `DataError` if not."""
    values = np.asarray(mask)
    if values.ndim != 2:
        raise DataError(f"a mask has shape (H, W), not {values.shape}")
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind in "iu":
        return values.astype(np.bool_)
    raise DataError(f"a mask is bool, not {values.dtype}: compare logits with > 0")


def check_same_shape(a: Mask, b: Mask) -> None:
    """Raise `DataError` unless both masks have one shape."""
    if a.shape != b.shape:
        raise DataError(f"masks of one image have one shape, not {a.shape} and {b.shape}")


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The runs of a mask in reading order: positions row * stride + column, ends exclusive.

    The stride is the width plus 1: the gap keeps a run at the right border apart from one at the
    left border of the next row.
    """

    starts: Ints
    ends: Ints
    height: int
    width: int

    @property
    def stride(self) -> int:
        """From one row's first position to the next row's."""
        return self.width + 1

    def rows_and_columns(self) -> tuple[Ints, Ints, Ints]:
        """The row, the first column and the last column (inclusive) of each run."""
        rows, first = np.divmod(self.starts, self.stride)
        return rows, first, self.ends - rows * self.stride - 1


def find_runs(mask: Mask) -> Runs:
    """The runs of a mask (H, W)."""
    height, width = mask.shape
    flat = np.zeros(1 + height * (width + 1), np.bool_)
    flat[1:].reshape(height, width + 1)[:, :width] = mask
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return Runs(changes[0::2], changes[1::2], height, width)


def paint(runs: Runs, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """An array (H, W) with `values[i]` on run i and zero elsewhere."""
    size = runs.height * runs.stride
    bounds = np.empty(2 * runs.starts.size + 2, np.int64)
    bounds[0], bounds[-1] = 0, size
    bounds[1:-1:2], bounds[2:-1:2] = runs.starts, runs.ends
    alternating = np.zeros(bounds.size - 1, values.dtype)
    alternating[1::2] = values
    flat = np.repeat(alternating, np.diff(bounds))
    return np.ascontiguousarray(flat.reshape(runs.height, runs.stride)[:, : runs.width])


def expand(lengths: Ints) -> tuple[Ints, Ints]:
    """For groups of these lengths laid end to end: each item's group, and its place in it."""
    group = np.repeat(np.arange(lengths.size), lengths)
    return group, np.arange(group.size) - (np.cumsum(lengths) - lengths)[group]
