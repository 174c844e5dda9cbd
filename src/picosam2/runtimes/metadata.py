"""What a weights file says of itself: read without trust, checked, and typed.

Every weights file holds one JSON object. `WeightsMetadata` is the part that the code acts on; what
else it holds (recipe, scores, calibration) is for people. `weights_schema` is the same as a JSON
schema, for readers in other languages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, cast

from picosam2 import geometry
from picosam2.errors import WeightsError
from picosam2.scorer import PATIENCE, SCORER_LAYERS, Scorer

METADATA_KEY: Final = "picosam2"
"""Where ONNX and safetensors files keep the JSON text."""

SCHEMA_VERSION: Final = 1
"""Of the JSON object. Files without a `schema_version` are older, and read as version 1."""

MAX_BYTES: Final = 1 << 22
"""Of the JSON text; ours have about 50,000."""

ClickWindows: TypeAlias = Literal["ladder", "native"]

_MAX_SIDE: Final = 4096  # pixels of a crop
_MAX_CHANNELS: Final = 64
_MAX_MEMBERS: Final = 10_000  # of one JSON object
_MAX_DIGITS: Final = 32  # of a number
_MAX_CLICK_WINDOWS: Final = 64
_MAX_GROWTH: Final = 100
_MAX_HALF: Final = 100  # of a click's window, in long sides of the image


@dataclass(frozen=True, kw_only=True)
class WindowRules:
    """How prompts become windows, as the weights were trained; see `geometry`."""

    box_growth: float = geometry.BOX_GROWTH
    """A box window is this many times as wide and as high as its box, 1 or more."""
    box_max_aspect: float = geometry.BOX_MAX_ASPECT
    """Longest side over shortest of a box window, 1 or more; infinity follows the box."""
    click_halves: tuple[float, ...] = geometry.CLICK_HALVES
    """Half-sizes of the windows tried for a click, shares of the image's long side; they grow."""
    click_windows: ClickWindows = "ladder"
    """`ladder`: a window of each of these sizes. `native`: one, of the image's own pixels."""


@dataclass(frozen=True, kw_only=True)
class WeightsMetadata:
    """What the code must know of weights to use them."""

    input_size: int
    """Side of the crops, pixels."""
    channels: int
    """Logit channels: 1, or 2 for boxes and clicks apart."""
    output_size: int
    """Side of the logits, pixels."""
    guidance: bool = False
    """Whether the network takes guidance planes beside the crop."""
    normalizes: bool = False
    """Whether the graph normalizes crops itself, and takes their own numbers 0..255."""
    exact: bool = False
    """Whether the graph stands for another device's arithmetic, and must be run as it is."""
    windows: WindowRules = WindowRules()
    """How prompts become windows."""
    scorers: Mapping[str, Scorer] = field(default_factory=dict, repr=False)
    """By prompt, `box` and `click`: what predicts the IoU of a mask."""

    @property
    def native(self) -> bool:
        """Whether a click has one window, of the image's own pixels."""
        return self.windows.click_windows == "native"

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WeightsMetadata:
        """Check and read a weights file's JSON object.

        Raises:
            WeightsError: something is missing or makes no sense, or it is of a later version.
        """
        try:
            return _read(document)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise WeightsError(f"the weights' metadata makes no sense: {reason}") from error


def parse_document(text: str | bytes) -> dict[str, Any]:
    """A weights file's JSON text as an object; strangers' text costs little time and memory.

    Raises:
        WeightsError: it is no JSON object, or one that no weights of ours have.
    """
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_number(int),
            parse_float=_number(float),
            parse_constant=_no_constant,
        )
        if not isinstance(document, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError, MemoryError) as error:  # deep lists end in the second
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise WeightsError(f"the weights' metadata cannot be read: {reason}") from error
    return document


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members) > _MAX_MEMBERS:
        raise ValueError(f"an object has more than {_MAX_MEMBERS:,} members")
    return dict(members)


def _number(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a number has more than {_MAX_DIGITS} digits")
        value = kind(text)
        if not math.isfinite(value):
            raise ValueError(f"{text} is no finite number")
        return value

    return read


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no finite number")


def _read(document: Mapping[str, Any]) -> WeightsMetadata:
    version = _whole(document, "schema_version", 0, 1 << 31, default=SCHEMA_VERSION)
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"it is of version {version}, and this release reads up to {SCHEMA_VERSION}: "
            "update picosam2"
        )
    input_size = _whole(document, "input_size", 1, _MAX_SIDE)
    # Older files hold no output size where it is the input's, or 0.
    output_size = _whole(document, "output_size", 0, _MAX_SIDE, default=0) or input_size
    guidance = _yes(_table(document, "model"), "guidance")
    if guidance and input_size % output_size:
        raise ValueError("with guidance 'input_size' must be a multiple of 'output_size'")
    preprocessing, rules = _table(document, "preprocessing"), _table(document, "geometry")
    return WeightsMetadata(
        input_size=input_size,
        channels=_whole(document, "channels", 1, _MAX_CHANNELS),
        output_size=output_size,
        guidance=guidance,
        normalizes=_yes(preprocessing, "inside"),
        exact=_yes(document, "exact"),
        windows=_window_rules(rules, document.get("click_windows", "ladder")),
        scorers={
            kind: Scorer.from_json(scorer)
            for kind, scorer in _table(document, "scorers").items()
            if scorer is not None
        },
    )


