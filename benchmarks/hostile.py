"""What hostile clients do to the others of `picosam2 serve`: latency and memory under attack.

    python benchmarks/hostile.py --rounds 5

A server is started on 127.0.0.1 and stopped at the end; nothing else is ever called. A client
clicks on a session and uploads the sample, alone and under attack in turns, a thousand clicks of
each by default, so that ten are slower than the 99th percentile:

- three hostile images in flight all the time: a JPEG of 20,000 scans, a PNG of 19 megapixels of
  noise cut short, an animated WebP that names 268 megapixels, a PNM file, a TIFF file of tiles, and
  a JPEG of 24 megapixels in 90 scans, which takes seconds;
- 300 connections that send nothing, half of the headers, or half of a body. Those that the server
  closes are opened anew within a second.

The attackers are in a process of their own that gives way to the server (nice 5), since they would
be on other machines; they have begun before the first click of a part is timed.

Then 64 clients ask for masks and leave at once (the processor time that the server spends on
them), and 200 clients upload 19 MB at once (the largest memory of the server and its decoders).
"""

from __future__ import annotations

import http.client
import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from common import parser, report, taken
from PIL import Image

from picosam2.cli._exit_codes import run_script
from picosam2.io.sample_image import sample_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.helpers.hostile import (
    animated_webp,
    commented_ppm,
    progressive_jpeg,
    tiled_tiff,
)

BOX = [310, 303, 396, 394]
CLICK = json.dumps({"prompts": [{"box": BOX}]})
CUT = f"/v1/segment?box={','.join(map(str, BOX))}"
UNDER_IMAGES = "a click's p99 with 3 hostile images in flight / quiet"
SILENT = 300
UPLOAD_UNDER_IMAGES = "an upload's p99 with 3 hostile images in flight / quiet"
UNDER_SILENCE = "a click's p99 beside 300 silent connections / quiet"
ABANDONED = "processor seconds for 64 clicks whose clients are gone"
PARTS = ("images", "silence", "abandoned", "uploads")
MEMORY = "largest memory with 200 uploads of 19 MB, server, MB"


class Target:
    """A server in a process of its own."""

    def __init__(self, weights: str) -> None:
        words = [sys.executable, "-m", "picosam2", "serve", "--port", "0", "--weights", weights]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().strip().rpartition(":")[2])
        answer = self.ask("/v1/sessions", sample_bytes(), "image/jpeg")
        self.click = f"/v1/sessions/{json.loads(answer[1])['session']}/segment"

    def ask(self, path: str, body: bytes | str, kind: str) -> tuple[int, bytes]:
        """The status and body of an answer; 0 if the connection was closed."""
        return ask(self.port, path, body, kind)

    def times(self, count: int) -> tuple[list[float], list[float]]:
        """Seconds of `count` clicks, and of a third as many uploads."""
        clicks, uploads = [], []
        for number in range(count):
            clicks.append(self._took(self.click, CLICK, "application/json"))
            if number % 3 == 0:
                uploads.append(self._took(CUT, sample_bytes(), "image/jpeg"))
        return clicks, uploads

    def _took(self, path: str, body: bytes | str, kind: str) -> float:
        started = time.perf_counter()
        status, answer = self.ask(path, body, kind)
        if status != 200:
            raise RuntimeError(f"{status}: {answer[:200]!r}")
        return time.perf_counter() - started

    def processor_seconds(self) -> float:
        """Of the server and its decoders."""
        return sum(
            sum(map(int, stat.rpartition(")")[2].split()[11:15])) for stat in self._files("stat")
        ) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[float, float]:
        """MB now: of the server, and of all its processes."""
        sizes = [int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
                 for text in self._files("statm")]  # fmt: skip
        return sizes[0], sum(sizes)

    def _files(self, name: str) -> list[str]:
        """/proc/PID/name of the server, first, and of its decoders."""
        own = self.process.pid
        threads = Path(f"/proc/{own}/task").glob("*/children")  # each has children of its own
        children = [pid for thread in threads for pid in thread.read_text().split()]
        texts = []
        for pid in (str(own), *children):
            try:
                texts.append(Path(f"/proc/{pid}/{name}").read_text())
            except OSError:  # it has ended
                continue
        return texts


def ask(port: int, path: str, body: bytes | str, kind: str) -> tuple[int, bytes]:
    """The status and body of a server's answer; 0 if the connection was closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def noise_png(megapixels: float, keep: float = 1.0) -> bytes:
    """A PNG file of noise; only the first part of it is kept."""
    side = round((megapixels * 1e6) ** 0.5)
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()[: int(keep * buffer.tell())]


@contextmanager
def attackers(attack: Callable[[int, Connection], None], target: Target) -> Iterator[None]:
    """Within the block `attack` runs in a process of its own, which says when it has begun."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=attack, args=(target.port, theirs), daemon=True)
    process.start()
    try:
        ours.recv()
        yield
    finally:
        process.kill()
        process.join()
    target.times(1)  # nothing of it is under way any more when the next part begins


