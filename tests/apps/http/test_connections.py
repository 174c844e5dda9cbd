"""Connections that send nothing, or half of a request, to a real server on loopback."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server is an extra")

import uvicorn

from picosam2.apps.http.app import create_app
from picosam2.apps.http.connections import guarded_protocol
from picosam2.apps.http.limits import Limits
from picosam2.io.sample_image import sample_bytes
from picosam2.predictor import Predictor
from tests.helpers.hostile import animated_webp, commented_ppm, progressive_jpeg, tiled_tiff

CLICK = json.dumps({"prompts": [{"box": [310, 303, 396, 394]}]})


@contextmanager
def serving(predictor: Predictor, limits: Limits) -> Iterator[int]:
    """The port of a server in a thread."""
    app = create_app(predictor, limits, workers=1)
    config = uvicorn.Config(
        app, log_level="error", http=guarded_protocol(limits), timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def predictor(tiny_onnx: Path) -> Predictor:
    return Predictor(tiny_onnx, threads=1)


def connect(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(data)
    return connection


def ask(port: int, path: str = "/health", body: bytes = b"", seconds: float = 20) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    headers = {"Content-Type": "image/jpeg"}
    connection.request("POST" if body else "GET", path, body or None, headers if body else {})
    status = connection.getresponse().status
    connection.close()
    return status


def wait_for(true: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def answer_so_far(connection: socket.socket) -> bytes:
    connection.settimeout(0.05)
    try:
        return connection.recv(1000)
    except TimeoutError:
        return b""


def whole_answer(connection: socket.socket) -> tuple[int, bytes]:
    """The status and body of the next answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


