"""The tools' environment: made once, made again when half made, refused in plain words."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.progress import Recorded

from picosam2.export.imx500 import environment as module
from picosam2.export.imx500.environment import (
    PINS,
    ToolsError,
    default_folder,
    find_java,
    find_python,
    prepare,
)

Program = Callable[[str, str], Path]

PYTHON = """#!/bin/sh
# `-m venv DIR` makes an environment whose Python is this script; `-m pip install ...` fills it.
echo "$@" >> {calls}
case "$2" in
  venv) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  pip) {pip} ;;
esac
"""
FILLS = """
    echo "Collecting torch==2.13.0"; echo "Installing collected packages: torch"
    touch "$(dirname "$0")/imxconv-pt" """


@pytest.fixture
def python(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Makes a Python that is found, with a pip that does what it is told."""

    def make(pip: str = FILLS) -> Path:
        path = program("python3", PYTHON.format(calls=tmp_path / "calls", pip=pip))
        monkeypatch.setattr(module, "find_python", lambda: str(path))
        return path

    return make


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_it_is_made_once(python: Callable[..., Path], tmp_path: Path) -> None:
    python()
    progress = Recorded()
    first = prepare(tmp_path / "cache", progress)
    venv, pip = calls(tmp_path)
    assert venv == f"-m venv {first.folder}"
    assert pip.startswith("-m pip install --no-input")
    assert pip.endswith(" ".join(PINS))
    assert progress.names[progress.counts.index((1, None))] == "fetching torch"
    assert first.folder.parent == tmp_path / "cache"
    assert first.python.exists()
    assert first.converter.exists()
    assert json.loads((first.folder / "complete.json").read_text())["pins"] == list(PINS)
    assert prepare(tmp_path / "cache") == first
    assert len(calls(tmp_path)) == 2


def test_what_was_left_half_made_is_made_again(python: Callable[..., Path], tmp_path: Path) -> None:
    """A power cut leaves a folder without its mark."""
    python()
    made = prepare(tmp_path / "cache")
    (made.folder / "complete.json").unlink()
    (made.folder / "rubbish").write_text("of the first time")
    assert prepare(tmp_path / "cache") == made
    assert len(calls(tmp_path)) == 4
    assert not (made.folder / "rubbish").exists()


def test_an_environment_whose_python_is_gone_is_made_again(
    python: Callable[..., Path], tmp_path: Path
) -> None:
    """As after an upgrade of the system's Python, which the environment links to."""
    python()
    made = prepare(tmp_path / "cache")
    made.python.unlink()
    made.python.symlink_to(tmp_path / "gone")
    prepare(tmp_path / "cache")
    assert made.python.exists()
    assert not made.python.is_symlink()


def test_other_pins_are_another_environment(
    python: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python()
    first = prepare(tmp_path / "cache")
    monkeypatch.setattr(module, "PINS", (*PINS[:-1], "onnxscript==9"))
    second = prepare(tmp_path / "cache")
    assert second.folder != first.folder
    assert first.python.exists()


REFUSALS = {
    "no network": (
        'echo "WARNING: Retrying after connection broken by NewConnectionError"; '
        'echo "ERROR: No matching distribution found for torch==2.13.0"; exit 1',
        "pip reached no package index: check the network",
    ),
    "not offered": (
        'echo "ERROR: Could not find a version that satisfies the requirement torch==2.13.0"; '
        'echo "ERROR: No matching distribution found for torch==2.13.0"; exit 1',
        "could not be installed: No matching distribution found for torch==2.13.0",
    ),
    "full disk": (
        'echo "ERROR: Could not install packages due to an OSError: No space left" >&2; exit 1',
        "No space left",
    ),
    "killed": ("kill -9 $$", "could not be installed"),
}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_an_installation_that_fails(name: str, python: Callable[..., Path], tmp_path: Path) -> None:
    """It is said why, nothing is left but the log, and the next try may succeed."""
    pip, says = REFUSALS[name]
    python(pip)
    with pytest.raises(ToolsError, match=says) as caught:
        prepare(tmp_path / "cache")
    log = tmp_path / "cache" / "imx500-install.log"
    assert str(log) in str(caught.value)
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {log.name, "imx500.lock"}
    python()
    assert prepare(tmp_path / "cache").converter.exists()


def test_an_installation_that_is_interrupted(python: Callable[..., Path], tmp_path: Path) -> None:
    """pip is ended too, and nothing half made is left."""
    python(f'echo $$ > {tmp_path}/pid; echo "Collecting torch"; sleep 60')

    def interrupt(
        done: int, total: int | None = None, *, what: str | None = None, note: str = ""
    ) -> None:
        if what == "fetching torch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "cache", interrupt)
    assert not list((tmp_path / "cache").glob("imx500-*[0-9a-f]"))
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_two_at_once_make_it_once(python: Callable[..., Path], tmp_path: Path) -> None:
    python(f"sleep 0.3; {FILLS}")
    threads = [threading.Thread(target=prepare, args=(tmp_path / "cache",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls(tmp_path)) == 2


def test_a_python_without_venv(program: Program, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = program("python3", '#!/bin/sh\necho "ensurepip is not available"; exit 1\n')
    monkeypatch.setattr(module, "find_python", lambda: str(path))
    with pytest.raises(ToolsError, match=r"ensurepip is not available.*python3-venv"):
        prepare(tmp_path / "cache")


@pytest.mark.parametrize("name", ["a b", "a;b", "$(a)", "a'b"])
def test_paths_that_the_converter_would_break_on(name: str, tmp_path: Path) -> None:
    with pytest.raises(ToolsError, match="--tools"):
        prepare(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "picosam2"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "picosam2"


# --- Python and Java ----------------------------------------------------------------------------


def test_this_python_is_used_if_it_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert find_python() == sys.executable


def test_a_newer_python_looks_for_an_older_one(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ToolsError, match=r"3\.10 to 3\.12, and there is only 3\.14"):
        find_python()
    older = program("python3.11", "#!/bin/sh\n")
    assert find_python() == str(older)


def java(version: str) -> str:
    return f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n"


@pytest.mark.parametrize("version", ["17", "17.0.15", "21.0.1", "25-ea"])
def test_java_on_the_path(version: str, program: Program, tmp_path: Path) -> None:
    program("java", java(version))
    java_found = find_java({"PATH": str(tmp_path / "bin")})
    assert (java_found.version, java_found.folder) == (version, tmp_path / "bin")
    assert java_found.variables()["PATH"].startswith(str(tmp_path / "bin") + os.pathsep)


def test_java_by_its_home(program: Program, tmp_path: Path) -> None:
    program("java", java("17.0.15"))
    java_found = find_java({"PATH": "", "JAVA_HOME": str(tmp_path)})
    assert java_found.folder == tmp_path / "bin"


def test_no_java() -> None:
    with pytest.raises(ToolsError, match="needs Java, and there is none: install Java 17"):
        find_java({"PATH": ""})


@pytest.mark.parametrize("version", ["1.8.0_292", "11.0.2", "16"])
def test_java_that_is_too_old(version: str, program: Program, tmp_path: Path) -> None:
    program("java", java(version))
    with pytest.raises(ToolsError, match=f"newer Java than {version}.*install Java 17"):
        find_java({"PATH": str(tmp_path / "bin")})


def test_java_that_does_not_start(program: Program, tmp_path: Path) -> None:
    """As the stub that macOS has where no Java is installed."""
    program("java", "#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2; exit 1\n")
    with pytest.raises(ToolsError, match="does not say which version"):
        find_java({"PATH": str(tmp_path / "bin")})
