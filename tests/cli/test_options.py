"""The names that options take are those of the library."""

from __future__ import annotations

from typing import get_args

from picosam2.cli._options import OutputFormat, RuntimeName
from picosam2.io.encode import ENDINGS, Format
from picosam2.runtimes.weights import RUNTIMES


def test_format_takes_every_output_format() -> None:
    assert get_args(OutputFormat) == get_args(Format) == tuple(ENDINGS)


def test_runtime_takes_every_runtime() -> None:
    choices, _ = get_args(RuntimeName)
    assert get_args(choices) == RUNTIMES
