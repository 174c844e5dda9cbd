"""Run another program: pass on its lines as they come, log its output, end it with its children."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PATIENCE_S = 5.0  # between asking a program to end and making it


def run(
    command: Sequence[str],
    *,
    log: Path,
    on_line: Callable[[str], None],
    stdin: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    errors_apart: bool = False,
) -> int:
    """Run a program, pass every line of its output to `on_line`, and return its exit code.

    Output and errors are added to the file `log`. With `errors_apart` the errors go only there.
    Whatever ends the wait - Ctrl-C, an error in `on_line` - ends the program and those that it
    started too.
    """
    with log.open("a", encoding="utf-8") as written:
        print(f"$ {' '.join(command)}", file=written, flush=True)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written if errors_apart else subprocess.STDOUT,
            cwd=folder,
            env=None if environment is None else dict(environment),
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that the programs it starts can be ended with it
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with process.stdin:
                    process.stdin.write(stdin)
            except BrokenPipeError:
                pass  # it ended at once; its exit code says so
            for line in process.stdout:
                written.write(line)
                on_line(line.rstrip("\n"))
            return process.wait()
        finally:
            if process.poll() is None:
                _end(process)
            if process.stdout is not None:
                process.stdout.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End a program with all that it started: by SIGTERM, then by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_PATIENCE_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
        break
    process.wait()


def last_lines(log: Path, count: int = 1) -> str:
    """The last lines of a log that are not blank, for an error message."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    return " / ".join([line for line in lines if line and not line.startswith("$ ")][-count:])
