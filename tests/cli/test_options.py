"""Options: their values are those of the library, and each has a help text."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import get_args

import pytest
from cyclopts import App
from docstring_parser import parse

from picosam2.cli.main import app
from picosam2.data.crop_files import CropFormat
from picosam2.data.datasets import READERS
from picosam2.evaluation.clicks import STARTS
from picosam2.evaluation.protocols import PROTOCOLS
from picosam2.io.encode import ENDINGS, Format
from picosam2.io.prompt_files import BoxesFormat
from picosam2.runtimes.weights import RUNTIMES
from picosam2.tasks.everything import METHODS
from picosam2.tasks.tracking_outputs import Form

CHOICES = [
    ("segment", "format", get_args(Format)),
    ("segment", "boxes_format", get_args(BoxesFormat)),
    ("segment", "runtime", RUNTIMES),
    ("everything", "format", get_args(Format)),
    ("everything", "method", METHODS),
    ("proposals", "method", METHODS),
    ("proposals", "against", METHODS),
    ("proposals", "dataset", tuple(READERS)),
    ("track", "format", get_args(Form)),
    ("eval", "runtime", RUNTIMES),
    ("eval", "protocol", PROTOCOLS),
    ("eval", "dataset", tuple(READERS)),
    ("clicks", "start", STARTS),
    ("report", "dataset", tuple(READERS)),
    ("data prepare", "crops", get_args(CropFormat)),
]
"""Command, parameter, and the values that the library takes for it."""


@pytest.mark.parametrize(("words", "parameter", "values"), CHOICES)
def test_an_option_takes_every_value_that_the_library_takes(
    words: str, parameter: str, values: tuple[str, ...]
) -> None:
    assert choices(words, parameter) == set(values)


def test_quantize_takes_every_method_of_ranges() -> None:
    calibration = pytest.importorskip("picosam2.export.int8.calibration", exc_type=ImportError)
    values = {calibration.AUTO, *calibration.METHODS}
    assert choices("quantize", "method") == values


def test_every_output_format_has_an_ending() -> None:
    assert get_args(Format) == tuple(ENDINGS)


def choices(words: str, parameter: str) -> set[str]:
    """The values that a parameter of a command takes."""
    (argument,) = (
        argument
        for argument in dict(commands(app))[words].assemble_argument_collection()
        if argument.field_info.name == parameter
    )
    return set(argument.get_choices(force=True) or ())


def commands(group: App, words: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """Every command that does something, with the words that call it."""
    for name in group:
        if not name.startswith("-"):
            command = group[name]
            if command.default_command is not None:
                yield " ".join((*words, name)), command
            yield from commands(command, (*words, name))


@pytest.mark.parametrize(("words", "command"), list(commands(app)))
def test_every_option_has_a_help_text_and_every_help_text_an_option(words: str, command: App):
    function = command.default_command
    described = {entry.arg_name for entry in parse(inspect.getdoc(function) or "").params}
    assert described <= set(inspect.signature(function).parameters)
    silent = {
        argument.field_info.name
        for argument in command.assemble_argument_collection()
        if not argument.parameter.help
    }
    assert silent <= described
