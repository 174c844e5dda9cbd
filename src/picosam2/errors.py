"""The errors this package raises on purpose. Each message is one sentence that says what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class PicoSAM2Error(Exception):
    """A mistake the user can mend. The command line prints it on one line and exits with 2."""


class ImageError(PicoSAM2Error):
    """An image that cannot be read, or should not be (too large)."""


class PromptError(PicoSAM2Error):
    """A point or box that makes no sense, alone or on this image."""


class PromptWarning(UserWarning):
    """A prompt that was changed to make sense, for instance a box clipped to the image."""


class WeightsError(PicoSAM2Error):
    """Weights that are missing, damaged or of another model."""


class DataError(PicoSAM2Error):
    """Annotations or images that cannot be used at all."""


class StoreError(PicoSAM2Error):
    """A crop store or cache that is missing, damaged or made from something else."""


class CheckpointError(PicoSAM2Error):
    """A training checkpoint that is missing, damaged or belongs to another run."""


class ConfigError(PicoSAM2Error):
    """A setting with an unknown name or an impossible value."""


class CameraError(PicoSAM2Error):
    """A camera that is missing, or that does not run the network it should."""


class MissingExtraError(PicoSAM2Error):
    """A feature whose optional dependency is not installed."""


def install_command(extra: str) -> str:
    """How to install an extra. The package is not on PyPI."""
    return f"pip install '.[{extra}]' in a copy of the repository"


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` that names the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the Python package {error.name!r}: {install_command(extra)}"
        ) from error
