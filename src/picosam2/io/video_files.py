"""Videos in and out: files, folders of frames, cameras and raw frames become RGB arrays, and back.

Files and cameras are read with PyAV, an extra (`pip install '.[video]'`); raw frames need
nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from picosam2._words import counted
from picosam2.errors import ConfigError, ImageError, require
from picosam2.images import MAX_PIXELS, load_image

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
_TICKS_MPEG4 = 60_000  # MPEG-4 part 2 has no room for more than 65,535
_HD_HEIGHT = 720  # from here on, a file that does not name its matrix is taken for BT.709's
# ITU-T H.273's numbers of color matrices, and those that FFmpeg's scaler has for them. Those of PQ
# and HLG are of transfer curves.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT709, _BT601, _UNSPECIFIED = 1, 6, 2
_HDR = {16: "PQ", 18: "HLG"}
_FULL_RANGE = 2
_FRAME_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif")
_DAMAGED_IN_A_ROW = 30  # packets; more of them and the file is no video any more


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its number from 0, its time in seconds, and its pixels (H, W, 3) uint8 RGB."""

    index: int
    time: float
    pixels: npt.NDArray[np.uint8]


class FrameSource:
    """Frames one after another. Use it in a `with` statement, and iterate over it once.

    name: what the user calls it.
    rate: the frames a second.
    length: the number of frames as far as the file says; `count` is exact.
    live: whether the source ends when the user stops it.
    pixel_aspect: width of a pixel / its height; frames hold the pixels as they are stored.
    sound: the file whose sound belongs to the frames; None without one.
    notes: what a user should know of how the frames were read; it grows while they are.
    """

    pixel_aspect: Fraction = Fraction(1)
    sound: Path | None = None

    def __init__(self, name: str, rate: float, length: int | None, live: bool) -> None:
        self.name, self.rate, self.length, self.live = name, rate, length, live
        self.notes: list[str] = []

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

    def _note_size(self, index: int, size: tuple[int, int], first: tuple[int, int]) -> None:
        """Say once that a frame has another size than the first."""
        if not any("change their size" in note for note in self.notes):
            self.notes.append(
                f"the frames of {self.name} change their size, first at frame {index} "
                f"({size[0]}x{size[1]}): all are scaled to {first[0]}x{first[1]}"
            )

    def count(self) -> int | None:
        """The exact number of frames; None if only reading all of them would tell."""
        return self.length

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


class FolderFrames(FrameSource):
    """The images of a folder as frames, in the order of the numbers in their names."""

    def __init__(self, folder: Path, *, rate: float = RATE) -> None:
        """Read the images in `folder`. Raises `ImageError` if there are none."""
        paths = [p for p in folder.iterdir() if p.suffix.lower() in _FRAME_ENDINGS and p.is_file()]
        if not paths:
            raise ImageError(f"{folder} holds no images ({', '.join(_FRAME_ENDINGS)})")
        self._paths = sorted(paths, key=_numbered)
        super().__init__(str(folder), rate, len(paths), live=False)

    def __iter__(self) -> Iterator[Frame]:
        size: tuple[int, int] | None = None
        for index, path in enumerate(self._paths):
            pixels = load_image(path)
            height, width = pixels.shape[:2]
            if size is not None and (width, height) != size:
                self._note_size(index, (width, height), size)
                resized = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
                pixels = np.array(resized)
            size = size or (width, height)
            yield Frame(index, index / self.rate, pixels)


