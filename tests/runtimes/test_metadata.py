"""What a weights file says of itself is checked before the code acts on it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fixed_scores

from picosam2.errors import WeightsError
from picosam2.geometry import CLICK_HALVES
from picosam2.runtimes.metadata import (
    MAX_BYTES,
    SCHEMA_VERSION,
    WeightsMetadata,
    parse_document,
    weights_schema,
)
from picosam2.runtimes.weights import find_weights, read_facts, shipped

SMALL = {"input_size": 96, "channels": 2}
SCHEMA = Path(__file__).parents[2] / "web/packages/picosam2/weights.schema.json"


def test_an_old_file_without_version_or_sizes_is_read() -> None:
    metadata = WeightsMetadata.from_json(SMALL)
    assert (metadata.input_size, metadata.output_size, metadata.channels) == (96, 96, 2)
    assert metadata.windows.click_halves == CLICK_HALVES
    assert metadata.windows.box_max_aspect == math.inf
    flags = (metadata.native, metadata.guidance, metadata.normalizes, metadata.exact)
    assert not any(flags)
    assert not metadata.scorers


def test_every_part_is_read() -> None:
    metadata = WeightsMetadata.from_json(
        {
            **SMALL,
            "schema_version": SCHEMA_VERSION,
            "output_size": 48,
            "click_windows": "native",
            "exact": True,
            "model": {"guidance": True, "widths": [1]},
            "preprocessing": {"inside": True},
            "geometry": {"box_growth": 1.5, "box_max_aspect": 2, "click_halves": [0.1, 0.3]},
            "scorers": {"box": fixed_scores(0.5), "click": None},
            "recipe": {"anything": [1, "two"]},
        }
    )
    assert metadata.output_size == 48
    assert metadata.native
    assert metadata.exact
    assert metadata.guidance
    assert metadata.normalizes
    assert (metadata.windows.box_growth, metadata.windows.box_max_aspect) == (1.5, 2)
    assert metadata.windows.click_halves == (0.1, 0.3)
    assert set(metadata.scorers) == {"box"}


def test_files_of_a_later_version_are_refused_in_a_sentence() -> None:
    with pytest.raises(WeightsError, match=r"of version 99, .* update picosam2"):
        WeightsMetadata.from_json({**SMALL, "schema_version": 99})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_size": None}, "'input_size' must be a whole number from 1 to 4096"),
        ({"input_size": 1e300}, "'input_size' must be"),
        ({"input_size": True}, "'input_size' must be"),
        ({"channels": 0}, "'channels' must be a whole number from 1 to 64"),
        ({"output_size": -1}, "'output_size' must be"),
        ({"schema_version": "1"}, "'schema_version' must be"),
        ({"click_windows": "some"}, "'click_windows' must be"),
        ({"exact": "no"}, "'exact' must be true or false"),
        ({"model": [1]}, "'model' must be an object"),
        ({"model": {"guidance": 1}}, "'guidance' must be true or false"),
        ({"output_size": 36, "model": {"guidance": True}}, "a multiple of 'output_size'"),
        ({"geometry": {"click_halves": [0.1] * 65}}, "1 to 64 numbers"),
        ({"geometry": {"box_max_aspect": 0.5}}, "at least as large"),
        ({"scorers": {"box": []}}, "scorer that cannot be used"),
    ],
)
def test_values_that_make_no_sense(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        WeightsMetadata.from_json({**SMALL, **changes})


@pytest.mark.parametrize("missing", ["input_size", "channels"])
def test_what_must_be_there(missing: str) -> None:
    with pytest.raises(WeightsError, match=f"lacks '{missing}'"):
        WeightsMetadata.from_json({k: v for k, v in SMALL.items() if k != missing})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000 + "1" + "}" * 50_000,
        '{"input_size": Infinity, "channels": 1}',
        '{"input_size": NaN, "channels": 1}',
        '{"input_size": 1e999, "channels": 1}',
        '{"input_size": ' + "9" * 400 + ', "channels": 1}',
        '{"input_size": 0.' + "1" * 400 + ', "channels": 1}',
        "{" + ",".join(f'"k{i}": {i}' for i in range(100_000)) + "}",
        '{"long": "' + "a" * MAX_BYTES + '"}',
        "",
        "null",
        "[1]",
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_text_is_refused_at_once(text: str | bytes) -> None:
    start = time.monotonic()
    with pytest.raises(WeightsError, match="metadata cannot be read"):
        parse_document(text)
    assert time.monotonic() - start < 2


def test_the_schema_for_other_languages_is_up_to_date() -> None:
    assert json.loads(SCHEMA.read_text()) == weights_schema(), (
        "run `python tools/weights_schema.py` and commit what it writes"
    )


def test_the_schema_takes_the_shipped_weights() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(weights_schema())
    for name in shipped():
        check.validate(json.loads(json.dumps(read_facts(find_weights(name)))))
    assert not check.is_valid({**SMALL, "schema_version": 99})
    assert not check.is_valid({**SMALL, "click_windows": "some"})
    assert not check.is_valid({"channels": 1})
