"""What every runtime is: crops in, logits out.

A runtime owns its preprocessing: it takes the 8-bit crops that `geometry.crop` makes.
`tests/contract` holds one suite that every runtime must pass.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from picosam2._files import sha256_file
from picosam2.errors import ImageError, WeightsError
from picosam2.images import check_crops
from picosam2.models.views import FINDER, gives_no_masks
from picosam2.runtimes.metadata import WeightsMetadata, parse_document

GUIDANCE_PLANES = 3
"""Planes of guidance: the mask so far, positive clicks, negative clicks."""


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """What is known of the weights that a runtime holds."""

    name: str
    """The runtime: onnx, torch, ..."""
    input_size: int
    """Side of the crops, pixels."""
    channels: int
    """Logit channels: 1, or 2 for boxes and clicks apart."""
    weights_sha256: str
    """Of the weights file."""
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All that the weights file says of itself, for people: recipe, scores, calibration."""
    output_size: int = 0
    """Side of the logits; the crops' if it is not given."""
    metadata: WeightsMetadata = field(init=False, repr=False)
    """The part of `facts` that the code acts on."""

    def __post_init__(self) -> None:
        if not self.output_size:
            object.__setattr__(self, "output_size", self.input_size)
        sizes = {
            "input_size": self.input_size,
            "output_size": self.output_size,
            "channels": self.channels,
        }
        object.__setattr__(self, "metadata", WeightsMetadata.from_json({**self.facts, **sizes}))

    @property
    def guidance(self) -> bool:
        """Whether the runtime takes guidance beside the crops."""
        return self.metadata.guidance

    @classmethod
    def of_file(
        cls, name: str, path: str | os.PathLike[str], document: str | bytes | Mapping[str, Any]
    ) -> RuntimeInfo:
        """What the runtime `name` holds, by the metadata of the weights file `path`.

        Args:
            name: of the runtime.
            path: the file; its SHA-256 is taken.
            document: its metadata, as JSON text or read already.

        Raises:
            WeightsError: the metadata makes no sense.
        """
        try:
            read = document if isinstance(document, Mapping) else parse_document(document)
            if read.get("kind") == FINDER:
                raise gives_no_masks(path)
            metadata = WeightsMetadata.from_json(read)
        except WeightsError as error:
            raise WeightsError(
                f"{path} does not say what it needs to ({error}): export it again"
            ) from error
        return cls(
            name=name,
            input_size=metadata.input_size,
            channels=metadata.channels,
            weights_sha256=sha256_file(path),
            facts=read,
            output_size=metadata.output_size,
        )


class Runtime(Protocol):
    """Runs the network on a batch of crops."""

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""

    def __call__(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Crops (B, S, S, 3) RGB uint8 to logits (B, K, S', S') float32, any B >= 1.

        `guidance` (B, 3, S, S) float32 in 0..1 holds the planes that `guidance.planes` draws, for
        weights that take it (`info.guidance`). None is all zeros: nothing is known but the crop.

        Raises:
            ImageError: `crops` or `guidance` has another shape or type.
            WeightsError: the weights take no guidance, or answer with other shapes than they say.
        """


class FlipAverage:
    """Another runtime that sees each crop twice, once mirrored, and answers with the mean.

    Somewhat better masks for twice the time.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def info(self) -> RuntimeInfo:
        """What it runs."""
        return self._runtime.info

    def __call__(
        self, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Like `Runtime.__call__`."""
        both = np.concatenate([crops, crops[:, :, ::-1]])
        if guidance is None:
            logits = self._runtime(both)
        else:
            logits = self._runtime(both, np.concatenate([guidance, guidance[..., ::-1]]))
        mean = logits[: len(crops)] + logits[len(crops) :, ..., ::-1]
        mean *= 0.5
        return mean


def check_inputs(
    info: RuntimeInfo, crops: npt.NDArray[np.uint8], guidance: npt.NDArray[np.float32] | None
) -> None:
    """Raise unless crops and guidance are what `Runtime.__call__` takes."""
    check_crops(crops)
    if guidance is None:
        return
    if not info.guidance:
        raise WeightsError(
            "these weights take no guidance: use weights that were trained with it, such as default"
        )
    expected = (len(crops), GUIDANCE_PLANES, *crops.shape[1:3])
    if guidance.shape != expected or guidance.dtype != np.float32:
        raise ImageError(
            f"guidance is a float32 array of shape {expected}, not {guidance.dtype} "
            f"{guidance.shape}"
        )


def check_logits(info: RuntimeInfo, logits: npt.NDArray[np.float32], count: int) -> None:
    """Raise `WeightsError` unless a runtime's answer has the shape that the weights promise."""
    expected = (count, info.channels, info.output_size, info.output_size)
    if logits.shape != expected:
        raise WeightsError(
            f"the weights answer with logits of shape {logits.shape}, not {expected} as they say: "
            "export them again"
        )