def _window_rules(rules: Mapping[str, Any], click_windows: Any) -> WindowRules:
    if click_windows not in ("ladder", "native"):
        raise ValueError('\'click_windows\' must be "ladder" or "native"')
    growth = _float(rules.get("box_growth", geometry.BOX_GROWTH), "'box_growth'")
    # JSON has no infinity: no limit is null.
    limit = rules.get("box_max_aspect")
    aspect = geometry.BOX_MAX_ASPECT if limit is None else _float(limit, "'box_max_aspect'")
    halves = rules.get("click_halves", geometry.CLICK_HALVES)
    if not isinstance(halves, list | tuple) or not 1 <= len(halves) <= _MAX_CLICK_WINDOWS:
        raise ValueError(f"'click_halves' must be a list of 1 to {_MAX_CLICK_WINDOWS} numbers")
    sizes = tuple(_float(half, "a number of 'click_halves'") for half in halves)
    if not 1 <= growth <= _MAX_GROWTH or not aspect >= 1:
        raise ValueError(f"a box window must be at least as large as its box, and {_MAX_GROWTH} "
                         "times at most")  # fmt: skip
    if not (min(sizes) > 0 and max(sizes) <= _MAX_HALF):
        raise ValueError(f"the windows of a click need sizes above 0, and {_MAX_HALF} at most")
    if any(not small < large for small, large in pairwise(sizes)):
        raise ValueError("the windows of a click must grow from one to the next")
    return WindowRules(
        box_growth=growth,
        box_max_aspect=aspect,
        click_halves=sizes,
        click_windows=cast(ClickWindows, click_windows),
    )


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = document.get(key)
    if table is None:
        return {}
    if not isinstance(table, Mapping):
        raise ValueError(f"{key!r} must be an object")
    return table


def _yes(table: Mapping[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ValueError(f"{key!r} must be true or false")
    return value


def _float(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} must be a number")
    return float(value)


def _whole(
    document: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None
) -> int:
    value = document[key] if default is None else document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{key!r} must be a whole number from {low} to {high}")
    return value


def weights_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the object: what `WeightsMetadata.from_json` takes."""
    number_list = {"type": "array", "items": {"type": "number"}}
    scorer = {
        "type": "object",
        "description": "A perceptron with one hidden layer; see scorer.py.",
        "required": ["features", *SCORER_LAYERS],
        "properties": {
            "features": {"type": "array", "items": {"type": "string"}},
            "hidden": {"type": "array", "items": number_list},
            "out": {"type": "array", "items": number_list},
            **dict.fromkeys(("mean", "scale", "hidden_bias", "out_bias"), number_list),
            "start": {
                "type": "integer",
                "minimum": 0,
                "description": "The window that a click is looked at first; missing: all at once.",
            },
            "patience": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": PATIENCE,
                "description": "How far below the best IoU a window is still looked through.",
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "PicoSAM2 weights metadata",
        "type": "object",
        "required": ["input_size", "channels"],
        "properties": {
            "schema_version": {"type": "integer", "minimum": 0, "maximum": SCHEMA_VERSION},
            "input_size": {"type": "integer", "minimum": 1, "maximum": _MAX_SIDE},
            "output_size": {
                "type": "integer",
                "minimum": 0,
                "maximum": _MAX_SIDE,
                "description": "Side of the logits; missing or 0: that of the crops.",
            },
            "channels": {"type": "integer", "minimum": 1, "maximum": _MAX_CHANNELS},
            "click_windows": {"enum": ["ladder", "native"], "default": "ladder"},
            "exact": {"type": "boolean", "default": False},
            "graph_sha256": {
                "type": "string",
                "description": "Of an ONNX file: SHA-256 of its bytes without the metadata.",
            },
            "tensors_sha256": {
                "type": "string",
                "description": "Of a safetensors file: SHA-256 of its tensors and metadata.",
            },
            "model": {
                "type": ["object", "null"],
                "properties": {"guidance": {"type": "boolean", "default": False}},
            },
            "preprocessing": {
                "type": ["object", "null"],
                "properties": {
                    "inside": {"type": "boolean", "default": False},
                    "order": {"const": "RGB"},
                    "mean": number_list,
                    "std": number_list,
                    "pad": number_list,
                },
            },
            "geometry": {
                "type": ["object", "null"],
                "properties": {
                    "box_growth": {
                        "type": "number",
                        "minimum": 1,
                        "maximum": _MAX_GROWTH,
                        "default": geometry.BOX_GROWTH,
                    },
                    "box_max_aspect": {"type": ["number", "null"], "minimum": 1},
                    "click_halves": {
                        "type": "array",
                        "description": "From the smallest to the largest.",
                        "items": {"type": "number", "exclusiveMinimum": 0, "maximum": _MAX_HALF},
                        "minItems": 1,
                        "maxItems": _MAX_CLICK_WINDOWS,
                        "default": list(geometry.CLICK_HALVES),
                    },
                    "outside_logit": {"type": "number"},
                },
            },
            "scorers": {
                "type": ["object", "null"],
                "properties": {"box": scorer, "click": scorer},
            },
        },
    }
