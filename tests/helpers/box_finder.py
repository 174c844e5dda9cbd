"""A finder whose answers are known: the boxes of patches of one color on a background."""

from __future__ import annotations

import numpy as np

from picosam2 import masks
from picosam2.images import PAD_RGB
from picosam2.models.views import OUTPUTS, REACH, STRIDES, cell_centers, cell_count


def cells_of(boxes: list[tuple[float, float, float, float]], size: int) -> np.ndarray:
    """Cells (5, N) of a view that answer with some boxes, in pixels of the view, surely."""
    cells = np.zeros((OUTPUTS, cell_count(size)), np.float32)
    cells[0] = -20
    centers, strides = cell_centers(size)
    for x0, y0, x1, y1 in boxes:
        wanted = next((s for s in STRIDES if max(x1 - x0, y1 - y0) < 8 * s), STRIDES[-1])
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        inside = (centers > (x0, y0)).all(1) & (centers < (x1, y1)).all(1)
        good = np.flatnonzero(inside & (strides <= wanted) & (cells[0] < 0))
        if not len(good):
            continue  # no cell's center lies in it
        far = np.abs(centers[good] - middle).sum(1) - 1000 * strides[good]
        place = int(good[far.argmin()])
        x, y = centers[place]
        reach = np.array([x - x0, y - y0, x1 - x, y1 - y]) / (REACH * strides[place])
        cells[0, place] = 4
        cells[1:, place] = np.log(reach)
    return cells


class PatchFinder:
    """Finds the patches that differ from the most frequent color beside the padding.

    Its boxes are larger than the patches by the share `loose` on every side.
    """

    def __init__(self, size: int = 128, *, loose: float = 0.0) -> None:
        self.input_size = size
        self.loose = loose
        self.batches: list[int] = []

    def __call__(self, views: np.ndarray) -> np.ndarray:
        self.batches.append(len(views))
        return np.stack([self._cells(view) for view in views])

    def _cells(self, view: np.ndarray) -> np.ndarray:
        colors, labels, counts = np.unique(
            view.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
        )
        labels = labels.reshape(view.shape[:2])
        counts[(colors == PAD_RGB).all(1)] = 0
        background = counts.argmax()
        boxes = []
        for number, count in enumerate(counts.tolist()):
            if number == background or count < 16:
                continue
            x0, y0, x1, y1 = masks.bbox(labels == number) or (0, 0, 0, 0)
            if min(x1 - x0, y1 - y0) > 2 and 2 * count > (x1 - x0) * (y1 - y0):  # no seam
                more_x, more_y = self.loose * (x1 - x0), self.loose * (y1 - y0)
                boxes.append((x0 - more_x, y0 - more_y, x1 + more_x, y1 + more_y))
        return cells_of(boxes, self.input_size)
