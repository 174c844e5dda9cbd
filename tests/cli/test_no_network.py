"""In a fresh home and without a network: nothing is written there, and nobody is called.

The runs happen in an empty network namespace (Linux, `unshare`) under `strace`, which names every
socket that is opened or connected. Where either is missing, they are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from picosam2.io.sample_image import sample_bytes

UNSHARE = ["unshare", "--map-root-user", "--net"]
PYTHON = """
import picosam2
masks = picosam2.segment(picosam2.sample(), points=[(353, 349)])
assert masks[0].area > 0
"""
SERVER = """
import asyncio, sys
from starlette.testclient import TestClient
from picosam2.apps.http.app import create_app
from picosam2.predictor import Predictor
with open("sample.jpg", "rb") as file, TestClient(
    create_app(Predictor()), base_url="http://127.0.0.1:8428"
) as client:
    answer = client.post(
        "/v1/segment?point=353,349", content=file.read(), headers={"content-type": "image/jpeg"}
    )
    assert answer.status_code == 200, answer.text
"""
SERVE = """
import http.client, os, signal, subprocess, sys, time
os.system("ip link set lo up")
words = [sys.executable, "-m", "picosam2", "serve", "--port", "0"]
server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
port = int(server.stdout.readline().strip().rpartition(":")[2])
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
connection.request("POST", "/v1/segment?point=353,349", open("sample.jpg", "rb").read(),
                   {"content-type": "image/jpeg"})
answer = connection.getresponse()
assert answer.status == 200, answer.read()
answer.read()
time.sleep(10)  # onnxruntime would call its makers after nine seconds
server.send_signal(signal.SIGINT)
assert server.wait(30) == 0
"""


def _can_unshare() -> bool:
    if not (shutil.which("unshare") and shutil.which("strace")):
        return False
    words = [*UNSHARE, "strace", "-f", "-o", os.devnull, "true"]
    return subprocess.run(words, capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not _can_unshare(), reason="needs unshare, strace and the right")


def run(tmp_path: Path, *words: str) -> list[str]:
    """Run Python with these arguments; the lines of strace that name addresses of a network."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "sample.jpg").write_bytes(sample_bytes())
    named = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in named}
    trace = tmp_path / "trace"
    done = subprocess.run(
        [*UNSHARE, "strace", "-f", "-e", "trace=socket,connect,sendto,bind", "-o", str(trace),
         sys.executable, *words],
        env={**kept, "HOME": str(home)}, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.relative_to(home).as_posix() for path in home.rglob("*")] == []
    return [line for line in trace.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]


@pytest.mark.parametrize(
    "words",
    [
        ("-c", PYTHON),
        ("-m", "picosam2", "segment", "sample.jpg", "--point", "353,349", "--out", "out.png"),
        ("-m", "picosam2", "segment", ".", "--box", "310,303,396,394", "--format", "coco",
         "--out", "out"),
        ("-m", "picosam2", "everything", "sample.jpg", "--out", "out.png"),
    ],
    ids=["python", "command", "folder", "everything"],
)  # fmt: skip
def test_prediction_opens_no_socket(words: tuple[str, ...], tmp_path: Path) -> None:
    assert run(tmp_path, *words) == []


def test_the_server_s_own_code_opens_no_socket(tmp_path: Path) -> None:
    pytest.importorskip("starlette", reason="the server is an extra")
    pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
    assert run(tmp_path, "-c", SERVER) == []


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ip"), reason="needs ip, for the loopback device")
def test_a_server_talks_to_its_clients_only(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="the server is an extra")
    lines = run(tmp_path, "-c", SERVE)
    used = [line for line in lines if "socket(" not in line]
    assert used  # the server's own
    assert [line for line in used if "127.0.0.1" not in line] == []
