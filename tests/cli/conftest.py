"""Running the command line inside the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from picosam2.cli.main import run


@dataclass(frozen=True)
class Done:
    """What a command gave: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Call with the words of a command line, without `picosam2`."""

    def call(*words: object) -> Done:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def refused(cli: Callable[..., Done]) -> Callable[..., str]:
    """Call with a command line that must be refused; gives its one line on stderr."""

    def call(*words: object) -> str:
        done = cli(*words)
        lines = done.err.splitlines()
        assert done.code == 2
        assert done.out == ""
        assert len(lines) == 1, lines
        assert lines[0].startswith("picosam2: ")
        return lines[0].removeprefix("picosam2: ")

    return call
