"""Masks in the formats of other tools, and objects read back from those that serve as inputs.

============  ============  ==========================================  ==========================
format        one file for  holds                                       read back
============  ============  ==========================================  ==========================
binary PNG    an object     255 on it, 0 off it                         yes
indexed PNG   an image      the object's number in each pixel, with a   yes
                            palette; up to 255
16-bit PNG    an image      the same without a palette; up to 65,535    yes
SVG           an image      a path for each object                      no
COCO          many images   RLE or polygons, box, score, category       yes, and as boxes
YOLO          an image      a polygon a line, in shares of the image    yes, and as boxes
labelme       an image      polygons; those of one object share a       yes, also as boxes, points
                            group
supervision   an image      `Detections`, in memory                     no
============  ============  ==========================================  ==========================

Numbered PNGs have one number a pixel: where objects overlap, the smaller one is in front. All
others keep overlaps. COCO, YOLO and labelme know polygons without holes only. A hole is joined to
its outline by a line walked there and back (a keyhole), which leaves the even-odd area, and so the
mask, as it was. At tolerance 0 every polygon format gives back exactly the mask that was written.
"""

from picosam2.io.formats.coco import (
    CocoAnnotation,
    CocoFile,
    CocoImage,
    coco_annotation,
    coco_box,
    coco_document,
    coco_mask,
    fill_coco_polygons,
    read_coco_document,
    read_coco_file,
)
from picosam2.io.formats.detections import detections
from picosam2.io.formats.labelme import LABELME_VERSION, labelme, read_labelme
from picosam2.io.formats.objects import LABEL, EntryProblem, LabeledObject, colors, read_json
from picosam2.io.formats.outlines import fill_rings, joined_outline, outlines
from picosam2.io.formats.png import (
    ids_png,
    indexed_png,
    mask_png,
    numbered,
    read_ids_png,
    read_mask_png,
)
from picosam2.io.formats.svg import svg
from picosam2.io.formats.yolo import read_class_names, read_yolo, yolo, yolo_classes

__all__ = [
    "LABEL",
    "LABELME_VERSION",
    "CocoAnnotation",
    "CocoFile",
    "CocoImage",
    "EntryProblem",
    "LabeledObject",
    "coco_annotation",
    "coco_box",
    "coco_document",
    "coco_mask",
    "colors",
    "detections",
    "fill_coco_polygons",
    "fill_rings",
    "ids_png",
    "indexed_png",
    "joined_outline",
    "labelme",
    "mask_png",
    "numbered",
    "outlines",
    "read_class_names",
    "read_coco_document",
    "read_coco_file",
    "read_ids_png",
    "read_json",
    "read_labelme",
    "read_mask_png",
    "read_yolo",
    "svg",
    "yolo",
    "yolo_classes",
]
