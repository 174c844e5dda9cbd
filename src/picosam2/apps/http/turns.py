"""Slow work in a few threads: it waits for its turn, and stops when its client goes away."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from picosam2.apps.http.errors import busy

_Result = TypeVar("_Result")


class AbandonedError(Exception):
    """Raised by work whose client has gone away."""


class Stop:
    """Says to work in a thread that nobody waits for it any more."""

    def __init__(self) -> None:
        """Nothing is stopped yet."""
        self._lock = threading.Lock()
        self._stopped = False
        self._action: Callable[[], None] | None = None

    def set(self) -> None:
        """Stop the work."""
        with self._lock:
            self._stopped = True
            if self._action is not None:
                self._action()

    def check(self) -> None:
        """Raise `AbandonedError` if the work is to stop."""
        if self._stopped:
            raise AbandonedError

    @contextmanager
    def calling(self, action: Callable[[], None]) -> Iterator[None]:
        """Within the block, `set` calls `action`, which ends what `check` cannot reach."""
        with self._lock:
            if self._stopped:
                raise AbandonedError
            self._action = action
        try:
            yield
        finally:
            with self._lock:
                self._action = None


class Turns:
    """Lets a few run at once, in the order in which they came; refuses when too many wait."""

    def __init__(self, room: int, queue: int, seconds: float) -> None:
        """Let run what has `room` together, while up to `queue` wait, each for up to `seconds`."""
        self._room = self._free = room
        self._queue, self._seconds = queue, seconds
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def check_room(self) -> None:
        """Raise `RequestError` (503) if one more could not wait."""
        if len(self._waiting) >= self._queue:
            raise busy()

    def is_idle(self) -> bool:
        """Whether nobody has a turn."""
        return self._free == self._room

    @asynccontextmanager
    async def turn(self, size: int = 1) -> AsyncIterator[None]:
        """Wait for a turn, and have it within the block; `size` is what it takes of the room.

        What is larger than the room has it alone.
        """
        size = min(size, self._room)
        if self._waiting or size > self._free:
            await self._wait(size)
        else:
            self._free -= size
        try:
            yield
        finally:
            self._give_back(size)

    async def _wait(self, size: int) -> None:
        self.check_room()
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, granted))
        try:
            async with asyncio.timeout(self._seconds):
                await granted
        except BaseException as error:
            if granted.done() and not granted.cancelled():  # it came at the same time
                self._give_back(size)
            else:
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove((size, granted))
                self._give_back(0)  # those behind it may fit
            if isinstance(error, TimeoutError):
                raise busy() from None
            raise

    def _give_back(self, size: int) -> None:
        self._free += size
        while self._waiting:
            size, granted = self._waiting[0]
            is_gone = granted.done()  # its task was canceled, and has not run since
            if not is_gone and size > self._free:
                return
            self._waiting.popleft()
            if not is_gone:
                self._free -= size
                granted.set_result(None)


async def in_thread(work: Callable[[Stop], _Result]) -> _Result:
    """Run `work` in a thread. If this is canceled, the work is stopped and waited for."""
    stop = Stop()
    job = asyncio.ensure_future(to_thread.run_sync(work, stop))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait((job,))
        if not job.cancelled():
            job.exception()  # it is of no interest any more
        raise


async def while_connected(request: Request, work: Awaitable[_Result]) -> _Result:
    """Await `work`, which is canceled if the client goes away; the body must have been read.

    Raises:
        ClientDisconnect: the client has gone away.
    """
    job = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((job, gone), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnect
        return job.result()
    finally:
        for task in (job, gone):
            task.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
