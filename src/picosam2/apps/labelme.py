"""PicoSAM2 in labelme, as a model of osam's: AI points and AI boxes without a download.

labelme takes its models from osam, and osam has a list of them but no entry points. So the model is
put into both lists by `register`, in the process that will use it; `picosam2 labelme` does that and
starts labelme.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from picosam2.errors import MissingExtraError, install_command, require
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt
from picosam2.runtimes.ort import disable_telemetry
from picosam2.runtimes.weights import find_weights

if TYPE_CHECKING:
    from types import ModuleType

NAME = "picosam2:latest"
"""The model's name in osam."""

TITLE = "PicoSAM2"
"""The model's name in labelme's list."""

_OFF, _ON, _LEFT_TOP, _RIGHT_BOTTOM = 0, 1, 2, 3  # osam's labels of points


def register(weights: str | os.PathLike[str] = "default", *, threads: int | None = None) -> Any:
    """Put PicoSAM2 into osam's list of models, in place of one that was there; the model's class.

    Raises `MissingExtraError` without osam, `WeightsError` for weights that do not exist.
    """
    disable_telemetry()
    osam: ModuleType = require("osam", "labelme")
    path = find_weights(weights)

    class PicoSAM2(osam.types.Model):  # type: ignore[misc, name-defined]
        """osam's interface to `Predictor`. There is no encoder and nothing to download."""

        name = NAME
        metadata = osam.types.ModelMetadata(
            license_name="Apache License 2.0",
            license_url="https://www.apache.org/licenses/LICENSE-2.0",
            source_url="https://arxiv.org/abs/2506.18807",
            license_spdx="Apache-2.0",
        )
        _blobs: dict[str, Any] = {}  # noqa: RUF012

        def __init__(self) -> None:
            self._predictor = Predictor(path, threads=threads)

        @classmethod
        def pull(cls, *_: Any, **__: Any) -> None:
            """Nothing: the weights are here."""

        @classmethod
        def remove(cls) -> None:
            """Nothing: the weights belong to the package."""

        @classmethod
        def get_size(cls) -> int:
            """Bytes of the weights; that there are some tells labelme not to ask for a download."""
            return path.stat().st_size

        @classmethod
        def get_modified_at(cls) -> float:
            """When the weights were written, in seconds since 1970."""
            return path.stat().st_mtime

        def generate(self, request: Any) -> Any:
            """Answer a request that has an image, and points or a box (osam's labels).

            An annotation that comes along is the shape so far, which the points correct; without
            points it is refined by its box.
            """
            if request.image is None:
                raise ValueError("PicoSAM2 has no image embeddings: send the image")
            image = np.asarray(request.image)
            mask = _mask_so_far(request.annotations, *image.shape[:2])
            prompt = _prompt(request.prompt, mask, *image.shape[:2])
            annotations = []
            for result in self._predictor(image, prompts=[prompt]):
                if (box := result.box) is None:
                    continue
                x0, y0, x1, y1 = (int(v) for v in (box.x0, box.y0, box.x1, box.y1))
                bounds = osam.types.BoundingBox(xmin=x0, ymin=y0, xmax=x1 - 1, ymax=y1 - 1)
                annotations.append(
                    osam.types.Annotation(
                        bounding_box=bounds, mask=result.mask[y0:y1, x0:x1], score=result.score
                    )
                )
            return osam.types.GenerateResponse(model=self.name, annotations=annotations)

    known = osam.apis.registered_model_types
    known[:] = [model for model in known if model.name != NAME]
    known.append(PicoSAM2)
    return PicoSAM2


def _mask_so_far(
    annotations: Sequence[Any] | None, height: int, width: int
) -> npt.NDArray[np.bool_] | None:
    """The mask (height, width) of the one annotation of a request; None if there is none.

    Without a mask of its own, as a rectangle comes, it is its bounding box.
    """
    if not annotations:
        return None
    if len(annotations) > 1:
        raise ValueError(f"PicoSAM2 refines one shape at a time, not {len(annotations)}")
    (annotation,) = annotations
    bounds, part = annotation.bounding_box, annotation.mask
    if bounds is None:
        raise ValueError("PicoSAM2 refines shapes with a bounding box or a mask")
    x0, y0, x1, y1 = bounds.xmin, bounds.ymin, bounds.xmax + 1, bounds.ymax + 1
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"the shape's bounding box lies outside the image of {width}x{height}")
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = True if part is None else part != 0
    return mask


def _prompt(prompt: Any, mask: npt.NDArray[np.bool_] | None, height: int, width: int) -> Prompt:
    """osam's prompt as ours; without any, the middle of the image, as osam's models take it."""
    if prompt is None:
        return Prompt(mask=mask) if mask is not None else Prompt((Point(width / 2, height / 2),))
    if prompt.points is None or prompt.point_labels is None:
        raise ValueError("PicoSAM2 knows no words: give points or a box")
    # labelme's cursor may stand on the image's very edge.
    last_x, last_y = np.nextafter(width, 0), np.nextafter(height, 0)
    points, corners = [], {}
    for (x, y), label in zip(prompt.points, prompt.point_labels, strict=True):
        if label in (_OFF, _ON):
            at = float(np.clip(x, 0, last_x)), float(np.clip(y, 0, last_y))
            points.append(Point(*at, positive=bool(label == _ON)))
        else:
            corners[int(label)] = float(np.clip(x, 0, width)), float(np.clip(y, 0, height))
    if not corners:
        return Prompt(tuple(points), mask=mask)
    if set(corners) != {_LEFT_TOP, _RIGHT_BOTTOM}:
        raise ValueError("a box needs its left top (2) and its right bottom (3)")
    return Prompt(tuple(points), Box(*corners[_LEFT_TOP], *corners[_RIGHT_BOTTOM]), mask)


def add_to_labelme(
    weights: str | os.PathLike[str] = "default", *, threads: int | None = None
) -> None:
    """Put PicoSAM2 into labelme's list of AI models, and choose it unless the user's file does.

    Raises `MissingExtraError` without labelme, or with one whose lists are elsewhere.
    """
    disable_telemetry()
    require("labelme", "labelme")
    register(weights, threads=threads)
    app: Any = require("labelme.app", "labelme")
    try:
        models: list[tuple[str, str]] = app.AiAssistedAnnotationWidget._available_models
        load_config: Callable[..., dict[str, Any]] = app.load_config
    except AttributeError as error:
        raise MissingExtraError(
            f"this labelme keeps its models elsewhere: {install_command('labelme')}"
        ) from error
    if (NAME, TITLE) in models:
        return
    # At the end: labelme does not hear of the choice of its first model.
    models.append((NAME, TITLE))
    usual = load_config(None, {})["ai"]["default"]

    @wraps(load_config)
    def choose(*args: Any, **kwargs: Any) -> dict[str, Any]:
        config = load_config(*args, **kwargs)
        if config["ai"]["default"] == usual:
            config["ai"]["default"] = TITLE
        return config

    app.load_config = choose


def run_labelme(arguments: Sequence[str], weights: str, threads: int | None) -> None:
    """Start labelme with PicoSAM2; it ends the process. `arguments` are labelme's own."""
    add_to_labelme(weights, threads=threads)
    main = require("labelme.__main__", "labelme").main
    sys.argv = ["labelme", *arguments]
    main()
