"""`picosam2 serve` as a process of its own: it answers, finishes what is under way, and stops."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from picosam2.io.sample_image import sample_bytes

for module in ("starlette", "uvicorn"):
    pytest.importorskip(module, reason="the server is an extra")


@pytest.fixture
def server(tiny_onnx: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    words = ["serve", "--port", "0", "--weights", str(tiny_onnx), "--seconds", "10"]
    started = subprocess.Popen(
        [sys.executable, "-m", "picosam2", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with started:
        try:
            assert started.stdout is not None
            address = started.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), address
            yield started, int(address.rpartition(":")[2])
        finally:
            started.kill()


def test_answers_and_finishes_what_is_under_way(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = server
    body = sample_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
    # A request of which only half has arrived when the server is told to stop.
    connection.putrequest("POST", "/v1/segment?box=310,303,396,394")
    connection.putheader("Content-Type", "image/jpeg")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:1000])
    other = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while True:  # until the server has taken it up
        other.request("GET", "/metrics")
        if "picosam2_requests_in_flight 2" in other.getresponse().read().decode():
            break
    other.close()
    process.send_signal(signal.SIGTERM)
    connection.send(body[1000:])
    answer = connection.getresponse()
    assert answer.status == 200
    assert len(json.loads(answer.read())["masks"]) == 1
    connection.close()
    process.wait(30)
    assert process.returncode in (0, -signal.SIGTERM)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_ctrl_c_stops_it(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health")  # answered once all has started
    connection.getresponse().read()
    connection.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_token_nobody_could_send(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("short", "sixteen letters and spaces", "\u00fc" * 16):
        monkeypatch.setenv("PICOSAM2_TOKEN", token)
        assert "PICOSAM2_TOKEN must be 16 or more" in refused("serve", "--port", "0")


@pytest.mark.parametrize(
    ("host", "token", "warning"),
    [
        (
            "0.0.0.0",
            "",
            "WARNING: other machines may reach this server, and whoever reaches it may",
        ),
        ("0.0.0.0", "0123456789abcdef", "they must send the token"),
        ("127.0.0.1", "", None),
    ],
)
def test_a_server_that_others_reach_says_so(
    host: str, token: str, warning: str | None, tiny_onnx: Path
) -> None:
    words = ["serve", "--host", host, "--port", "0", "--weights", str(tiny_onnx)]
    with subprocess.Popen(
        [sys.executable, "-m", "picosam2", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PICOSAM2_TOKEN": token},
    ) as started:
        try:
            assert started.stdout is not None
            port = int(started.stdout.readline().strip().rpartition(":")[2])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            statuses = {}
            for path in ("/health", "/metrics"):
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                statuses[path] = answer.status
            connection.close()
        finally:
            started.terminate()
        assert started.stderr is not None
        err = started.stderr.read()
    assert statuses == {"/health": 200, "/metrics": 401 if token else 200}
    if warning is None:
        assert err == ""
    else:
        assert warning in err
        assert err.count("\n") == 1


def test_a_port_that_is_taken(refused, tiny_onnx: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused("serve", "--port", port, "--weights", tiny_onnx)
    assert f"127.0.0.1:{port} cannot be listened on" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--max-body-mb", "0"], "--max-body-mb"),
        (["--weights", "none.onnx"], "none.onnx"),
        (["--host", "no such host"], "cannot be listened on"),
    ],
)
def test_mistakes_are_told(refused, words: list[str], message: str) -> None:
    assert message in refused("serve", *(words if "--port" in words else [*words, "--port", "0"]))


def test_without_the_extra(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install '.[serve]'" in refused("serve")
