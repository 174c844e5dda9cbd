"""Turns: who runs, who waits, and that nothing of the room is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server is an extra")

from picosam2.apps.http.errors import RequestError
from picosam2.apps.http.turns import Turns


class Watched:
    """Runs jobs of a name and a size, each until it is told to end, and says which run now."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.running = turns, []
        self.ends: dict[str, asyncio.Event] = {}

    async def job(self, name: str, size: int) -> None:
        self.ends[name] = asyncio.Event()
        async with self.turns.turn(size):
            self.running.append(name)
            await self.ends[name].wait()
        self.running.remove(name)

    async def start(self, name: str, size: int = 1) -> asyncio.Task[None]:
        task = asyncio.create_task(self.job(name, size))
        await settle()
        return task

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_as_many_run_as_have_room_in_the_order_in_which_they_came() -> None:
    async def test() -> None:
        watched = Watched(Turns(10, 9, 60))
        sizes = {"a": 6, "b": 5, "c": 4, "d": 1, "huge": 99}
        tasks = [await watched.start(name, size) for name, size in sizes.items()]
        assert watched.running == ["a"]  # c and d fit, but b came before them
        await watched.end("a")
        assert watched.running == ["b", "c", "d"]
        for name in "bcd":
            assert "huge" not in watched.running
            await watched.end(name)
        assert watched.running == ["huge"]
        await watched.end("huge")
        await asyncio.gather(*tasks)

    run(test())


def test_who_leaves_takes_no_room_and_holds_up_nobody() -> None:
    async def test() -> None:
        watched = Watched(Turns(2, 9, 60))
        a = await watched.start("a")
        b = await watched.start("b", 2)
        c = await watched.start("c")
        assert watched.running == ["a"]
        b.cancel()
        await settle()
        assert watched.running == ["a", "c"]
        d = await watched.start("d", 2)
        watched.ends["c"].set()
        a.cancel()
        await settle()
        assert watched.running.count("d") == 1
        d.cancel()
        await asyncio.gather(a, b, c, d, return_exceptions=True)
        watched.running.clear()
        assert not (await watched.start("e", 2)).done()
        assert watched.running == ["e"]

    run(test())


def test_a_turn_that_comes_while_its_task_is_canceled_is_given_on() -> None:
    async def test() -> None:
        watched = Watched(Turns(1, 9, 60))
        a, b, c = [await watched.start(name) for name in "abc"]
        watched.ends["a"].set()
        await asyncio.sleep(0)  # a is about to give its turn to b
        b.cancel()
        await settle()
        assert watched.running == ["c"]
        c.cancel()
        await asyncio.gather(a, b, c, return_exceptions=True)

    run(test())


def test_a_turn_that_ends_while_its_heir_is_canceled_is_given_on() -> None:
    async def test() -> None:
        watched = Watched(Turns(1, 9, 60))
        a, b, c = [await watched.start(name) for name in "abc"]
        watched.ends["a"].set()
        b.cancel()  # a gives its turn back before b has run
        await settle()
        assert watched.running == ["c"]
        assert isinstance((await asyncio.gather(a, return_exceptions=True))[0], type(None))
        c.cancel()
        await asyncio.gather(b, c, return_exceptions=True)
        watched.running.clear()
        assert not (await watched.start("d")).done()
        assert watched.running == ["d"]

    run(test())


def test_too_many_and_too_long() -> None:
    async def test() -> None:
        watched = Watched(Turns(1, 1, 0.05))
        a, b = await watched.start("a"), await watched.start("b")
        with pytest.raises(RequestError, match="busy"):
            watched.turns.check_room()
        with pytest.raises(RequestError, match="busy"):
            await watched.job("c", 1)
        with pytest.raises(RequestError, match="busy"):
            await b
        watched.turns.check_room()
        await watched.end("a")
        await a
        assert not (await watched.start("d")).done()

    run(test())
