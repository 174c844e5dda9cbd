"""The Dockerfile and compose.yaml: linted, held against the schema, and the image's steps run."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/picosam2"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments on one line."""
    text = (ROOT / "Dockerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, rest) for name, rest in lines]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def beside_python(program: str) -> str:
    """A program of this environment, or a skip."""
    path = shutil.which(
        program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        [beside_python("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_compose_follows_its_schema() -> None:
    words = [beside_python("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*words, ROOT / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_as_nobody_in_particular_and_is_asked_how_it_is() -> None:
    (user,) = values("USER")
    assert int(user) > 0
    (check,) = values("HEALTHCHECK")
    assert "/health" in check
    assert json.loads(values("ENTRYPOINT")[0]) == ["picosam2"]


def python_for_all() -> Path:
    """A Python that other users of the machine can run, too, or a skip."""
    for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3")):
        if path.is_file() and all(parent.stat().st_mode & 0o001 for parent in path.parents):
            made = subprocess.run([path, "-c", "import ensurepip, tomllib"], capture_output=True)
            if made.returncode == 0:
                return path
    pytest.skip("no Python of 3.11 or newer is open to other users")


@pytest.mark.slow
def test_the_steps_of_the_image(tmp_path: Path) -> None:
    """COPY and RUN of the first stage in a clean folder, then the server as the second's user."""
    if os.geteuid() != 0:
        pytest.skip("only root can run the server as the image's user")
    build, prefix = tmp_path / "build", tmp_path / "picosam2"
    build.mkdir()
    for copied in values("COPY"):
        if copied.startswith("--from"):
            continue
        *sources, target = copied.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, build / target)
            else:
                shutil.copy(ROOT / source, build / target)
    python = python_for_all()
    for step in values("RUN"):
        if step.startswith("useradd"):
            continue
        command = step.replace(PREFIX, str(prefix)).replace("python -m venv", f"{python} -m venv")
        subprocess.run(command, shell=True, cwd=build, check=True)
    assert not list((prefix / "bin").glob("pip*"))
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.owner() == "root" and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    (user,) = values("USER")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    entry = json.loads(values("ENTRYPOINT")[0])
    words = [*entry, *json.loads(values("CMD")[-1])]
    words = [port if word == "8428" else word for word in words]
    words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]
    environment = {"PATH": f"{prefix}/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    words[0] = str(prefix / "bin" / words[0])
    server = subprocess.Popen(
        words, env=environment, cwd="/", user=int(user), group=int(user), extra_groups=[]
    )
    try:
        until = time.monotonic() + 120
        while True:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < until, "the server does not answer"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                    break
            except OSError:
                time.sleep(0.2)
        (check,) = values("HEALTHCHECK")
        command = json.loads(check[check.index("[") :])
        command = [
            str(prefix / "bin" / command[0]),
            *(w.replace("8428", port) for w in command[1:]),
        ]
        subprocess.run(command, env=environment, check=True, user=int(user))
    finally:
        server.terminate()
        server.wait(30)