class VideoFrames(FrameSource):
    """Frames of a video file or a camera, upright, decoded by PyAV."""

    def __init__(self, container: Any, name: str, *, live: bool) -> None:
        """Of a container that PyAV has opened; `ImageError` if there is no image in it."""
        self._container = container
        stream = container.streams.best("video")  # not the cover of an album
        if stream is None:
            container.close()
            raise ImageError(f"{name} has sound but no images: give a video")
        self._stream = stream
        if stream.width * stream.height > MAX_PIXELS:
            container.close()
            raise ImageError(f"{name} has frames of {stream.width}x{stream.height}: too large")
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or stream.guessed_rate or RATE)
        length = stream.frames
        if length and container.duration:
            # The header of a fragmented file counts the first fragment only.
            length = max(length, round(container.duration / 1e6 * rate))
        super().__init__(name, rate, length or None, live)
        if not live:
            self.sound = Path(name) if container.streams.audio else None
        self._matrix: npt.NDArray[np.int32] | None = None

    def count(self) -> int | None:
        """The exact number of frames, by reading through the file without decoding it."""
        if self.live:
            return None
        av: Any = require("av", "video")
        try:
            with av.open(self._container.name, metadata_errors="ignore") as again:
                stream = again.streams.best("video")
                return sum(bool(packet.size) for packet in again.demux(stream))
        except av.error.FFmpegError as error:
            raise ImageError(f"{self.name} cannot be read to its end: {error}") from error

    def __iter__(self) -> Iterator[Frame]:
        import av

        index = damaged = dropped = 0
        size: tuple[int, int] | None = None
        packets = self._container.demux(self._stream)
        packet: Any = None
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.EOFError):
                break
            except av.error.FFmpegError as error:  # what was read so far still has frames
                self.notes.append(f"{self.name} cannot be read to its end: {error}")
                packet = None
            try:
                images = self._stream.decode(None) if packet is None else packet.decode()
                damaged = 0
            except av.error.EOFError:
                break
            except av.error.FFmpegError as error:
                damaged += 1
                dropped += 1
                if damaged > _DAMAGED_IN_A_ROW:
                    raise ImageError(f"{self.name} is damaged after frame {index}") from error
                continue
            image: Any
            for image in images:
                if size is not None and (image.width, image.height) != size:
                    self._note_size(index, (image.width, image.height), size)
                elif size is None:
                    size = image.width, image.height
                    self._begin(image)
                pixels = upright(_to_rgb(image, size), self._matrix)
                time = image.time if image.time is not None else index / self.rate
                yield Frame(index, float(time), pixels)
                index += 1
            if packet is None:
                break
        if not index:
            raise ImageError(f"{self.name} has no frame that can be decoded: get a whole copy")
        if dropped:
            lost = counted(dropped, "damaged packet")
            self.notes.append(f"{self.name}: {lost} left out, so later frames have smaller numbers")

    def _begin(self, image: Any) -> None:
        """Read what the first frame says of all."""
        if (curve := _HDR.get(int(image.color_trc))) is not None:
            self.notes.append(
                f"{self.name} is an HDR video ({curve}): its colors are read without tone mapping"
            )
        self._matrix = _display_matrix(image)
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if aspect > 0:
            swapped = self._matrix is not None and self._matrix[0, 0] == 0
            self.pixel_aspect = 1 / Fraction(aspect) if swapped else Fraction(aspect)

    def close(self) -> None:
        self._container.close()


def upright(
    pixels: npt.NDArray[np.uint8], matrix: npt.NDArray[np.int32] | None
) -> npt.NDArray[np.uint8]:
    """Turn and mirror a frame as a file's display matrix says, in steps of 90 degrees.

    Args:
        pixels: (H, W, 3) uint8, as stored.
        matrix: (2, 2), in whose rows it says which way the stored x and y axes point on the
            screen; None for "as stored".
    """
    if matrix is None:
        return pixels
    (x_right, x_down), (y_right, y_down) = matrix
    if x_right == 0:  # the stored rows are shown as columns
        pixels = pixels.swapaxes(0, 1)
        right, down = y_right, x_down
    else:
        right, down = x_right, y_down
    pixels = pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return np.ascontiguousarray(pixels)


