"""Masks as `supervision.Detections`, for its annotators, trackers and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from picosam2.errors import require
from picosam2.io.formats.objects import check_class_ids, check_labels
from picosam2.results import Segmentation

if TYPE_CHECKING:
    import supervision


def detections(
    segmentations: Sequence[Segmentation],
    *,
    class_ids: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
) -> supervision.Detections:
    """Objects of one image as `supervision.Detections`. An empty mask has the box 0, 0, 0, 0.

    Raises:
        MissingExtraError: the extra `supervision` is not installed.
        DataError: there are more or fewer labels or class numbers than objects.
    """
    sv = require("supervision", "supervision")
    if not segmentations:
        empty: supervision.Detections = sv.Detections.empty()
        return empty
    boxes = [(b.x0, b.y0, b.x1, b.y1) if (b := s.box) else (0, 0, 0, 0) for s in segmentations]
    made: supervision.Detections = sv.Detections(
        xyxy=np.array(boxes, np.float32),
        mask=np.stack([segmentation.mask for segmentation in segmentations]),
        confidence=np.array([segmentation.score for segmentation in segmentations], np.float32),
        class_id=np.array(check_class_ids(len(segmentations), class_ids)),
        data={"class_name": np.array(check_labels(segmentations, labels))},
    )
    return made
