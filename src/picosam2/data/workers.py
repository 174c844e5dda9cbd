"""Processes that work on the parts of a store, and the lock on a store's folder."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from picosam2.errors import StoreError

if sys.platform != "win32":
    import fcntl
else:
    import msvcrt

LOCK: Final = ".lock"
"""The file in a store's folder that the process which writes it holds locked."""

_LOOK_S: Final = 1.0  # how often a worker looks whether its parent is still there


@contextmanager
def workers(count: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` that works in `count` processes and gives the results in order.

    The processes end with this one, also if it is killed.

    Raises:
        StoreError: one of them was killed.
    """
    if count <= 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            count, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),)
        ) as pool:

            def in_parallel(*arguments: Any) -> Iterator[Any]:
                with _deaf_to_interrupts():  # here the processes are started
                    return pool.map(*arguments)

            yield in_parallel
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process was killed, perhaps for lack of memory: run it again with fewer "
            "workers; what is finished is kept"
        ) from error


def _end_with_parent(parent: int) -> None:
    """End this process once its parent is gone: the pool's queue would keep it waiting for good."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="picosam2-parent").start()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started in here never see Ctrl-C: the one that started them ends them in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other processes from writing a store's folder; a killed process holds no lock.

    Raises:
        StoreError: another process is writing it.
    """
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(handle)
        except OSError:
            os.close(handle)
            raise StoreError(
                f"another process is preparing {folder}: wait for it, or choose another folder"
            ) from None
        try:
            current = path.stat().st_ino == os.fstat(handle).st_ino
        except FileNotFoundError:
            current = False
        if current:
            break
        os.close(handle)  # the other process ended and removed it in between
    try:
        yield
    finally:
        if sys.platform == "win32":
            os.close(handle)
        path.unlink(missing_ok=True)
        if sys.platform != "win32":
            os.close(handle)


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Say in a sentence (`StoreError`) that a folder cannot be written, or its disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"there is no room left on the disk of {folder}: free some and run the same again, "
                "it goes on with what is finished"
            ) from error
        raise StoreError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}"
        ) from error