@pytest.mark.parametrize(
    "start",
    [b"", b"POST /v1/segm", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
     b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /health HTTP/1.1\r\nHo"],
)  # fmt: skip
def test_headers_that_do_not_come_end_the_connection(predictor: Predictor, start: bytes) -> None:
    with serving(predictor, Limits(header_seconds=0.5)) as port:
        assert ask(port) == 200
        with connect(port, start) as silent:
            if b"\r\n\r\n" in start:
                assert silent.recv(1000).startswith(b"HTTP/1.1 200")
            assert not is_closed(silent)
            assert wait_for(lambda: is_closed(silent))


def test_a_body_may_take_longer_than_headers(predictor: Predictor) -> None:
    body = sample_bytes()
    head = f"POST /v1/segment?point=9,9 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}"
    with serving(predictor, Limits(header_seconds=0.3)) as port:
        kind = "\r\nContent-Type: image/jpeg\r\n\r\n"
        with connect(port, (head + kind).encode() + body[:1000]) as slow:
            time.sleep(0.8)
            slow.sendall(body[1000:])
            assert slow.recv(1000).startswith(b"HTTP/1.1 200")


def test_silent_connections_do_not_block_others(predictor: Predictor) -> None:
    starts = (b"", b"GET / HT", b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\n"
              b"Content-Type: image/png\r\nContent-Length: 999\r\n\r\nabc")  # fmt: skip
    limits = Limits(connections=20, header_seconds=60)
    with serving(predictor, limits) as port, ExitStack() as stack:
        held = [stack.enter_context(connect(port, starts[i % 3])) for i in range(100)]
        assert [ask(port) for _ in range(10)] == [200] * 10
        assert ask(port, "/v1/segment?point=9,9", sample_bytes()) == 200
        assert wait_for(lambda: all(is_closed(each) for each in held[:60]))
        assert not is_closed(held[-1])


def test_work_for_a_client_that_is_gone_stops(predictor: Predictor) -> None:
    """One slow request holds the only worker; those behind it leave, and are not worked on."""
    calls = []
    original = predictor.runtime

    class Slow:
        info = original.info

        def __call__(self, crops):  # type: ignore[no-untyped-def]
            calls.append(len(crops))
            time.sleep(0.3)
            return original(crops)

    slow = Predictor(Slow())  # type: ignore[arg-type]
    image = sample_bytes()
    with serving(slow, Limits()) as port:
        session = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        session.request("POST", "/v1/sessions", image, {"Content-Type": "image/jpeg"})
        name = json.loads(session.getresponse().read())["session"]
        session.close()
        head = (
            f"POST /v1/sessions/{name}/segment HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(CLICK)}\r\n\r\n{CLICK}"
        )
        abandoned = [connect(port, head.encode()) for _ in range(30)]
        assert wait_for(lambda: len(calls) >= 1)
        for each in abandoned:
            each.close()
        before = time.monotonic()
        assert ask(port) == 200
        session.request("POST", f"/v1/sessions/{name}/segment", CLICK,
                        {"Content-Type": "application/json"})  # fmt: skip
        assert session.getresponse().status == 200
        session.close()
        assert time.monotonic() - before < 5  # all of them would be 9 seconds and more
        assert len(calls) < 15


def test_hostile_images_leave_the_server_to_others(predictor: Predictor) -> None:
    hostile = progressive_jpeg(5000, 1000)
    with serving(predictor, Limits(decode_seconds=1)) as port:
        statuses: list[int] = []

        def attack() -> None:
            statuses.append(ask(port, "/v1/segment?point=9,9", hostile))

        threads = [threading.Thread(target=attack) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert ask(port, "/v1/segment?point=9,9", sample_bytes()) == 200
        for thread in threads:
            thread.join(20)
        assert statuses == [400] * 8


UPLOAD = (b"POST /v1/segment?point=9,9 HTTP/1.1\r\nHost: localhost\r\n"
          b"Content-Type: image/jpeg\r\nContent-Length: 999999\r\n\r\n")  # fmt: skip


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (commented_ppm(100), b"is a PPM image: convert it to JPEG, PNG or WEBP first"),
        (tiled_tiff(100), b"is a TIFF image"),
        (b"x" * 999, b"is not an image"),
        (animated_webp() + bytes(99), b"the limit is 25 million"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x40\0\0\0\x40\0" + bytes(99),
         b"16384 x 16384 pixels, and the limit is 25 million"),
    ],
)  # fmt: skip
def test_an_image_is_refused_by_its_first_bytes(
    predictor: Predictor, start: bytes, message: bytes
) -> None:
    with serving(predictor, Limits()) as port, connect(port, UPLOAD + start) as upload:
        status, answer = whole_answer(upload)  # the rest of the body never comes
        assert status == 400
        assert message in answer


def test_the_rest_of_a_refused_body_is_thrown_away(predictor: Predictor) -> None:
    """And the next request on the same connection is answered."""
    body = b"x" * 999_999
    with serving(predictor, Limits(header_seconds=5)) as port, connect(port, UPLOAD) as upload:
        upload.sendall(body)
        assert whole_answer(upload)[0] == 400
        upload.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert whole_answer(upload)[0] == 200


@pytest.mark.parametrize("wait", [0.0, 0.1], ids=["fast", "slow"])
def test_a_refused_body_that_does_not_end_ends_the_connection(
    predictor: Predictor, wait: float
) -> None:
    head = UPLOAD.replace(b"Content-Length: 999999", b"Transfer-Encoding: chunked")
    limits = Limits(header_seconds=1 if wait else 60)
    with serving(predictor, limits) as port, connect(port, head) as upload:
        end = time.monotonic() + 10

        def send_on() -> None:
            while time.monotonic() < end:
                upload.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                time.sleep(wait)

        with pytest.raises(ConnectionError):
            send_on()


