"""Load on `picosam2 serve`: requests a second and latency at 8 clients, and whether memory stays.

    python benchmarks/serve.py --weights default --requests 10000

A server is started on 127.0.0.1 and stopped at the end; nothing else is ever called. Clients click
on a session (one box, JSON back) for most requests; a tenth of the number uploads the image each
time. The in-process rate is the same work by as many threads as the server has workers, without
HTTP; both take turns in ten rounds, and the ratio is the middle one of theirs. The clients need
processor time, too: on the server's own cores they are part of its latency. Memory is what the
server says of itself in /metrics.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import parser, report, taken

from picosam2 import Predictor, load_image
from picosam2.cli._exit_codes import run_script
from picosam2.io.sample_image import sample_bytes
from picosam2.prompts import Box, Prompt

BOX = (310, 303, 396, 394)
GROWTH = "memory at the end / after the first tenth"
MOST_SECONDS = 1800  # for any part of this, whatever the machine does


class InProcess:
    """The server's work without HTTP: a mask, as JSON, in as many threads as it has workers."""

    def __init__(self, weights: str, workers: int) -> None:
        self._predictor = Predictor(weights, threads=1)
        self._image = load_image(sample_bytes())
        self._prompts = [Prompt(box=Box(*BOX))]
        self._workers = workers
        self.rate(2 * workers)  # what is slow the first time

    def rate(self, count: int) -> float:
        """Answers a second."""
        with ThreadPoolExecutor(self._workers) as pool:
            started = time.perf_counter()
            list(pool.map(self._work, range(count)))
            return count / (time.perf_counter() - started)

    def _work(self, _: int) -> int:
        segmentations = self._predictor(self._image, prompts=self._prompts)
        return len(json.dumps([segmentation.to_json() for segmentation in segmentations]))


class Load:
    """Clients that each send one request after another over a connection of their own."""

    def __init__(self, port: int, clients: int) -> None:
        self.port, self.clients = port, clients
        self.deadline = time.monotonic() + MOST_SECONDS

    def run(
        self,
        count: int,
        send: Callable[[http.client.HTTPConnection], http.client.HTTPResponse],
    ) -> tuple[float, np.ndarray]:
        """Requests a second, and the seconds of each, for `count` requests in all."""
        left, lock = [count], threading.Lock()
        spent: list[float] = []

        def client() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            while time.monotonic() < self.deadline:
                with lock:
                    if not left[0]:
                        break
                    left[0] -= 1
                started = time.perf_counter()
                answer = send(connection)
                body = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status}: {body[:200]!r}")
                spent.append(time.perf_counter() - started)
            connection.close()

        started = time.perf_counter()
        with ThreadPoolExecutor(self.clients) as pool:
            futures = [pool.submit(client) for _ in range(self.clients)]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.deadline = 0  # the others stop after the request under way
                raise
        return len(spent) / (time.perf_counter() - started), np.array(spent)

    def memory(self) -> float:
        """The server's resident memory, MB."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        match = re.search(r"^picosam2_resident_memory_bytes (\S+)", text, re.MULTILINE)
        return float(match[1]) / 1e6 if match else float("nan")


def main() -> None:
    """Start a server, load it, stop it."""
    command = parser(__doc__)
    command.add_argument("--weights", default="default")
    command.add_argument("--requests", type=int, default=10_000)
    command.add_argument("--clients", type=int, default=8)
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = command.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped, too
    bare = InProcess(options.weights, options.workers)
    words = [sys.executable, "-m", "picosam2", "serve", "--port", "0"]
    words += ["--weights", options.weights, "--workers", str(options.workers)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        load = Load(int(address.rpartition(":")[2]), options.clients)
        connection = http.client.HTTPConnection("127.0.0.1", load.port, timeout=120)
        headers = {"Content-Type": "image/jpeg"}
        connection.request("POST", "/v1/sessions", sample_bytes(), headers)  # waits for the start
        session = json.loads(connection.getresponse().read())["session"]
        connection.close()
        body = json.dumps({"prompts": [{"box": BOX}]})

        def click(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            url = f"/v1/sessions/{session}/segment"
            connection.request("POST", url, body, {"Content-Type": "application/json"})
            return connection.getresponse()

        def upload(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            url = f"/v1/segment?box={','.join(map(str, BOX))}"
            connection.request("POST", url, sample_bytes(), {"Content-Type": "image/jpeg"})
            return connection.getresponse()

        rates, bare_rates, times, memory = [], [], [], [load.memory()]
        part = max(options.requests // 10, 1)
        for _ in range(10):
            bare_rates.append(bare.rate(max(part // 10, 10)))
            served, seconds = load.run(part, click)
            rates.append(served)
            times.append(seconds)
            memory.append(load.memory())
        served, seconds = load.run(part, upload)
        memory.append(load.memory())
    finally:
        server.terminate()
        server.wait(60)
    clicks = 1e3 * np.concatenate(times)
    numbers = {
        f"in process, {options.workers} threads: answers/s": mean_rate(bare_rates),
        f"clicks on a session, {options.clients} clients: requests/s": mean_rate(rates),
        "clicks on a session / in process": float(np.median(np.divide(rates, bare_rates))),
        "a click: median, ms": float(np.quantile(clicks, 0.5)),
        "a click: p99, ms": float(np.quantile(clicks, 0.99)),
        "uploads: requests/s": served,
        "an upload: p99, ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "requests": float(len(clicks) + len(seconds)),
        "memory at the start, MB": memory[0],
        "memory after the first tenth, MB": memory[1],
        "memory at the end, MB": memory[-1],
        GROWTH: memory[-1] / memory[1],
    }
    report(numbers, {GROWTH: ("<=", 1.1)}, taken(("starlette", "uvicorn")), options.json)


def mean_rate(rates: list[float]) -> float:
    """The rate over rounds of the same number of requests."""
    return len(rates) / sum(1 / rate for rate in rates)


if __name__ == "__main__":
    run_script(main)