def _display_matrix(image: Any) -> npt.NDArray[np.int32] | None:
    """The signs of a frame's display matrix (2, 2); None if it says nothing."""
    data = next((each for each in image.side_data if each.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return None
    values = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2]
    # A matrix that turns by other angles is taken for the nearest of the eight.
    diagonal = abs(int(values[0, 0])) + abs(int(values[1, 1]))
    keep = np.eye(2, dtype=bool) if 2 * diagonal >= np.abs(values.astype(np.int64)).sum() else None
    signs = np.sign(values).astype(np.int32)
    return np.where(keep if keep is not None else ~np.eye(2, dtype=bool), signs, 0)


def _to_rgb(image: Any, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A decoded frame as (H, W, 3) uint8, by the matrix and range that it names."""
    from av.video.reformatter import ColorRange, VideoReformatter

    number = int(image.colorspace)
    if number not in _MATRICES:
        number = _BT709 if image.height >= _HD_HEIGHT else _BT601
    full = int(image.color_range) == _FULL_RANGE
    if "yuvj" in image.format.name:
        full = True
    rgb = VideoReformatter().reformat(
        image,
        width=size[0],
        height=size[1],
        format="rgb24",
        src_colorspace=_MATRICES[number],
        dst_colorspace=_MATRICES[number],
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return np.asarray(rgb.to_ndarray(), np.uint8)


def _numbered(path: Path) -> tuple[list[int | str], str]:
    """A key that sorts frame9 before frame10."""
    parts = re.split(r"(\d+)", path.name, flags=re.ASCII)
    return [int(p) if p.isascii() and p.isdigit() and len(p) < 20 else p for p in parts], path.name


def open_frames(
    source: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    rate: float | None = None,
) -> FrameSource:
    """Open a video by what a user calls it.

    Args:
        source: the path of a video file, or of a folder of images; the number of a camera, 0 for
            the first; or `-` for raw RGB frames from standard input.
        size: width and height of raw frames, pixels.
        rate: frames a second of raw frames, of a folder or of the camera.

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
        if sys.stdin is None:
            raise ImageError("standard input is closed: give the path of a video file")
        return RawFrames(sys.stdin.buffer, *size, rate=rate or RATE)
    if size is not None:
        raise ConfigError("only raw frames from standard input (-) need --size: leave it out")
    if name.isascii() and name.isdigit() and not Path(name).exists():
        return _open_camera(int(name), rate)
    if Path(name).is_dir():
        return FolderFrames(Path(name), rate=rate or RATE)
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

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: float,
        *,
        pixel_aspect: Fraction = Fraction(1),
        sound: Path | None = None,
    ) -> None:
        """Begin a file whose ending is one of `VIDEO_ENDINGS`; the first frame sets the size.

        Args:
            path: the file.
            rate: frames a second, as far as they are regular.
            pixel_aspect: width of a pixel / its height.
            sound: a file whose first sound track is copied, as far as the frames reach.

        Raises:
            ConfigError: another ending.
            MissingExtraError: PyAV is not installed.
        """
        self._path = Path(path)
        check_video_name(self._path)
        self._av = require("av", "video")
        self._rate, self._sound_file = rate, sound
        self.pixel_aspect = pixel_aspect
        """Width of a pixel / its height; it may be set before the first frame."""
        self._container: Any = None
        self._stream: Any = None
        self._sound: _SoundCopy | None = None
        self._last = -1
        self.note = ""
        """What of the sound could not be copied, once there is a frame; empty if all was."""

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._container is None:
            return
        try:
            with self._explained():
                if error is None:
                    self._container.mux(self._stream.encode())
                self._container.close()
        finally:
            if self._sound is not None:
                self._sound.close()

    def write(self, pixels: npt.NDArray[np.uint8], time: float) -> None:
        """Add a frame (H, W, 3) uint8 RGB to be shown from `time`, in seconds, which rises.

        Raises:
            ConfigError: the encoder refuses the frame, or the file cannot be written.
        """
        from av.video.reformatter import ColorRange, VideoReformatter

        height, width = pixels.shape[:2]
        even = height + height % 2, width + width % 2
        with self._explained():
            if self._stream is None:
                self._begin(*even)
            if even != (height, width):  # color has half the resolution: sides must be even
                pad = ((0, height % 2), (0, width % 2), (0, 0))
                pixels = np.pad(pixels, pad, "edge")
            frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
            matrix = _MATRICES[self._matrix]
            frame = VideoReformatter().reformat(
                frame,
                format="yuv420p",
                src_colorspace=matrix,
                dst_colorspace=matrix,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            ticks = self._ticks
            frame.time_base = Fraction(1, ticks)
            frame.pts = self._last = max(round(time * ticks), self._last + 1)
            self._container.mux(self._stream.encode(frame))
            if self._sound is not None:
                self._sound.copy_until(time)

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
        self._ticks = _TICKS_MPEG4 if codec == "mpeg4" else _TICKS
        context = self._stream.codec_context
        context.time_base = Fraction(1, self._ticks)
        # Players that ignore the tags judge by the height, too.
        self._matrix = _BT709 if height >= _HD_HEIGHT else _BT601
        context.colorspace = context.color_primaries = context.color_trc = self._matrix
        context.color_range = 1  # limited
        if self.pixel_aspect != 1:
            context.sample_aspect_ratio = self.pixel_aspect
        if codec == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        elif codec.startswith("libvpx"):
            self._stream.options = {"crf": "32", "b": "0", "deadline": "realtime", "cpu-used": "8"}
        else:
            self._stream.bit_rate = width * height * 8
        if self._sound_file is not None:
            try:
                self._sound = _SoundCopy(self._sound_file, self._container)
            except ConfigError as error:
                self.note = str(error)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the encoder raises into a sentence."""
        try:
            yield
        except (self._av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ConfigError(
                f"{self._path.name} cannot be encoded ({reason}): choose another format or size"
            ) from error


class _SoundCopy:
    """Copies the first sound track of a file, packet by packet, beside frames that are written."""

    def __init__(self, file: Path, output: Any) -> None:
        """Add a track to `output`. Raises `ConfigError` if that format has no room for it."""
        av = require("av", "video")
        self._output = output
        self._input = av.open(str(file.resolve()), metadata_errors="ignore")
        stream = self._input.streams.best("audio")
        codec = stream.codec_context.name if stream is not None else "none"
        if stream is None or codec not in output.supported_codecs:
            self._input.close()
            raise ConfigError(
                f"the sound of {file} ({codec}) does not fit the file: it is left out"
            )
        self._stream = output.add_stream_from_template(stream)
        self._packets = self._input.demux(stream)
        self._next = next(self._packets, None)

    def copy_until(self, time: float) -> None:
        """Copy what is heard before `time`, in seconds."""
        while (packet := self._next) is not None and packet.dts is not None:
            if packet.dts * packet.time_base > time:
                return
            packet.stream = self._stream
            self._output.mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the file that is copied from."""
        self._input.close()


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