@pytest.fixture(scope="module")
def noise() -> bytes:
    """A PNG file whose overlay is 11 MB."""
    pixels = np.random.default_rng(0).integers(0, 256, (1900, 1900, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def ask_for_overlay(port: int, image: bytes, *headers: str) -> socket.socket:
    """A connection on which an answer of 11 MB waits, whose client reads nothing so far."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port))
    lines = [
        "POST /v1/segment?point=9,9&format=overlay HTTP/1.1", "Host: localhost",
        "Content-Type: image/png", f"Content-Length: {len(image)}", *headers, "", "",
    ]  # fmt: skip
    connection.sendall("\r\n".join(lines).encode() + image)
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def rest(connection: socket.socket) -> int:
    """How many bytes come until the end."""
    count = 0
    with suppress(ConnectionError):
        while part := connection.recv(1 << 20):
            count += len(part)
    return count


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["kept", "last"])
def test_a_client_that_does_not_read_its_answer_is_cut_off(
    predictor: Predictor, noise: bytes, headers: tuple[str, ...]
) -> None:
    with (
        serving(predictor, Limits(reading_seconds=0.5)) as port,
        ask_for_overlay(port, noise, *headers) as connection,
    ):
        time.sleep(2)
        assert rest(connection) < 9_000_000  # what the system's buffers hold


def test_a_client_that_reads_slowly_gets_its_answer(predictor: Predictor, noise: bytes) -> None:
    with (
        serving(predictor, Limits(header_seconds=0.5, reading_seconds=3)) as port,
        ask_for_overlay(port, noise, "Connection: close") as connection,
    ):
        count = 0
        while part := connection.recv(1 << 18):
            count += len(part)
            time.sleep(0.05)
        assert count > 10_500_000


def test_answers_that_nobody_reads_have_a_bound(predictor: Predictor, noise: bytes) -> None:
    limits = Limits(unsent=20_000_000)
    with serving(predictor, limits) as port, ExitStack() as stack:
        connections = [
            stack.enter_context(ask_for_overlay(port, noise, "Connection: close")) for _ in range(4)
        ]
        assert ask(port) == 200
        assert rest(connections[0]) < 9_000_000  # the first have gone
        assert rest(connections[3]) > 10_500_000


def test_clients_that_do_not_read_give_way_to_others(predictor: Predictor, noise: bytes) -> None:
    limits = Limits(connections=3)
    with serving(predictor, limits) as port, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(ask_for_overlay(port, noise, "Connection: close"))
        assert [ask(port) for _ in range(5)] == [200] * 5


def test_large_images_do_not_keep_small_ones_waiting(predictor: Predictor) -> None:
    """Many large ones wait for each other, within the limit of their pixels together."""
    large = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(large, "PNG")
    # A busy machine may take minutes for all of them; what counts here is the order.
    patience = 240.0
    with serving(predictor, Limits(pixels=10_000_000, seconds=patience)) as port:
        statuses: list[int] = []

        def attack() -> None:
            statuses.append(ask(port, "/v1/segment?point=9,9", large.getvalue(), patience))

        threads = [threading.Thread(target=attack) for _ in range(12)]
        for thread in threads:
            thread.start()
        assert ask(port, "/v1/segment?point=9,9", sample_bytes()) == 200
        before = len(statuses)
        for thread in threads:
            thread.join(patience)
        assert before < 12
        assert statuses == [200] * 12


def test_bodies_together_have_a_bound(predictor: Predictor) -> None:
    limits = Limits(body=1_000_000, bodies=1_500_000)
    with serving(predictor, limits) as port, ExitStack() as stack:
        # Two bodies that do not end leave no room for a third: one of the three is refused.
        start = b"\xff\xd8\xff" + b"x" * 99_997
        full = [stack.enter_context(connect(port, UPLOAD + 7 * start + start[:40_000]))
                for _ in range(2)]  # fmt: skip
        assert wait_for(
            lambda: (
                ask(port, "/v1/segment?point=9,9", start) == 503
                or any(answer_so_far(each).startswith(b"HTTP/1.1 503") for each in full)
            )
        )
        assert ask(port) == 200
        for each in full:
            each.close()
        assert wait_for(lambda: ask(port, "/v1/segment?point=9,9", sample_bytes()) == 200)
