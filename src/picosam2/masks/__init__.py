"""What is done to masks: measure, compare, encode (RLE), outline (polygons) and clean up.

A mask is (H, W) bool: True on the object. Integers are taken as True where they are not 0;
anything else is a `DataError`. No function changes its arguments.

Two empty masks agree: their IoU is 1.

Neighbors: pixels of the object touch through edges and corners (8-connected), pixels of the
background through edges only (4-connected); see `components`. So a thin slanted thing stays one
thing, `label`, `remove_small` and `polygons` agree on what is one piece, and each piece has one
outer contour.
"""

from picosam2.masks.components import fill_holes, keep_at, label, remove_small
from picosam2.masks.contours import Polygon, fill_polygons, polygons
from picosam2.masks.ops import area, bbox, box_iou, center_point, iou, iou_matrix, stability
from picosam2.masks.region import OUTSIDE_LOGIT, PackedMask, Region
from picosam2.masks.rle import rle_decode, rle_encode
from picosam2.masks.runs import Mask

__all__ = [
    "OUTSIDE_LOGIT",
    "Mask",
    "PackedMask",
    "Polygon",
    "Region",
    "area",
    "bbox",
    "box_iou",
    "center_point",
    "fill_holes",
    "fill_polygons",
    "iou",
    "iou_matrix",
    "keep_at",
    "label",
    "polygons",
    "remove_small",
    "rle_decode",
    "rle_encode",
    "stability",
]
