"""Options: their values are those of the library, and each has a help text."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import get_args

import pytest
from cyclopts import App
from docstring_parser import parse

from picosam2.cli._options import OutputFormat, RuntimeName
from picosam2.cli.main import app
from picosam2.io.encode import ENDINGS, Format
from picosam2.runtimes.weights import RUNTIMES


def test_format_takes_every_output_format() -> None:
    assert get_args(OutputFormat) == get_args(Format) == tuple(ENDINGS)


def test_runtime_takes_every_runtime() -> None:
    choices, _ = get_args(RuntimeName)
    assert get_args(choices) == RUNTIMES


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
