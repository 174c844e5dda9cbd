"""The Python environment that Sony's tools live in, made once and kept.

The tools pin old versions of half of the numerical Python world, so they get an environment of
their own: a folder made by `venv` and filled by pip. It is named after what is in it, and the file
`complete.json` is written into it last; a folder without that file was left by an interruption and
is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from picosam2._files import write_json
from picosam2._progress import Progress
from picosam2.errors import PicoSAM2Error
from picosam2.export.imx500.processes import last_lines, run

PINS = (
    "torch==2.13.0",
    "torchvision==0.28.0",
    "edge-mdt[pt]==1.3.0",
    "edge-mdt-tpc==1.3.0",
    "model-compression-toolkit==2.5.1",
    "mct-quantizers==1.6.0",
    "imx500-converter[pt]==3.18.2",
    "onnx==1.17.0",
    "onnxscript==0.7.2",
)
"""Versions that were seen to work together, by running them. Newer ones of the toolkit (2.6.1) and
of the converter (3.19.2) need different releases of mct-quantizers and cannot share a folder."""

PYTHONS = ((3, 10), (3, 12))
"""The oldest and the newest Python that the converter takes."""

JAVA = 17
"""The oldest Java that the converter runs on."""

_MARK = "complete.json"
_NETWORK = re.compile(
    r"NewConnectionError|Temporary failure in name resolution|Name or service not known"
    r"|Network is unreachable|Connection refused|ConnectTimeout|Read timed out|ProxyError"
    r"|getaddrinfo failed|Max retries exceeded"
)


class ToolsError(PicoSAM2Error):
    """Sony's tools, or the Java they need, are missing and could not be installed."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A complete environment."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def converter(self) -> Path:
        """The converter from ONNX to what the sensor runs."""
        return self.folder / "bin" / "imxconv-pt"


@dataclass(frozen=True, kw_only=True)
class Java:
    """The Java that the converter is going to find."""

    version: str
    folder: Path
    """Of the program `java`."""

    def variables(self) -> dict[str, str]:
        """This process's variables, with its folder first on the path."""
        return {**os.environ, "PATH": os.pathsep.join((str(self.folder), os.environ["PATH"]))}


def default_folder() -> Path:
    """Where environments are kept: `$XDG_CACHE_HOME/picosam2`, or `~/.cache/picosam2`."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "picosam2"


def find_java(variables: Mapping[str, str] = os.environ) -> Java:
    """The Java on the path, or the one that JAVA_HOME names.

    Raises:
        ToolsError: there is none, or it is older than `JAVA`.
    """
    java = shutil.which("java", path=variables.get("PATH"))
    if java is None and (home := variables.get("JAVA_HOME")):
        java = shutil.which("java", path=str(Path(home) / "bin"))
    wanted = f"install Java {JAVA} or newer, for instance `apt install openjdk-{JAVA}-jre-headless`"
    if java is None:
        raise ToolsError(f"Sony's converter needs Java, and there is none: {wanted}")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "((?:1\.)?(\d+)[^"]*)"', done.stderr + done.stdout)
    if done.returncode != 0 or version is None:
        raise ToolsError(f"{java} does not say which version of Java it is: {wanted}")
    if int(version[2]) < JAVA:
        raise ToolsError(
            f"Sony's converter needs a newer Java than {version[1]} ({java}): {wanted}"
        )
    return Java(version=version[1], folder=Path(java).parent)


def prepare(folder: Path | None = None, progress: Progress | None = None) -> Environment:
    """The environment below `folder` (`default_folder()` if None), made if it is not there yet.

    Making it fetches about 2 GB through pip, whose own settings hold (index, proxy, cache). Of two
    processes that ask at once, one waits for the other.

    Raises:
        ToolsError: no Python that the tools run on, no package index in reach, or pip failed.
    """
    root = (folder or default_folder()).absolute()
    refuse_quoted(root, "--tools")
    python = find_python()
    home = root / f"imx500-{fingerprint(python)}"
    environment = Environment(folder=home)
    if _is_complete(environment):
        return environment
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / "imx500.lock"):
        if not _is_complete(environment):
            _make(environment, python, root / "imx500-install.log", progress or _silent)
    return environment


def refuse_quoted(path: Path, option: str) -> None:
    """Raise `ToolsError` for a path that a shell needs quotes for: the converter uses none.

    `option` sets it.
    """
    if not re.fullmatch(r"[\w./+,=@-]+", str(path)):
        raise ToolsError(
            f"Sony's converter cannot work in {path}: choose a folder whose path has only letters, "
            f"digits and ._+,=@- with {option}"
        )


def fingerprint(python: str) -> str:
    """The name of an environment, from its pinned versions and its Python."""
    return hashlib.sha256(json.dumps([PINS, python]).encode()).hexdigest()[:12]


def find_python() -> str:
    """A Python that the converter runs on: this one if it will do, else the newest on the path."""
    low, high = PYTHONS
    if low <= sys.version_info[:2] <= high:
        return sys.executable
    for minor in range(high[1], low[1] - 1, -1):
        if python := shutil.which(f"python3.{minor}"):
            return python
    here = ".".join(map(str, sys.version_info[:2]))
    raise ToolsError(
        f"Sony's tools run on Python 3.{low[1]} to 3.{high[1]}, and there is only {here}: install "
        f"Python 3.{high[1]} so that `python3.{high[1]}` can be found"
    )


def _is_complete(environment: Environment) -> bool:
    mark = environment.folder / _MARK
    return mark.is_file() and environment.python.exists() and environment.converter.exists()


def _make(environment: Environment, python: str, log: Path, progress: Progress) -> None:
    home = environment.folder
    shutil.rmtree(home, ignore_errors=True)  # of a run that was interrupted
    log.unlink(missing_ok=True)
    try:
        progress(0, what="making an environment for Sony's tools")
        if run([python, "-m", "venv", str(home)], log=log, on_line=lambda _: None):
            raise ToolsError(
                f"`{python} -m venv` failed ({last_lines(log)}): on Debian, `apt install "
                f"python3-venv`; the log is {log}"
            )
        count = 0

        def on_line(line: str) -> None:
            nonlocal count
            if line.startswith(("Collecting ", "Processing ")):
                count += 1
                package = re.split("[ =<>!~;(]", line)[1].split("/")[-1]
                progress(count, what=f"fetching {package}")
            elif line.startswith("Installing collected packages"):
                progress(count, what="installing Sony's tools")

        pip = [
            str(environment.python),
            "-m",
            "pip",
            "install",
            "--no-input",
            "--progress-bar",
            "off",
        ]
        code = run([*pip, "--disable-pip-version-check", *PINS], log=log, on_line=on_line)
        if code != 0:
            raise ToolsError(_why_pip_failed(log))
        write_json(home / _MARK, {"pins": PINS, "python": python})
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise


def _why_pip_failed(log: Path) -> str:
    text = log.read_text("utf-8", "replace")
    if _NETWORK.search(text):
        return (
            "Sony's tools could not be fetched, as pip reached no package index: check the network "
            f"or pip's settings and run it again (log: {log})"
        )
    errors = [line for line in text.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else last_lines(log)
    return f"Sony's tools could not be installed: {reason} (log: {log})"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, however that happens
        yield


def _silent(
    done: int, total: int | None = None, *, what: str | None = None, note: str = ""
) -> None:
    pass
