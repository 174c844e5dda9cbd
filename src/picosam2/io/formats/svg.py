"""Masks as an SVG drawing: a path for each object."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from picosam2 import masks
from picosam2.io.formats.objects import check_labels, colors
from picosam2.results import Segmentation


def svg(
    segmentations: Sequence[Segmentation],
    height: int,
    width: int,
    *,
    tolerance: float = 1.0,
    labels: Sequence[str] | None = None,
) -> str:
    """Contours as an SVG drawing of the image's size: a path for each object, largest at the back.

    Args:
        segmentations: the objects of one image.
        height, width: the image's size in pixels.
        tolerance: how far contours may be simplified, in pixels; 0 is exact.
        labels: a class name for each object.

    Returns:
        The SVG. A path carries the object's number (from 1), label and score as `data-` attributes.

    Raises:
        DataError: there are more or fewer labels than objects.
    """
    names = check_labels(segmentations, labels)
    shades = colors(len(segmentations))
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
    ]
    for index in sorted(range(len(segmentations)), key=lambda i: -segmentations[i].area):
        segmentation = segmentations[index]
        shade = "#{:02x}{:02x}{:02x}".format(*shades[index])
        contours = masks.polygons(segmentation.mask, tolerance)
        path = " ".join("M" + " ".join(f"{x:g},{y:g}" for x, y in c.points) + "Z" for c in contours)
        lines.append(
            f'<path data-object="{index + 1}" data-label={quoteattr(names[index])} '
            f'data-score="{segmentation.score:.4f}" fill="{shade}" fill-opacity="0.5" '
            f'fill-rule="evenodd" stroke="{shade}" d="{path}">'
            f"<title>{escape(names[index])}</title></path>"
        )
    return "\n".join([*lines, "</svg>", ""])
