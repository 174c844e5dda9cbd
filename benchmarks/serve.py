"""Load on `picosam2 serve`: requests a second and latency at 8 clients, and whether memory stays.

    python benchmarks/serve.py --weights default --requests 10000

A server is started on 127.0.0.1 and stopped at the end; nothing else is ever called. Clients click
on a session (one box, JSON back) for most requests; a tenth of the number uploads the picture each
time. The in-process rate is the same work by as many threads as the server has workers, without
HTTP. Memory is what the server says of itself in /metrics.
"""

from __future__ import annotations

import argparse
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

from picosam2 import Predictor, load_image
from picosam2.prompts import Box, Prompt
from picosam2.samples import sample_bytes

BOX = (310, 303, 396, 394)
MOST_SECONDS = 1800  # for any part of this, whatever the machine does


def in_process(weights: str, workers: int, count: int) -> float:
    """Answers a second without HTTP, as the server makes them: mask, JSON."""
    predictor, picture = Predictor(weights, threads=1), load_image(sample_bytes())
    prompts = [Prompt(box=Box(*BOX))]

    def work(_: int) -> int:
        found = predictor(picture, prompts=prompts)
        return len(json.dumps([one.to_json() for one in found]))

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(2 * workers)))
        started = time.perf_counter()
        list(pool.map(work, range(count)))
        return count / (time.perf_counter() - started)


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
        taken: list[float] = []

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
                taken.append(time.perf_counter() - started)
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
        return len(taken) / (time.perf_counter() - started), np.array(taken)

    def memory(self) -> float:
        """The server's resident memory, MB."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(r"^picosam2_resident_memory_bytes (\S+)", text, re.MULTILINE)
        return float(found[1]) / 1e6 if found else float("nan")


def main() -> None:
    """Start a server, load it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped, too
    rate = in_process(options.weights, options.workers, max(options.requests // 20, 20))
    print(f"in process, {options.workers} threads: {rate:.1f} answers/s", flush=True)
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

        rates, times, memory = [], [], [load.memory()]
        part = max(options.requests // 10, 1)
        for _ in range(10):
            served, seconds = load.run(part, click)
            rates.append(served)
            times.append(seconds)
            memory.append(load.memory())
        tell(f"{10 * part:,} clicks on a session", 10 / sum(1 / r for r in rates), times, rate)
        served, seconds = load.run(part, upload)
        tell(f"{part:,} uploads", served, [seconds], None)
        memory.append(load.memory())
        told = " ".join(f"{megabytes:.0f}" for megabytes in memory)
        print(f"memory, MB, at the start and after each {part:,}: {told}")
    finally:
        server.terminate()
        server.wait(60)


def tell(what: str, rate: float, times: list[np.ndarray], bare: float | None) -> None:
    """One line about a part."""
    middle, late = 1e3 * np.quantile(np.concatenate(times), [0.5, 0.99])
    of = "" if bare is None else f" ({rate / bare:.0%} of the in-process rate)"
    print(f"{what}: {rate:.1f}/s{of}, median {middle:.1f} ms, p99 {late:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
