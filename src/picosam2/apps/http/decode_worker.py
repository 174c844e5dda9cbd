"""A process that decodes images for the server: `python -m picosam2.apps.http.decode_worker`.

Writes one byte when it is ready. Then it reads the bytes of images from stdin, each after its
length, and writes to stdout either height, width, 0 and the pixels (RGB, 8 bits), or 0, 0, the
length of a message and the message. It ends when stdin does. `Decoders` starts it, and kills it
when an image takes too long. An image that is large, or not decoded at once, gives way to other
work.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from picosam2.apps.http.memory import give_memory_back
from picosam2.errors import ImageError
from picosam2.images import CLIENT_FORMATS, load_image, stored_size

QUICK_SECONDS = 0.1
"""An image that takes longer is decoded at a low priority from then on."""

QUICK_PIXELS = 4_000_000
"""An image with more pixels, or whose header names none, is decoded at a low priority."""

SLOW = 10
"""How much lower that priority is."""


def main(pixels: int, memory: int, seconds: float) -> None:
    """Decode until stdin ends."""
    give_memory_back()
    _limit_memory(memory)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    stdout.write(b"\0")  # it is ready
    stdout.flush()
    while len(head := stdin.read(8)) == 8:
        data = stdin.read(struct.unpack(">Q", head)[0])
        result = decode(data, pixels, seconds)
        del data
        if isinstance(result, str):
            text = result.encode()
            stdout.write(struct.pack(">III", 0, 0, len(text)) + text)
        else:
            stdout.write(struct.pack(">III", *result.shape[:2], 0))
            stdout.write(result.data.cast("B"))
        del result
        stdout.flush()


def decode(data: bytes, pixels: int, seconds: float) -> npt.NDArray[np.uint8] | str:
    """The image (H, W, 3) uint8 RGB of a file's bytes, or why there is none."""
    results: list[npt.NDArray[np.uint8] | str] = []

    def work() -> None:
        try:
            results.append(
                load_image(data, max_pixels=pixels, max_seconds=seconds, formats=CLIENT_FORMATS)
            )
        except ImageError as error:
            results.append(str(error))
        except MemoryError:
            results.append("the image needs too much memory to decode: make it smaller")

    size = stored_size(data)
    thread = threading.Thread(target=work)
    thread.start()
    if size is not None and size[0] * size[1] <= QUICK_PIXELS:
        thread.join(QUICK_SECONDS)
    if thread.is_alive() and sys.platform == "linux":  # where threads have priorities of their own
        with suppress(OSError):  # it has just ended
            niceness = os.getpriority(os.PRIO_PROCESS, 0) + SLOW
            os.setpriority(os.PRIO_PROCESS, thread.native_id or 0, niceness)
    thread.join()
    return results[0]


def _limit_memory(size: int) -> None:
    """Let this process take `size` bytes more than it has."""
    if sys.platform == "win32":
        return
    import resource

    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            has = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # macOS, where such a limit does not hold anyway
        return
    resource.setrlimit(resource.RLIMIT_AS, (has + size, has + size))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
