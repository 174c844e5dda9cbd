"""Standard streams that are closed when a command begins."""

from __future__ import annotations

import subprocess
import sys

import pytest

from picosam2.io.sample_image import sample_bytes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="closes streams with a shell")


def _run(redirect: str, *words: object) -> subprocess.CompletedProcess[str]:
    script = f'exec "$@" {redirect}'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "picosam2", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_results_are_written_all_the_same(redirect, tmp_path):
    done = _run(redirect, "segment", "sample", "--point", "353,349", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [written] = tmp_path.iterdir()
    assert written.read_bytes().startswith(b"\x89PNG")  # and no text of ours in it


@pytest.mark.parametrize(
    ("redirect", "words", "message"),
    [
        (">&-", ("sample", "--out", "-"), "standard output is closed"),
        (">&-", ("sample", "--out", "-", "--format", "json"), "standard output is closed"),
        ("<&-", ("-",), "standard input is closed"),
    ],
)
def test_a_closed_stream_that_is_needed_is_named(redirect, words, message):
    done = _run(redirect, "segment", *words, "--point", "353,349")
    assert done.returncode == 2
    assert done.stderr.startswith(f"picosam2: {message}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("weights",), ("--help",), ("segment", "--help")])
def test_what_only_prints_ends_well(words):
    done = _run(">&-", *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_mistake_has_its_exit_code_without_stderr():
    done = _run("2>&-", "segment", "none.jpg", "--point", "1,1")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_run_over_a_folder_needs_no_stream(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(sample_bytes())
    done = _run("<&- >&- 2>&-", "segment", folder, "--point", "353,349", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert (tmp_path / "out" / "a-overlay.png").is_file()
