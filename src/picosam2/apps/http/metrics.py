"""Counts of what the server did, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from picosam2.apps.http.sessions import Sessions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Requests by route and status, and how long they took. Labels are ours, never a client's."""

    def __init__(self, sessions: Sessions) -> None:
        """Count for one application, which keeps `sessions`."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "picosam2_requests",
            "Requests answered.",
            ("route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "picosam2_request_seconds", "Time to answer.", buckets=_BUCKETS, registry=self._registry
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered.")
        self._gauge("sessions", "Images kept.").set_function(lambda: len(sessions))
        pixels = self._gauge("session_pixels", "Pixels of the images kept.")
        pixels.set_function(lambda: sessions.pixels)
        if resident_memory() is not None:
            memory = self._gauge("resident_memory_bytes", "Memory of the process.")
            memory.set_function(lambda: resident_memory() or 0)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one request that took `seconds`."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        """All counts in Prometheus' text form."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"picosam2_{name}", text, registry=self._registry)


def resident_memory() -> int | None:
    """Bytes of memory that this process has; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
