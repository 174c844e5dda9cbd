"""A process that decodes images for the server: `python -m picosam2.apps.http.decode_worker`.

Writes one byte when it is ready. Then it reads the bytes of images from stdin, each after its
length, and writes to stdout either height, width, 0 and the pixels (RGB, 8 bits), or 0, 0, the
length of a message and the message. It ends when stdin does. `Decoders` starts it, and kills it
when an image takes too long.
"""

from __future__ import annotations

import os
import struct
import sys

from picosam2.errors import ImageError
from picosam2.images import CLIENT_FORMATS, load_image


def main(pixels: int, memory: int, seconds: float) -> None:
    """Decode until stdin ends."""
    _limit_memory(memory)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    stdout.write(b"\0")  # it is ready
    stdout.flush()
    while len(head := stdin.read(8)) == 8:
        data = stdin.read(struct.unpack(">Q", head)[0])
        message = ""
        try:
            image = load_image(data, max_pixels=pixels, max_seconds=seconds, formats=CLIENT_FORMATS)
        except ImageError as error:
            message = str(error)
        except MemoryError:
            message = "the image needs too much memory to decode: make it smaller"
        del data
        if message:
            text = message.encode()
            stdout.write(struct.pack(">III", 0, 0, len(text)) + text)
        else:
            stdout.write(struct.pack(">III", *image.shape[:2], 0))
            stdout.write(image.data.cast("B"))
            del image
        stdout.flush()


def _limit_memory(size: int) -> None:
    """Let this process take `size` bytes more than it has; and let the server come first."""
    if sys.platform == "win32":
        return
    import resource

    os.nice(5)
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            has = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # macOS, where such a limit does not hold anyway
        return
    resource.setrlimit(resource.RLIMIT_AS, (has + size, has + size))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
