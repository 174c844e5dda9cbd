"""The command itself: help, usage errors, exit codes, progress, and how soon it answers."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings

import pytest

from picosam2.cli import main
from picosam2.cli._progress import amount, progress
from picosam2.cli._text import columns, name_problems
from picosam2.cli.main import app
from picosam2.errors import DataError, PromptWarning


def test_help_answers():
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "picosam2", "--help"], capture_output=True, text=True, check=True
    )
    print(f"picosam2 --help: {time.perf_counter() - started:.3f} s")
    assert "segment sample --point 353,349" in done.stdout
    for command in ("segment", "eval", "data", "train", "export", "info", "weights", "version"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    "command",
    ["segment", "eval", "data", "data download", "data prepare", "data check", "data show", "train",
     "export", "export onnx", "export litert", "export executorch", "info", "weights", "version"],
)  # fmt: skip
def test_every_command_explains_itself(cli, command):
    done = cli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert f"Usage: picosam2 {command}" in done.out


def test_no_command_is_a_question_for_help(cli):
    done = cli()
    assert done.code == 0
    assert "Usage: picosam2 COMMAND" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["segmnt"], 'Unknown command "segmnt". Did you mean "segment"?'),
        (["data", "prepair"], 'Did you mean "prepare"?'),
        (["eval"], "give --images and --annotations, or --domains"),
        (
            ["robustness"],
            "`picosam2 robustness` needs --images DIR: see `picosam2 robustness --help`",
        ),
        (["eval", "--images"], "`picosam2 eval` needs --images DIR"),
        (["data", "check"], "`picosam2 data check` needs STORE"),
        (["data", "prepare", "--out", "x", "--coco", "a"], "requires 2 positional arguments"),
        (["train", "--recipe", "debug", "--stor", "x", "--out", "y"], "Did you mean --store"),
        (["info", "--weight", "x"], "Did you mean --weights?"),
        (["weights", "default"], "default"),
        (["version", "--jitter", "x"], "--jitter"),
    ],
)
def test_a_usage_error_is_one_sentence(refused, words, message):
    assert message in refused(*words)


def test_the_version(cli):
    from importlib.metadata import version

    assert cli("--version").out.strip() == version("picosam2")
    assert cli("version").out.split()[:2] == ["picosam2", version("picosam2")]


def pretend(monkeypatch, command):
    monkeypatch.setattr(main, "app", lambda *_, **__: command())


def test_a_mistake_the_user_can_mend(monkeypatch, refused):
    def command():
        raise DataError("the file\n  is gone")

    pretend(monkeypatch, command)
    assert refused("x") == "the file is gone"


def test_a_full_disk(monkeypatch, refused):
    def command():
        raise OSError(28, "No space left on device", "out.png")

    pretend(monkeypatch, command)
    assert refused("x") == "out.png: No space left on device"


def test_an_error_of_ours_keeps_its_traceback(monkeypatch, cli):
    def command():
        raise ZeroDivisionError

    pretend(monkeypatch, command)
    with pytest.raises(ZeroDivisionError):
        cli("x")


def test_warnings(monkeypatch, cli):
    def command():
        for _ in range(2):
            warnings.warn("cut to 1,2", PromptWarning, stacklevel=1)

    pretend(monkeypatch, command)
    assert cli("x").err == "picosam2: cut to 1,2\n" * 2


def test_what_a_command_returns_is_the_exit_code(monkeypatch, cli):
    pretend(monkeypatch, lambda: 2)
    assert cli("x").code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(cli, shell, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    done = cli("--install-completion", "--shell", shell)
    assert (done.code, done.err) == (0, "")
    written = [path for path in tmp_path.rglob("*picosam2*") if path.is_file()]
    assert len(written) == 1
    script = written[0].read_text()
    assert "prepare" in script
    assert "multimask" in script


def test_progress_in_lines(capsys):
    with progress("measuring", "images") as update:
        update(1, 3)
        update(3, 3, note="done")
        update(3, 3, note="done")
    assert capsys.readouterr().err == "measuring: 3/3 images, done\n"


def test_progress_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress("fetching", "bytes") as update:
        update(1_000_000, 2_000_000, what="val2017.zip")
        update(2_000_000, 2_000_000)
    shown = capsys.readouterr().err
    assert "val2017.zip" in shown
    assert "2.0/2.0 MB" in shown


def test_progress_that_is_told_nothing_shows_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("training", "steps"):
        pass
    assert capsys.readouterr().err == ""


def test_amounts():
    assert amount(12, 4800, "images") == "12/4,800 images"
    assert amount(12, None, "images") == "12 images"
    assert amount(1_234_567, None, "bytes") == "1.2 MB"


def test_columns():
    assert columns([("a", "1", "x"), ("long", "1,000", "y")]) == "a         1  x\nlong  1,000  y"
    assert columns([("a", "b"), ("cc", "d")], left=2) == "a   b\ncc  d"


def test_problems_are_named_and_then_counted(capsys):
    name_problems([], "nothing")
    name_problems([f"image {n}" for n in range(12)], "skipped")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "picosam2: skipped (12):"
    assert lines[1] == "  image 0"
    assert lines[-1] == "  and 2 more"
    assert len(lines) == 12


def test_help_shows_the_commands_in_groups(cli):
    """What a newcomer reads: six groups, and every command in one of them."""
    shown = cli("--help").out
    groups = ("Use", "Apps", "Measure", "Train", "Export", "About", "Options")
    assert [shown.index(f"╭─ {name} ") for name in groups] == sorted(
        shown.index(f"╭─ {name} ") for name in groups
    )
    assert "╭─ Commands " not in shown
    for command in app:
        assert f"│ {command} " in shown or f"│ {command} (" in shown or command == "-h"
