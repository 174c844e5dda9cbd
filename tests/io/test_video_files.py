"""Video files: what their metadata says of the frames is read, and written, and errors are told."""

from __future__ import annotations

import itertools
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picosam2.errors import ConfigError, ImageError
from picosam2.io import video_files
from picosam2.io.video_files import VideoWriter, open_frames, upright

av = pytest.importorskip("av", reason="video files need PyAV")


RED, GREEN, BLUE, GRAY = (230, 20, 30), (0, 255, 0), (20, 30, 220), (120, 120, 120)


def quadrants(height: int = 64, width: int = 96) -> np.ndarray:
    """Four colors; no two of the eight ways to turn and mirror it look alike."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, GRAY
    return image


def write(path: Path, frames: list[np.ndarray], **options: object) -> Path:
    with VideoWriter(path, 10, **options) as writer:  # type: ignore[arg-type]
        for index, frame in enumerate(frames):
            writer.write(frame, index / 10)
    return path


def read(path: Path) -> list[np.ndarray]:
    with open_frames(path) as source:
        return [frame.pixels for frame in source]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) < 6


# -- the way a frame is shown --------------------------------------------------------------------

MATRICES = [
    (a, b, c, d)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if (a == 0) == (d == 0) and (b == 0) == (c == 0) and (a == 0) != (b == 0)
]


def shown(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The stored pixel (x, y) goes to (a x + c y, b x + d y), moved so that all are above 0."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    out = np.zeros((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    out[to_y, to_x] = image
    return out


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into an MP4 file's track header (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    unit = 1 << 16
    data[at : at + 36] = struct.pack(
        ">9i", a * unit, b * unit, 0, c * unit, d * unit, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)


def test_there_are_eight_ways() -> None:
    assert len(MATRICES) == 8
    images = [shown(quadrants(), *matrix).tobytes() for matrix in MATRICES]
    assert len(set(images)) == 8


@pytest.mark.parametrize("matrix", MATRICES)
def test_frames_are_turned_and_mirrored(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    a, b, c, d = matrix
    expected = shown(quadrants(), *matrix)
    np.testing.assert_array_equal(upright(quadrants(), np.array([[a, b], [c, d]])), expected)
    path = write(tmp_path / "a.mp4", [quadrants()] * 2)
    with_matrix(path, *matrix)
    assert all(close(frame, expected) for frame in read(path))


# -- colors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "matrix", "y_cb_cr"),
    [((720, 1280), 1, (173, 42, 26)), ((64, 96), 6, (145, 54, 34))],
)
def test_green_is_written_by_the_matrix_that_is_named(
    size: tuple[int, int], matrix: int, y_cb_cr: tuple[int, ...], tmp_path: Path
) -> None:
    green = np.full((*size, 3), GREEN, np.uint8)
    path = write(tmp_path / "a.mp4", [green] * 2)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert int(frame.colorspace) == matrix
        assert int(frame.color_range) == 1
        planes = frame.to_ndarray(format="yuv420p")
        assert planes[0, 0] == pytest.approx(y_cb_cr[0], abs=2)
        chroma = planes[size[0] :].ravel()
        assert chroma[0] == pytest.approx(y_cb_cr[1], abs=2)
        assert chroma[-1] == pytest.approx(y_cb_cr[2], abs=2)
    for pixels in read(path):
        assert np.abs(pixels.astype(int) - GREEN).max() <= 3


@pytest.mark.parametrize("matrix", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colors_are_read_by_the_matrix_that_is_named(
    matrix: int, full: bool, tmp_path: Path
) -> None:
    weights = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}.get(matrix, (0.299, 0.114))
    red, blue = weights
    r, g, b = 0.9, 0.2, 0.3
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    stored = (255 * y, 255 * cb + 128, 255 * cr + 128) if full else (
        16 + 219 * y, 224 * cb + 128, 224 * cr + 128)  # fmt: skip
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv444p"
        stream.options = {"qp": "1"}
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full else 1
        planes = np.empty((3, 64, 64), np.uint8)
        planes[:] = np.rint(stored)[:, None, None]
        frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    (pixels,) = read(path)
    assert np.abs(pixels.astype(int) - np.rint(255 * np.array([r, g, b]))).max() <= 3


def test_hdr_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.color_trc = 16
        frame = av.VideoFrame.from_ndarray(quadrants(64, 64), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with open_frames(path) as source:
        list(source)
        assert any("HDR video (PQ)" in note for note in source.notes)


# -- what headers say ----------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [False, True])
def test_the_pixel_aspect_is_kept(turned: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [quadrants()] * 2, pixel_aspect=Fraction(4, 3))
    if turned:
        with_matrix(path, 0, 1, -1, 0)
    with open_frames(path) as source:
        list(source)
        assert source.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))


def test_fragments_are_all_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(35):
            frame = av.VideoFrame.from_ndarray(np.roll(quadrants(), index, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_frames(path) as source:
        assert source.count() == 35
        assert len(list(source)) == 35


def test_a_cover_is_not_the_film(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=10)
        cover.width, cover.height, cover.pix_fmt = 320, 320, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic.value
        film = container.add_stream("libx264", rate=10)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        image = av.VideoFrame.from_ndarray(quadrants(320, 320), format="rgb24")
        for packet in [*cover.encode(image), *cover.encode(None)]:
            container.mux(packet)
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(quadrants(), format="rgb24")
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
    frames = read(path)
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 5


def test_another_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    data = b""
    for size in ((64, 96), (128, 160)):
        path = tmp_path / "part.h264"
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width = size
            stream.pix_fmt = "yuv420p"
            for _ in range(3):
                frame = av.VideoFrame.from_ndarray(quadrants(*size), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        data += path.read_bytes()
    (tmp_path / "a.h264").write_bytes(data)
    with open_frames(tmp_path / "a.h264") as source:
        frames = [frame.pixels for frame in source]
        assert any("160x128): all are scaled to 96x64" in note for note in source.notes)
    assert len(frames) == 6
    assert all(close(frame, quadrants()) for frame in frames)


# -- sound ---------------------------------------------------------------------------------------


@pytest.fixture
def talkie(tmp_path: Path) -> Path:
    """Two seconds of frames and AAC sound."""
    path = tmp_path / "talkie.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("aac", rate=16000)
        for _ in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(quadrants(), format="rgb24")))
        tone = np.sin(np.arange(32000) / 16000 * 2 * np.pi * 440).astype(np.float32)[None]
        for start in range(0, 32000, 1000):
            part = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(tone[:, start : start + 1000]), format="fltp", layout="mono"
            )
            part.sample_rate, part.pts = 16000, start
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_sound_is_copied(talkie: Path, ending: str, tmp_path: Path) -> None:
    out = tmp_path / f"out{ending}"
    with open_frames(talkie) as source:
        assert source.sound == talkie
        with VideoWriter(out, source.rate, sound=source.sound) as writer:
            for frame in source:
                writer.write(frame.pixels, frame.time)
    assert writer.note == ""
    copied, whole = sound_of(out), sound_of(talkie)
    assert len(copied) >= 0.9 * len(whole)
    assert copied == whole[: len(copied)]


def test_sound_that_does_not_fit_is_said(talkie: Path, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.webm", 10, sound=talkie) as writer:
        writer.write(quadrants(), 0)
    assert "the sound of" in writer.note
    assert "(aac) does not fit" in writer.note
    assert len(read(tmp_path / "out.webm")) == 1


# -- encoders ------------------------------------------------------------------------------------


def test_mpeg4_where_there_is_no_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video_files.VIDEO_ENDINGS, ".mp4", ("mpeg4",))
    path = write(tmp_path / "a.mp4", [quadrants()] * 3)
    assert all(close(frame, quadrants()) for frame in read(path))


def test_what_an_encoder_refuses_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(video_files.VIDEO_ENDINGS, ".mp4", ("h263",))  # knows five sizes
    with pytest.raises(ConfigError, match=r"a\.mp4 cannot be encoded \(.+\): choose another"):
        write(tmp_path / "a.mp4", [quadrants(62, 94)])
    with pytest.raises(ConfigError, match="cannot be encoded"):
        write(tmp_path / "none" / "a.mkv", [quadrants()])


# -- folders -------------------------------------------------------------------------------------


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for number in (1, 2, 10):
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(tmp_path / f"f{number}.png")
    Image.fromarray(np.full((40, 60, 3), 11, np.uint8)).save(tmp_path / "f11.png")
    (tmp_path / "notes.txt").write_text("no frame")
    with open_frames(tmp_path, rate=5) as source:
        assert source.length == source.count() == 4
        frames = list(source)
        assert any("all are scaled to 30x20" in note for note in source.notes)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [1, 2, 10, 11]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert {frame.pixels.shape for frame in frames} == {(20, 30, 3)}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no images"):
        open_frames(tmp_path / "empty")
