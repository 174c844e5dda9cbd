"""The command `picosam2`: what it can do, and how its commands are run.

Every module of this package is light; what a command needs it imports when it runs, so that help
and mistakes are answered at once.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TextIO

from cyclopts import App, CycloptsError, MissingArgumentError

from picosam2.cli import (
    analyse,
    calibrate,
    camera,
    clicks,
    compare,
    data,
    demo,
    everything,
    export,
    finetune,
    info,
    labelme,
    proposals,
    quantize,
    robustness,
    segment,
    serve,
    teach,
    track,
    train,
    version,
    weights,
)
from picosam2.cli import eval as evaluate
from picosam2.cli import report as report_command
from picosam2.cli._exit_codes import exit_code
from picosam2.cli._groups import ABOUT, APPS, EXPORT, MEASURE, OPTIONS, TRAIN, USE
from picosam2.cli._native_stderr import native_stderr_bounded
from picosam2.cli._text import one_line
from picosam2.errors import PicoSAM2Error, PromptWarning

_DECODING = (
    "segment", "everything", "track", "serve", "camera", "eval", "clicks", "robustness",
    "proposals", "analyse", "report", "info", "data", "teach", "finetune", "calibrate",
)  # fmt: skip
"""Commands that decode a user's files or run its weights, and start no programs whose stderr is of
interest."""


def _version() -> str:
    from importlib.metadata import version

    return version("picosam2")


app = App(
    name="picosam2",
    help="""Point at a thing, get its mask, with a network of 1.1 million parameters.

    A first mask: `picosam2 segment sample --point 353,349`.

    What a command can do: `picosam2 segment --help`.
    """,
    version=_version,
    suppress_keyboard_interrupt=False,
)
app.command(
    segment.segment,
    name="segment",
    usage="Usage: picosam2 segment IMAGE... --point X,Y | --box X0,Y0,X1,Y1 [OPTIONS]\n"
    "       picosam2 segment IMAGE --mask FILE --point X,Y,0 [OPTIONS]\n"
    "       picosam2 segment FOLDER... --prompts FILE | --boxes FILE [OPTIONS]",
    group=USE,
    sort_key=1,
)
app.command(
    everything.everything,
    name="everything",
    usage="Usage: picosam2 everything IMAGE... [OPTIONS]",
    group=USE,
    sort_key=2,
)
app.command(
    track.track,
    name="track",
    usage="Usage: picosam2 track VIDEO --point X,Y | --box X0,Y0,X1,Y1 --out FILE|DIR [OPTIONS]",
    group=USE,
    sort_key=3,
)
app.command(demo.demo, name="demo", group=APPS, sort_key=1)
app.command(serve.serve, name="serve", group=APPS, sort_key=2)
app.command(
    labelme.labelme,
    name="labelme",
    usage="Usage: picosam2 labelme [IMAGE|DIR] [OPTIONS] [LABELME'S OPTIONS]",
    group=APPS,
    sort_key=3,
)
app.command(
    camera.camera,
    name="camera",
    usage="Usage: picosam2 camera NETWORK.rpk [OPTIONS]\n"
    "       picosam2 camera --simulate IMAGE|CLIP [OPTIONS]",
    group=APPS,
    sort_key=4,
)
app.command(evaluate.evaluate, name="eval", group=MEASURE, sort_key=1)
app.command(compare.compare, name="compare", group=MEASURE, sort_key=2)
app.command(clicks.clicks, name="clicks", group=MEASURE, sort_key=3)
app.command(robustness.robustness, name="robustness", group=MEASURE, sort_key=4)
app.command(proposals.proposals, name="proposals", group=MEASURE, sort_key=5)
app.command(analyse.analyse, name="analyse", group=MEASURE, sort_key=6)
app.command(report_command.report, name="report", group=MEASURE, sort_key=7)
app.command(
    finetune.finetune,
    name="finetune",
    usage="Usage: picosam2 finetune ANNOTATIONS IMAGES --out NAME [OPTIONS]",
    group=TRAIN,
    sort_key=0,
)
app.command(data.app)
app.command(teach.teach, name="teach", group=TRAIN, sort_key=2)
app.command(train.train, name="train", group=TRAIN, sort_key=3)
app.command(calibrate.calibrate, name="calibrate", group=TRAIN, sort_key=4)
app.command(quantize.quantize, name="quantize", group=EXPORT, sort_key=1)
app.command(export.app)
app.command(weights.weights, name="weights", group=ABOUT, sort_key=1)
app.command(info.info, name="info", group=ABOUT, sort_key=2)
app.command(version.version, name="version", group=ABOUT, sort_key=3)
app.register_install_completion_command(
    help="Install completion for the shell in use (bash, zsh, fish or PowerShell).",
    group=OPTIONS,
)
for flag in ("--help", "--version"):
    app[flag].group = OPTIONS


def main() -> None:
    """Run the command in `sys.argv` and exit."""
    _fill_closed_streams()
    sys.exit(run(sys.argv[1:]))


def _fill_closed_streams() -> None:
    """Open the null device as each standard stream that was closed when the program began.

    Otherwise the next file that is opened would become that stream, for native code and for the
    programs that a command starts. `sys.stdin` and `sys.stdout` stay None, by which a command
    sees it; `sys.stderr` is opened, since `print` takes None for standard output.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def run(tokens: Sequence[str]) -> int:
    """Run one command line, without the program's name; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for any file name in any locale
    command = tokens[0] if tokens else ""

    def work() -> object:
        with (
            native_stderr_bounded() if command in _DECODING else nullcontext(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("always", PromptWarning)
            warnings.showwarning = _show_warning
            try:
                code = app(
                    list(tokens),
                    exit_on_error=False,
                    print_error=False,
                    verbose=False,
                    result_action="return_value",
                )
            except CycloptsError as error:
                raise PicoSAM2Error(_usage(error)) from error
        if sys.stdout is not None:
            sys.stdout.flush()
        return code

    return exit_code(work)


def _usage(error: CycloptsError) -> str:
    """What is wrong with a command line."""
    message = str(error)
    if not isinstance(error, MissingArgumentError) or not error.argument:
        return message
    if error.tokens_so_far or "Did you mean" in message:
        return message
    command = " ".join(("picosam2", *(error.command_chain or ())))
    name = error.argument.name
    if name.startswith("-"):
        name = f"{name} {error.argument.parameter.metavar or 'VALUE'}"
    return f"`{command}` needs {name}: see `{command} --help`"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A prompt's warning on one line; others as Python has them."""
    text = f"picosam2: {one_line(str(message))}\n"
    if not issubclass(category, PromptWarning):
        text = warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)
