"""CVAT's interactor: clicks and a box on an image become a mask. Runs as a nuclio function."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np

from picosam2 import Box, PicoSAM2Error, Point, Predictor, Prompt

_EMPTY = {"shapes": []}


def init_context(context: Any) -> None:
    """Load the model once, when the function starts."""
    context.user_data.model = Predictor(threads=1)


def handler(context: Any, event: Any) -> Any:
    """Answer one request of CVAT: a mask, or a sentence that says what is wrong."""
    try:
        status, answer = 200, interact(context.user_data.model, event.body)
    except (PicoSAM2Error, ValueError) as error:
        status, answer = 400, {"error": str(error)}
    return context.Response(
        body=json.dumps(answer), headers={}, content_type="application/json", status_code=status
    )


def interact(predictor: Predictor, body: Any) -> dict[str, Any]:
    """The shapes for a request's body.

    Args:
        predictor: what answers.
        body: `image` (base64, also in lines or as a data URL), `pos_points` and `neg_points` (lists
            of x, y in pixels), and `obj_bbox` (two corners, or nothing).

    Raises:
        ValueError, PicoSAM2Error: the body is none of that.
    """
    if isinstance(body, str | bytes):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            raise ValueError("the body is not JSON") from None
    if not isinstance(body, dict) or not isinstance(body.get("image"), str):
        raise ValueError("there is no image: send base64 in 'image'")
    text = body["image"]
    if text.startswith("data:"):  # a data URL
        text = text.partition(";base64,")[2]
    if not text:
        raise ValueError("'image' is a data URL that is not base64, or empty")
    try:
        image = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise ValueError("'image' is not base64") from None
    points = [
        Point(x, y, positive)
        for name, positive in (("pos_points", True), ("neg_points", False))
        for x, y in _pairs(body, name)
    ]
    corners = _pairs(body, "obj_bbox")
    if corners and len(corners) != 2:
        raise ValueError("'obj_bbox' must have two corners")
    box = None
    if corners:
        (x0, y0), (x1, y1) = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
        box = Box(x0, y0, x1, y1)
    (result,) = predictor(image, prompts=[Prompt(tuple(points), box=box)])
    if result.box is None:
        return _EMPTY
    shape = {"type": "mask", "points": mask_points(result.mask), "rotation": 0, "occluded": False}
    return {"shapes": [shape]}


def mask_points(mask: np.ndarray) -> list[int]:
    """A mask in CVAT's form: run lengths in its box, from a run of 0, and the box's corners.

    The corners are the first and the last column and row of the mask, both within it.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1], rows[-1]
    flat = mask[top : bottom + 1, left : right + 1].ravel()
    changes = np.flatnonzero(np.diff(flat.astype(np.int8), prepend=0))
    runs = np.diff(changes, prepend=0, append=flat.size)
    return [int(value) for value in (*runs, left, top, right, bottom)]


def _pairs(body: dict[str, Any], name: str) -> list[tuple[float, float]]:
    value = body.get(name) or []
    try:
        return [(float(x), float(y)) for x, y in value]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"'{name}' must be a list of x, y") from None
