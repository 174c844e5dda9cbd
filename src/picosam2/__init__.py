"""PicoSAM2: point at a thing, get its mask.

>>> import picosam2
>>> mask = picosam2.segment(picosam2.sample(), points=[(353, 349)])[0]  # doctest: +SKIP

The names below are the public surface; everything else may change. They are imported when first
used, so that `import picosam2` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picosam2.apps.finetune import finetune as finetune
    from picosam2.errors import PicoSAM2Error as PicoSAM2Error
    from picosam2.errors import PromptWarning as PromptWarning
    from picosam2.geometry import Window as Window
    from picosam2.images import load_image as load_image
    from picosam2.io.sample_image import sample as sample
    from picosam2.predictor import Predictor as Predictor
    from picosam2.predictor import segment as segment
    from picosam2.prompts import Box as Box
    from picosam2.prompts import Point as Point
    from picosam2.prompts import Prompt as Prompt
    from picosam2.results import Segmentation as Segmentation
    from picosam2.results import overlay as overlay

    __version__: str

_HOMES = {
    "Box": "picosam2.prompts",
    "PicoSAM2Error": "picosam2.errors",
    "Point": "picosam2.prompts",
    "Predictor": "picosam2.predictor",
    "Prompt": "picosam2.prompts",
    "PromptWarning": "picosam2.errors",
    "Segmentation": "picosam2.results",
    "Window": "picosam2.geometry",
    "finetune": "picosam2.apps.finetune",
    "load_image": "picosam2.images",
    "overlay": "picosam2.results",
    "sample": "picosam2.io.sample_image",
    "segment": "picosam2.predictor",
}

__all__ = [
    "Box",
    "PicoSAM2Error",
    "Point",
    "Predictor",
    "Prompt",
    "PromptWarning",
    "Segmentation",
    "Window",
    "finetune",
    "load_image",
    "overlay",
    "sample",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("picosam2")
    if name not in _HOMES:
        raise AttributeError(f"module 'picosam2' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
