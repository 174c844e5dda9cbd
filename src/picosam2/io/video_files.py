"""Videos in and out: video files, a camera or raw frames become RGB arrays, and back.

Files and cameras are read with PyAV, an extra (`pip install 'picosam2[video]'`); raw frames need
nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from picosam2.errors import ConfigError, ImageError, require
from picosam2.images import MAX_PIXELS

RATE = 30.0
"""Frames a second of a stream that does not say."""

VIDEO_ENDINGS = {
    ".mp4": ("libx264", "mpeg4"),
    ".mov": ("libx264", "mpeg4"),
    ".mkv": ("libx264", "mpeg4"),
    ".webm": ("libvpx-vp9", "libvpx"),
}
"""What `VideoWriter` writes: file name endings, and the encoders for each, best first."""

_TICKS = 90_000  # of the clock in a written file, a second; MPEG's own
_DAMAGED_IN_A_ROW = 30  # packets; more of them and the file is no video any more


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its number from 0, its time in seconds, and its pixels (H, W, 3) uint8 RGB."""

    index: int
    time: float
    pixels: npt.NDArray[np.uint8]


class FrameSource:
    """Frames one after another. Use it in a `with` statement, and iterate over it once.

    `live` says that the source ends when the user stops it; `length` is the number of frames if
    the file tells it, and `rate` the frames a second.
    """

    def __init__(self, name: str, rate: float, length: int | None, live: bool) -> None:
        self.name, self.rate, self.length, self.live = name, rate, length, live

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Give back what is held open."""


class RawFrames(FrameSource):
    """Frames as bare bytes, R, G and B of each pixel, row by row: ffmpeg's `-f rawvideo`."""

    def __init__(
        self, stream: BinaryIO, width: int, height: int, *, rate: float = RATE, name: str = "stdin"
    ) -> None:
        """Read `width` x `height` frames from an open binary stream."""
        if width < 1 or height < 1 or width * height > MAX_PIXELS:
            raise ConfigError(f"{width}x{height} is no size of a frame: give the stream's own")
        super().__init__(name, rate, None, live=True)
        self._stream, self._shape = stream, (height, width, 3)

    def __iter__(self) -> Iterator[Frame]:
        size = self._shape[0] * self._shape[1] * 3
        index = 0
        while data := self._read(size):
            if len(data) < size:
                raise ImageError(
                    f"{self.name} ends within a frame: is each really "
                    f"{self._shape[1]}x{self._shape[0]} pixels of rgb24?"
                )
            pixels = np.frombuffer(data, np.uint8).reshape(self._shape)
            yield Frame(index, index / self.rate, pixels)
            index += 1

    def _read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end; a pipe gives them in pieces."""
        parts = []
        while size and (part := self._stream.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class VideoFrames(FrameSource):
    """Frames of a video file or a camera, upright, decoded by PyAV."""

    def __init__(self, container: Any, name: str, *, live: bool) -> None:
        """Of a container that PyAV has opened; `ImageError` if there is no image in it."""
        self._container = container
        streams = container.streams.video
        if not streams:
            container.close()
            raise ImageError(f"{name} has sound but no images: give a video")
        self._stream = stream = streams[0]
        if stream.width * stream.height > MAX_PIXELS:
            container.close()
            raise ImageError(f"{name} has frames of {stream.width}x{stream.height}: too large")
        stream.thread_type = "AUTO"
        rate = stream.average_rate or stream.guessed_rate or RATE
        super().__init__(name, float(rate), stream.frames or None, live)

    def __iter__(self) -> Iterator[Frame]:
        import av

        index = damaged = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                images = next(packets).decode()
                damaged = 0
            except (StopIteration, av.error.EOFError):
                break
            except av.error.FFmpegError as error:
                damaged += 1
                if damaged > _DAMAGED_IN_A_ROW:
                    raise ImageError(f"{self.name} is damaged after frame {index}") from error
                continue
            for image in images:
                pixels = image.to_ndarray(format="rgb24")
                if turns := round(image.rotation / 90) % 4:
                    pixels = np.ascontiguousarray(np.rot90(pixels, turns))
                time = image.time if image.time is not None else index / self.rate
                yield Frame(index, float(time), pixels)
                index += 1
        if not index:
            raise ImageError(f"{self.name} has no frame that can be decoded: get a whole copy")

    def close(self) -> None:
        self._container.close()


def open_frames(
    source: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    rate: float | None = None,
) -> FrameSource:
    """Open a video by what a user calls it.

    Args:
        source: the path of a video file; the number of a camera, 0 for the first; or `-` for raw
            RGB frames from standard input.
        size: width and height of raw frames, pixels.
        rate: frames a second of raw frames or of the camera.

    Raises:
        ImageError: there is no such video or camera, or it cannot be read.
        ConfigError: raw frames without a size, or a size for something else.
        MissingExtraError: PyAV is not installed.
    """
    name = os.fspath(source)
    if name == "-":
        if size is None:
            raise ConfigError(
                "raw frames from standard input need --size WxH, as in "
                "ffmpeg -i video.mp4 -f rawvideo -pix_fmt rgb24 - | "
                "picosam2 track - --size 640x480 ..."
            )
        return RawFrames(sys.stdin.buffer, *size, rate=rate or RATE)
    if size is not None:
        raise ConfigError("only raw frames from standard input (-) need --size: leave it out")
    if name.isascii() and name.isdigit() and not Path(name).exists():
        return _open_camera(int(name), rate)
    if not Path(name).is_file():
        raise ImageError(f"{name} is no video file: check the path")
    av = require("av", "video")
    try:
        # Its absolute path, so that no name is taken for a protocol of ffmpeg's.
        container = av.open(str(Path(name).resolve()), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        raise ImageError(f"{name} is no video that can be read: give an MP4 or MKV file") from error
    return VideoFrames(container, name, live=False)


def _open_camera(number: int, rate: float | None) -> FrameSource:
    av = require("av", "video")
    device = Path(f"/dev/video{number}")
    if not device.exists():
        raise ImageError(
            f"there is no camera {number} ({device} does not exist): plug one in, or pipe frames "
            "from another program with `picosam2 track -`"
        )
    options = {} if rate is None else {"framerate": f"{rate:g}"}
    try:
        container = av.open(str(device), format="v4l2", options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"camera {number} cannot be opened: {error}") from error
    return VideoFrames(container, f"camera {number}", live=True)


class VideoWriter:
    """Write frames to a video file. Use it in a `with` statement: leaving it completes the file."""

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        """Begin a file whose ending is one of `VIDEO_ENDINGS`; the first frame sets the size.

        Raises `ConfigError` for another ending, `MissingExtraError` without PyAV.
        """
        self._path = Path(path)
        check_video_name(self._path)
        self._av = require("av", "video")
        self._rate = rate
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._container is not None:
            if error is None:
                self._container.mux(self._stream.encode())
            self._container.close()

    def write(self, pixels: npt.NDArray[np.uint8], time: float) -> None:
        """Add a frame (H, W, 3) uint8 RGB to be shown from `time`, in seconds, which rises."""
        height, width = pixels.shape[:2]
        even = height + height % 2, width + width % 2
        if self._stream is None:
            self._begin(*even)
        if even != (height, width):  # color has half the resolution: sides must be even
            pad = ((0, height % 2), (0, width % 2), (0, 0))
            pixels = np.pad(pixels, pad, "edge")
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.time_base = Fraction(1, _TICKS)
        frame.pts = self._last = max(round(time * _TICKS), self._last + 1)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, height: int, width: int) -> None:
        endings = VIDEO_ENDINGS[self._path.suffix.lower()]
        codec = next((c for c in endings if c in self._av.codecs_available), None)
        if codec is None:
            raise ConfigError(f"this PyAV has no encoder for {self._path.suffix}: choose another")
        self._container = self._av.open(str(self._path), "w")
        rate = Fraction(self._rate).limit_denominator(1001)
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        elif codec.startswith("libvpx"):
            self._stream.options = {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8"}
        else:
            self._stream.bit_rate = width * height * 8


def check_video_name(path: str | os.PathLike[str]) -> None:
    """Raise `ConfigError` if `VideoWriter` cannot write a file of that name."""
    if Path(path).suffix.lower() not in VIDEO_ENDINGS:
        raise ConfigError(f"{path} does not say which video to write: end it in .mp4 or .webm")


def read_size(text: str) -> tuple[int, int]:
    """Width and height, of "WxH". Raises `ConfigError`."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{text!r} is no size: write width x height, for instance 640x480")
    return int(parts[0]), int(parts[1])