def send_hostile_images(port: int, ready: Connection) -> None:
    """Keep three hostile images in flight."""
    os.nice(5)  # other machines' clients would not take the processor from the server
    images = cycle(
        [progressive_jpeg(), noise_png(19, 0.95), animated_webp(), commented_ppm(), tiled_tiff(),
         progressive_jpeg(90, 4900)]
    )  # fmt: skip
    lock = threading.Lock()

    def attack() -> None:
        while True:
            with lock:
                image = next(images)
            ask(port, CUT, image, "image/png")

    threads = [threading.Thread(target=attack) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    ready.send("ready")
    threads[0].join()


def stay_silent(port: int, ready: Connection) -> None:
    """Hold 300 connections that send nothing, or half of a request; open those anew that close."""
    os.nice(5)
    head = "POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    starts = ["", head, f"{head}Content-Type: image/png\r\nContent-Length: 999\r\n\r\nabc"]
    open_now: list[socket.socket | None] = [None] * SILENT
    opened = False
    while True:
        for number, connection in enumerate(open_now):
            if connection is None or is_closed(connection):
                if connection is not None:
                    connection.close()
                connection = socket.create_connection(("127.0.0.1", port), timeout=30)
                connection.sendall(starts[number % 3].encode())
                connection.setblocking(False)
                open_now[number] = connection
        if not opened:
            ready.send("ready")
            opened = True
        time.sleep(1)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection that waits for nothing."""
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def abandon(target: Target, count: int) -> float:
    """Ask for masks and leave at once; the processor seconds that this costs the server."""
    body = json.dumps({"prompts": [{"points": [[353, 349]]}] * 16})
    head = f"POST {target.click} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    before = target.processor_seconds()
    connections = []
    for _ in range(count):
        connections.append(socket.create_connection(("127.0.0.1", target.port), timeout=30))
        connections[-1].sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    for connection in connections:
        connection.close()
    target.times(1)  # it is answered once what was begun is done
    return target.processor_seconds() - before


def upload(target: Target, count: int, size: int) -> dict[str, float]:
    """Upload `size` bytes from `count` clients at once; memory in MB, and the answers."""
    data = noise_png(size / 1e6 * 0.98)
    largest = [target.memory()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            largest.append(target.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(count) as pool:
        statuses = list(pool.map(lambda _: target.ask(CUT, data, "image/png")[0], range(count)))
    done.set()
    watcher.join()
    return {
        MEMORY: max(own for own, _ in largest),
        "the same with its decoders, MB": max(total for _, total in largest),
        "uploads of these that were answered": statuses.count(200),
        "uploads that were told to come again (503)": statuses.count(503),
        "uploads whose connection was closed": statuses.count(0),
        "uploads that took too long to decode (400)": statuses.count(400),
    }


def p99(seconds: list[float]) -> float:
    """The 99th percentile."""
    return float(np.quantile(seconds, 0.99))


def median_ratio(seconds: dict[str, list[float]], attack: str) -> float:
    """How much longer half of the requests take under attack."""
    return float(np.median(seconds[attack]) / np.median(seconds["quiet"]))


def times_under_attack(
    target: Target, attacks: Collection[str], rounds: int, clicks: int
) -> dict[str, float]:
    """How much longer clicks and uploads take beside each of `attacks` than alone."""
    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "quiet": nullcontext,
        "images": partial(attackers, send_hostile_images, target),
        "silence": partial(attackers, stay_silent, target),
    }
    served: dict[str, list[float]] = {name: [] for name in ("quiet", *attacks)}
    sent: dict[str, list[float]] = {name: [] for name in served}
    for _ in range(rounds):
        for name in served:
            with ways[name]():
                of_clicks, of_uploads = target.times(clicks)
            served[name] += of_clicks
            sent[name] += of_uploads
    numbers = {
        "clicks of each kind": len(served["quiet"]),
        "a click's p99, quiet, ms": 1e3 * p99(served["quiet"]),
        "an upload's p99, quiet, ms": 1e3 * p99(sent["quiet"]),
    }
    if "images" in attacks:
        numbers |= {
            UNDER_IMAGES: p99(served["images"]) / p99(served["quiet"]),
            UPLOAD_UNDER_IMAGES: p99(sent["images"]) / p99(sent["quiet"]),
            "the same ratio of medians, clicks beside 3 images": median_ratio(served, "images"),
        }
    if "silence" in attacks:
        numbers |= {
            UNDER_SILENCE: p99(served["silence"]) / p99(served["quiet"]),
            "the same ratio of medians, 300 silent connections": median_ratio(served, "silence"),
        }
    return numbers


def main() -> None:
    """Start a server, attack it, stop it."""
    command = parser(__doc__)
    command.add_argument("--weights", default="default")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--clicks", type=int, default=200, help="in each round")
    command.add_argument("--uploads", type=int, default=200)
    command.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these attacks")
    options = command.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped, too
    target = Target(options.weights)
    numbers: dict[str, float] = {}
    try:
        target.times(10)  # what is slow the first time
        attacks = [name for name in ("images", "silence") if name in options.only]
        if attacks:
            numbers |= times_under_attack(target, attacks, options.rounds, options.clicks)
        if "abandoned" in options.only:
            before = target.processor_seconds()
            target.times(20)
            numbers["processor seconds for one click"] = (target.processor_seconds() - before) / 27
            numbers[ABANDONED] = abandon(target, 64)
        if "uploads" in options.only:
            numbers |= upload(target, options.uploads, 19_000_000)
    finally:
        target.process.terminate()
        target.process.wait(60)
    limits = {
        UNDER_IMAGES: ("<=", 2.0),
        UPLOAD_UNDER_IMAGES: ("<=", 2.0),
        UNDER_SILENCE: ("<=", 2.0),
        MEMORY: ("<=", 800.0),
    }
    limits = {name: limit for name, limit in limits.items() if name in numbers}
    report(numbers, limits, taken(("fastapi", "uvicorn")), options.json)


if __name__ == "__main__":
    run_script(main)
