"""Connections that send nothing, half a request, or on and on what is refused, or do not read.

They would block others, and are closed. The rest of a body that is refused is received and thrown
away, since many clients read no answer before they have sent all; but not for long, and not much.
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

    def bound_unsent(self) -> None:
        """End those connections whose answers have waited longest, if all have too many bytes."""
        unsent = {each: each.unsent for each in self.connections}
        excess = sum(unsent.values()) - self.limits.unsent
        for each, size in unsent.items():
            if excess <= 0:
                break
            if size:
                excess -= size
                self.connections.pop(each, None)
                each.transport.abort()

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
        """Whether the request has not arrived whole, or its answer was the last one."""
        return self.conn.their_state in _UNFINISHED or self.transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes of answers that the client has not taken."""
        return self.transport.get_write_buffer_size()

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
        self.guard.bound_unsent()

    @property
    def _is_refused(self) -> bool:
        """Whether a body is answered before it is whole."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and self.conn.their_state is h11.SEND_BODY

    def _watch(self) -> None:
        """Begin to count the time until headers or a refused body are whole, or stop counting.

        An answer that the client does not take is watched, too.
        """
        waits = self.conn.their_state is h11.IDLE or self._is_refused or self.transport.is_closing()
        if not waits:
            self._stop_timer()
        elif self._timer is None:
            self._count(self.unsent)

    def _count(self, unsent: int) -> None:
        limits = self.guard.limits
        seconds = limits.reading_seconds if unsent else limits.header_seconds
        self._timer = self.loop.call_later(seconds, self._time_is_over, unsent)

    def _time_is_over(self, unsent_before: int) -> None:
        self._timer = None
        unsent = self.unsent
        if 0 < unsent < unsent_before:
            self._count(unsent)  # it is being read
        else:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True  # a Unix socket
