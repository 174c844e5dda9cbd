"""Connections that send nothing, half a request, or on and on what is refused, are closed.

They would block others. The rest of a body that is refused is received and thrown away, since many
clients read no answer before they have sent all; but not for long, and not much of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from picosam2.apps.http.limits import Limits

_UNFINISHED = (h11.IDLE, h11.SEND_BODY)


def guarded_protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP protocol with the connection limits of `limits`."""
    open_connections: dict[_Guarded, None] = {}  # those waiting longest for a request first

    class Guarded(_Guarded):
        guard = _Guard(limits, open_connections)

    return Guarded


class _Guard:
    """The connections of one server."""

    def __init__(self, limits: Limits, connections: dict[_Guarded, None]) -> None:
        self.limits, self.connections = limits, connections

    def add(self, connection: _Guarded) -> None:
        """Let a connection in; the longest unfinished one goes where there are too many."""
        limits = self.limits
        self.connections[connection] = None
        if len(self.connections) > limits.connections:
            self._drop(iter(self.connections), connection)
        if not _is_loopback(connection.address):
            same = [c for c in self.connections if c.address == connection.address]
            if len(same) > limits.client_connections:
                self._drop(iter(same), connection)

    def _drop(self, candidates: Iterator[_Guarded], newest: _Guarded) -> None:
        victim = next((each for each in candidates if each.unfinished), newest)
        self.connections.pop(victim, None)
        victim.transport.abort()


class _Guarded(H11Protocol):
    guard: _Guard
    _timer: asyncio.TimerHandle | None = None
    _refused = 0  # bytes of a body that is answered already

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def unfinished(self) -> bool:
        """Whether the request has not arrived whole."""
        return self.conn.their_state in _UNFINISHED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self.guard.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.guard.connections.pop(self, None)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            self._refused += len(data)
            if self._refused > self.guard.limits.body:
                self.transport.abort()
                return
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self in self.guard.connections:  # it begins to wait anew
            del self.guard.connections[self]
            self.guard.connections[self] = None
        self._refused = 0
        self._watch()

    @property
    def _is_refused(self) -> bool:
        """Whether a body is answered before it is whole."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        """Begin to count the time until headers or a refused body are whole, or stop counting."""
        if self.conn.their_state is not h11.IDLE and not self._is_refused:
            self._stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            seconds = self.guard.limits.header_seconds
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # a Unix socket
