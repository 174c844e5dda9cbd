"""What a script beside the package makes of errors: what the command does, by its own name."""

from __future__ import annotations

import sys

import pytest

from picosam2.cli._exit_codes import INTERRUPTED, USAGE, run_script
from picosam2.errors import WeightsError


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (WeightsError("there are no weights at x"), USAGE, "there are no weights at x"),
        (FileNotFoundError(2, "No such file", "a.json"), USAGE, "a.json: No such file"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
        (
            ModuleNotFoundError(name="torch"),
            USAGE,
            "this needs the Python package 'torch': "
            "pip install '.[train]' in a copy of the repository",
        ),
    ],
)
def test_a_mistake_is_one_sentence_by_the_name_of_the_script(
    error, code, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["tools/studies/average.py"])
    with pytest.raises(SystemExit) as ended:
        run_script(raising(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == f"average.py: {message}\n"


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_script(raising(ZeroDivisionError()))


@pytest.mark.parametrize(("result", "code"), [(None, 0), (3, 3), ("text", 0)])
def test_a_script_ends_with_the_code_that_it_returns(result, code):
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: result)
    assert ended.value.code == code
