"""Decodes clients' images in processes that can be stopped, with bounds on time and memory.

An image from a stranger may be made so that its decoder takes minutes or gigabytes. A thread cannot
be stopped, so each image is decoded in a process of its own pool (`decode_worker`), which is killed
when it takes too long and started again for the next image.
"""

from __future__ import annotations

import io
import math
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

if sys.platform == "linux":
    import fcntl

import numpy as np
import numpy.typing as npt

from picosam2.apps.http.bodies import Bytes
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.turns import Stop
from picosam2.errors import ImageError

BYTES_A_PIXEL = 40
"""Memory for decoding, beside `BASE_BYTES`: Pillow's pixels, ours, and what lies in between."""

BASE_BYTES = 200_000_000

NICE = 5
"""How much lower the priority of the decoders is than the server's."""

PIPE_BYTES = 1 << 20

_PATIENCE = 4
_START_SECONDS = 60  # for a process to start
_Result = TypeVar("_Result")


class Decoders:
    """A pool of processes that decode images. They start when they are first needed."""

    def __init__(self, limits: Limits, count: int) -> None:
        """Use up to `count` processes at once."""
        self._limits = limits
        # The one that worked last comes first, so that no more start than are needed.
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)
        self._started: set[_Process] = set()
        self._lock = threading.Lock()

    def decode(self, data: Bytes, stop: Stop) -> npt.NDArray[np.uint8]:
        """The image (H, W, 3) uint8 RGB of a JPEG, PNG or WebP file's bytes.

        Raises:
            ImageError: it is no such image, or decoding it takes too long or too much memory.
            AbandonedError: `stop` was set.
        """
        process = self._idle.get()
        try:
            if process is None or not process.alive:
                process = self._start()
            with stop.calling(process.kill):
                image = process.decode(data, self._limits.decode_seconds)
            stop.check()
            return image
        finally:
            if process is not None and not process.alive:
                with self._lock:
                    self._started.discard(process)
                process.close()
                process = None
            self._idle.put(process)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            started, self._started = self._started, set()
        for process in started:
            process.kill()
            process.close()

    def _start(self) -> _Process:
        process = _Process(self._limits)
        with self._lock:
            self._started.add(process)
        return process


class _Process:
    """One process, which decodes one image after another."""

    def __init__(self, limits: Limits) -> None:
        memory = BASE_BYTES + 2 * limits.body + BYTES_A_PIXEL * limits.pixels
        words = [sys.executable, "-m", "picosam2.apps.http.decode_worker"]
        words += [str(limits.pixels), str(memory), str(limits.decode_seconds)]
        # What its libraries write on stderr is not for the server's terminal.
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._broken = False
        if sys.platform != "win32":  # the server comes first, also while this one starts
            with suppress(OSError):
                niceness = os.getpriority(os.PRIO_PROCESS, 0) + NICE
                os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)
        if sys.platform == "linux":  # fewer turns of the server's threads while pixels pass
            for stream in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # an administrator allows less
                    fcntl.fcntl(cast(BinaryIO, stream), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._work(lambda: _read(cast(BinaryIO, self._process.stdout), 1), _START_SECONDS)

    @property
    def alive(self) -> bool:
        return not self._broken and self._process.poll() is None

    def kill(self) -> None:
        self._broken = True
        self._process.kill()

    def close(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # it could not be flushed
                    stream.close()

    def decode(self, data: Bytes, seconds: float) -> npt.NDArray[np.uint8]:
        return self._work(lambda: self._exchange(data), seconds)

    def _work(self, exchange: Callable[[], _Result], seconds: float) -> _Result:
        """What the process answers, which is ended if that takes longer than `seconds`.

        On a busy machine it may take `_PATIENCE` times as long, while it has not had that much of
        the processor.
        """
        late, done = threading.Event(), threading.Event()
        used = self._processor_seconds()

        def watch() -> None:
            for _ in range(_PATIENCE):
                if done.wait(seconds):
                    return
                if not self._processor_seconds() - used < 0.5 * seconds:  # or it is unknown
                    break
            late.set()
            self.kill()

        threading.Thread(target=watch, daemon=True).start()
        try:
            return exchange()
        except (OSError, EOFError, struct.error):
            self.kill()
            if late.is_set():
                raise ImageError(
                    f"the image takes more than {seconds:g} seconds to decode: save it anew, "
                    "smaller or as a plain JPEG or PNG"
                ) from None
            raise ImageError("the image made its decoder fail: save it anew as a PNG") from None
        finally:
            done.set()

    def _processor_seconds(self) -> float:
        """What the process has had of the processor; infinite where the system does not say."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return math.inf
        return sum(map(int, stat.rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def _exchange(self, data: Bytes) -> npt.NDArray[np.uint8]:
        stdin = cast(BinaryIO, self._process.stdin)
        stdout = cast(BinaryIO, self._process.stdout)
        stdin.write(struct.pack(">Q", len(data)))
        stdin.write(data)
        stdin.flush()
        height, width, length = struct.unpack(">III", _read(stdout, 12))
        if length:
            raise ImageError(_read(stdout, length).decode())
        image = np.empty((height, width, 3), np.uint8)
        _read_into(stdout, image.data.cast("B"))
        return image


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _read_into(stream: BinaryIO, view: memoryview) -> None:
    while view:
        count = cast(io.BufferedReader, stream).readinto(view)
        if not count:
            raise EOFError
        view = view[count:]
