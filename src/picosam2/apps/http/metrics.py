"""Counts of what the server did, in the text form that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


class Metrics:
    """Requests by route and status, and how long they took. Labels are ours, never a client's."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets = [0] * (len(_BUCKETS) + 1)
        self._seconds = 0.0
        self.in_flight = 0

    def took(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests[route, status] += 1
        self._buckets[bisect_left(_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it. `gauges` are further values: name to help text and value."""
        name = "picosam2_requests_total"
        lines = [f"# HELP {name} Requests answered.", f"# TYPE {name} counter"]
        lines += [
            f'{name}{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self._requests.items())
        ]
        name = "picosam2_request_seconds"
        lines += [f"# HELP {name} Time to answer.", f"# TYPE {name} histogram"]
        total = 0
        for edge, count in zip((*_BUCKETS, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{edge}"}} {total}')
        lines += [f"{name}_sum {self._seconds:.6f}", f"{name}_count {total}"]
        all_gauges = {"requests_in_flight": ("Requests being answered.", self.in_flight), **gauges}
        for name, (text, value) in all_gauges.items():
            lines += [
                f"# HELP picosam2_{name} {text}",
                f"# TYPE picosam2_{name} gauge",
                f"picosam2_{name} {value:g}",
            ]
        return "\n".join(lines) + "\n"
