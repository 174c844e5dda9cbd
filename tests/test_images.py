"""images: every kind of image a user may hand over, and every kind that must be refused."""

from __future__ import annotations

import io
import math
import os
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picosam2.errors import ImageError
from picosam2.images import (
    CLIENT_FORMATS,
    MAX_PIXELS,
    MEAN,
    PAD_RGB,
    STD,
    check_start,
    image_size,
    load_image,
    normalize,
    stored_size,
)
from tests.helpers.hostile import (
    HOSTILE,
    animated_webp,
    commented_ppm,
    greedy_jpeg,
    greedy_list_jpeg,
    greedy_png,
    greedy_tiff,
    greedy_webp,
    huge_webp,
    progressive_jpeg,
    tiled_tiff,
)


def gradient(height: int = 12, width: int = 17) -> np.ndarray:
    """An image without any symmetry."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 20, columns * 15, (rows * columns) % 256], axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def is_plain(pixels: np.ndarray) -> bool:
    flags = pixels.flags
    return pixels.dtype == np.uint8 and pixels.ndim == 3 and flags.c_contiguous and flags.writeable


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    expected = gradient()
    image = Image.fromarray(expected)
    data = encode(image)
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with path.open("rb") as stream:
        sources = [str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data)]
        for source in [*sources, stream, image, expected, Image.open(io.BytesIO(data))]:
            pixels = load_image(source)
            assert is_plain(pixels)
            np.testing.assert_array_equal(pixels, expected)


def test_a_stream_that_cannot_seek(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._inner = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            return self._inner.readinto(buffer)

    np.testing.assert_array_equal(load_image(Pipe(encode(Image.fromarray(gradient())))), gradient())


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are a POSIX thing")
def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(encode(Image.fromarray(gradient()))))
    writer.start()
    np.testing.assert_array_equal(load_image(path), gradient())
    writer.join()


def test_a_buffer_just_written_to_is_rewound() -> None:
    buffer = io.BytesIO()
    Image.fromarray(gradient()).save(buffer, "PNG")
    np.testing.assert_array_equal(load_image(buffer), gradient())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(Image.fromarray(gradient()), kind, **options)
    np.testing.assert_array_equal(load_image(data), gradient())


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(mode: str) -> None:
    rows, columns = np.mgrid[:64, :48]
    smooth = np.stack([rows * 3, columns * 4, 255 - rows * 2], axis=-1).astype(np.uint8)
    image = Image.fromarray(smooth).convert(mode)
    pixels = load_image(encode(image, "JPEG", quality=95))
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


def test_one_pixel() -> None:
    pixels = load_image(encode(Image.new("RGB", (1, 1), (1, 2, 3))))
    assert pixels.tolist() == [[[1, 2, 3]]]


def test_grayscale_and_bilevel() -> None:
    gray = gradient()[:, :, 1]
    expected = np.repeat(gray[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(load_image(encode(Image.fromarray(gray))), expected)
    bilevel = Image.fromarray(gray > 100)
    assert bilevel.mode == "1"
    expected = np.repeat(np.where(gray > 100, 255, 0)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(load_image(encode(bilevel)), expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 32768, 65535], [128, 129, 1000, 65000]], np.uint16)
    pixels = load_image(encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(pixels[:, :, 0], np.rint(values / 257))
    np.testing.assert_array_equal(pixels[:, :, 0], pixels[:, :, 2])


def test_big_endian_sixteen_bits() -> None:
    values = np.array([[0, 1000, 65535]], ">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert load_image(image)[0, :, 0].tolist() == [0, 4, 255]


@pytest.mark.parametrize("kind", [">u2", ">f4", ">f8", "<u2"])
def test_arrays_of_either_byte_order(kind: str) -> None:
    values = np.array([[0, 0.25, 1]]) * (65535 if kind.endswith("u2") else 1)
    native = load_image(values.astype(kind[1:]))
    np.testing.assert_array_equal(load_image(values.astype(kind)), native)
    assert native[0, :, 0].tolist() == [0, 64, 255]


def test_thirty_two_bit_grayscale() -> None:
    assert load_image(Image.new("I", (2, 2), 65535)).max() == 255
    assert load_image(Image.new("F", (2, 2), 0.5)).max() == 128
    with pytest.raises(ImageError, match=r"cannot be turned into RGB \(32-bit"):
        load_image(Image.new("I", (2, 2), 70000))
    with pytest.raises(ImageError, match=r"within 0\.\.1"):
        load_image(Image.new("F", (2, 2), 12.0))


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = [0, 255, 128]
    for source in (rgba, Image.fromarray(rgba), encode(Image.fromarray(rgba))):
        assert load_image(source)[0, :, 0].tolist() == [255, 0, 127]
    gray = Image.fromarray(rgba).convert("LA")
    assert load_image(encode(gray))[0, :, 1].tolist() == [255, 0, 127]


def test_transparent_palette_and_transparent_color() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert load_image(encode(palette))[0].tolist() == [[10, 20, 30], [200, 100, 50]]
    for transparency in (1, b"\xff\x00"):  # one color, or one alpha for each
        pixels = load_image(encode(palette, transparency=transparency))
        assert pixels[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    keyed = Image.fromarray(gradient())
    pixels = load_image(encode(keyed, transparency=(20, 15, 1)))
    assert pixels[1, 1].tolist() == [255, 255, 255]
    assert pixels[1, 2].tolist() == gradient()[1, 2].tolist()


# What a viewer must show for a file whose pixels are [[a, b, c], [d, e, f]] (EXIF 2.32, 4.6.4).
UPRIGHT = {
    1: ["abc", "def"],
    2: ["cba", "fed"],
    3: ["fed", "cba"],
    4: ["def", "abc"],
    5: ["ad", "be", "cf"],
    6: ["da", "eb", "fc"],
    7: ["fc", "eb", "da"],
    8: ["cf", "be", "ad"],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    stored = np.array([list(b"abc"), list(b"def")], np.uint8)
    image = Image.fromarray(np.repeat(stored[:, :, None], 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(image, kind, exif=exif, **options)
    pixels = load_image(data)
    assert is_plain(pixels)
    assert [bytes(row).decode() for row in pixels[:, :, 0]] == UPRIGHT[orientation]
    np.testing.assert_array_equal(load_image(Image.open(io.BytesIO(data))), pixels)


def test_exif_orientation_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    half = np.zeros((32, 64, 3), np.uint8)
    half[:, 32:] = 255  # white at the right, so at the bottom after a quarter turn clockwise
    pixels = load_image(encode(Image.fromarray(half), "JPEG", exif=exif))
    assert pixels.shape == (64, 32, 3)
    assert pixels[:28].max() < 20
    assert pixels[36:].min() > 235


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_the_size_of_a_turned_file(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind.lower()}"
    path.write_bytes(encode(Image.new("RGB", (30, 20)), kind, exif=exif))
    assert image_size(path) == load_image(path).shape[:2]


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\0\0",
        b"Exif\0\0II+\0\x08\0\0\0" + b"\xff" * 8,  # a directory past the end of any file
    ],
)
def test_damaged_exif_is_no_reason_to_refuse(exif: bytes) -> None:
    assert load_image(encode(Image.new("RGB", (4, 4)), "JPEG", exif=exif)).shape == (4, 4, 3)


def test_an_impossible_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    data = encode(Image.fromarray(gradient()), exif=exif)
    np.testing.assert_array_equal(load_image(data), gradient())


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue", "green")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3)])
def test_arrays(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, shape, np.uint8)
    expected = np.broadcast_to(values.reshape(5, 7, -1), (5, 7, 3))
    for source in (values, values / 255, (values / 255).astype(np.float32)):
        pixels = load_image(source)
        assert is_plain(pixels)
        np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(load_image(values.astype(np.uint16) * 257), expected)
    np.testing.assert_array_equal(load_image(values > 100), np.where(expected > 100, 255, 0))


def test_arrays_are_copied_and_may_have_strides() -> None:
    values = gradient()
    pixels = load_image(values)
    pixels[:] = 0
    assert values.any()
    np.testing.assert_array_equal(load_image(gradient()[::-1, ::2]), gradient()[::-1, ::2])
    assert is_plain(load_image(gradient().transpose(1, 0, 2)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((8, 8, 2), np.uint8), "shape"),
        (np.zeros((1, 8, 8, 3), np.uint8), "shape"),
        (np.zeros(8, np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8), np.complex64), "complex64"),
        (np.array([["a"]]), "dtype"),
        (np.array([[None]]), "object"),
        (np.full((8, 8), np.nan), "finite"),
        (np.full((8, 8), np.inf), "finite"),
        (np.full((8, 8), -0.1), "within"),
        (np.full((8, 8, 3), 255.0), "within"),
    ],
)
def test_arrays_that_are_no_image(values: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(values)


def test_a_source_of_another_type() -> None:
    with pytest.raises(ImageError, match="int"):
        load_image(3)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="no pixels"):
        load_image(Image.new("RGB", (0, 4)))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg does not exist"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be opened"):
        load_image("a\0b.png")
    with pytest.raises(ImageError, match="web address"):
        load_image("https://example.org/photo.jpg")


def test_files_that_are_no_image(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("These are not the pixels you are looking for.\n")
    with pytest.raises(ImageError, match=r"notes\.jpg is not an image"):
        load_image(path)
    with path.open() as stream, pytest.raises(ImageError, match="mode 'rb'"):
        load_image(stream)  # type: ignore[arg-type]
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"notes\.jpg is empty"):
        load_image(path)
    with pytest.raises(ImageError, match="is empty"):
        load_image(b"")
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ImageError, match="HEIC"):
        load_image(path)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(ImageError, match="not an image"):
        load_image(postscript)
    stream = path.open("rb")
    stream.close()
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(stream)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused_whole(kind: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), kind)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match=path.name):
        load_image(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_damage_never_raises_anything_else(kind: str) -> None:
    rng = np.random.default_rng(1)
    whole = np.frombuffer(encode(Image.fromarray(gradient()), kind), np.uint8)
    for _ in range(60):
        data = whole.copy()
        spots = rng.integers(0, len(data), 3)
        data[spots] = rng.integers(0, 256, 3)
        # A changed color may pass; what passes must be a real image.
        with suppress(ImageError):
            assert is_plain(load_image(data.tobytes(), max_pixels=1_000_000))


def test_a_pixel_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    for width, height in [(20_000, 10_000), (10_001, 10_000), (2**31 - 1, 2**31 - 1)]:
        path.write_bytes(png_header(width, height))
        assert path.stat().st_size < 200
        start = time.perf_counter()
        with pytest.raises(ImageError, match=r"bomb\.png has .* 100 million"):
            load_image(path)
        assert time.perf_counter() - start < 0.5


def test_between_the_warning_level_of_pillow_and_our_limit() -> None:
    # Warnings are errors in these tests: a leak of Pillow's DecompressionBombWarning would fail.
    assert MAX_PIXELS >= 95_000_000
    with pytest.raises(ImageError, match="damaged"):
        load_image(png_header(9_500, 10_000))


def test_the_limit_is_the_callers() -> None:
    data = encode(Image.fromarray(gradient()))
    assert load_image(data, max_pixels=12 * 17).shape == (12, 17, 3)
    for source in (data, gradient(), Image.fromarray(gradient())):
        with pytest.raises(ImageError, match="limit"):
            load_image(source, max_pixels=12 * 17 - 1)


def test_messages_are_one_line(tmp_path: Path) -> None:
    for source in (
        tmp_path,
        tmp_path / "x",
        b"text",
        b"",
        png_header(99, 99),
        np.zeros((2, 2), int),
    ):
        with pytest.raises(ImageError) as caught:
            load_image(source)
        assert "\n" not in str(caught.value)


def test_many_threads() -> None:
    data = encode(Image.fromarray(gradient()))
    wrong: list[object] = []

    def read() -> None:
        for _ in range(20):
            if not np.array_equal(load_image(data), gradient()):
                wrong.append(None)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_normalize_is_torchvisions_formula() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
    expected = ((crops / 255 - np.array(MEAN)) / np.array(STD)).transpose(0, 3, 1, 2)
    out = normalize(crops)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, expected, atol=2e-6)
    assert normalize(crops[:0]).shape == (0, 3, 8, 6)


def test_padding_is_near_zero_after_normalize() -> None:
    assert tuple(round(255 * mean) for mean in MEAN) == PAD_RGB
    crops = np.broadcast_to(np.array(PAD_RGB, np.uint8), (1, 2, 2, 3))
    assert np.abs(normalize(crops)).max() < 0.01


@pytest.mark.parametrize("crops", [np.zeros((1, 2, 2, 3)), np.zeros((2, 2, 3), np.uint8)])
def test_normalize_refuses_anything_else(crops: np.ndarray) -> None:
    with pytest.raises(ImageError, match="crops must be"):
        normalize(crops)


# --- files made to cost much ------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_stop_with_a_sentence(name: str, tmp_path: Path) -> None:
    make, message = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(make())
    for source in (path, path.read_bytes()):
        started = time.thread_time()
        with pytest.raises(ImageError, match=message) as caught:
            load_image(source, max_seconds=1)
        assert time.thread_time() - started < 3
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_size_of_hostile_files_costs_little(name: str, tmp_path: Path) -> None:
    """It is known, or there is a sentence."""
    path = tmp_path / name
    path.write_bytes(HOSTILE[name][0]())
    tracemalloc.start()
    started = time.thread_time()
    with suppress(ImageError):
        image_size(path)
    assert time.thread_time() - started < 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


@pytest.mark.parametrize(
    "make",
    [huge_webp, animated_webp, lambda: tiled_tiff(2000), greedy_jpeg, greedy_list_jpeg, greedy_webp,
     greedy_png, lambda: greedy_png("tEXt"), greedy_tiff],
)  # fmt: skip
def test_hostile_files_take_little_memory(make: Callable[[], bytes]) -> None:
    code = (
        "import resource, sys\n"
        "from picosam2.images import load_image\n"
        "from picosam2.errors import ImageError\n"
        "data = sys.stdin.buffer.read()\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: load_image(data)\n"
        "except ImageError: print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input=make(), capture_output=True)
    assert int(done.stdout) < 60_000, done  # kB


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}),
     ("JPEG", {"exif": b"Exif\0\0" + bytes(60_000), "icc_profile": bytes(100_000)}),
     ("WEBP", {"lossless": True}), ("WEBP", {"icc_profile": bytes(50)})],
)  # fmt: skip
def test_the_size_is_read_from_the_header(kind: str, options: dict[str, object]) -> None:
    data = encode(Image.new("RGB", (517, 1301)), kind, **options)
    assert stored_size(data) == (1301, 517)
    check_start(data[:64], "it", formats=CLIENT_FORMATS)
    for cut in range(40):
        assert stored_size(data[:cut]) in (None, (1301, 517))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0" + bytes(99), b"\xff\xd8" + b"\xff" * 5_000_000,
     b"\xff\xd8" + b"\xff\xe0\0\2" * 1_000_000, b"\xff\xd8" + b"\xff\xe0\0\0" * 1_000_000,
     b"GIF89a" + bytes(30), b"RIFF\0\0\0\0WEBPXXXX" + bytes(30)],
)  # fmt: skip
def test_a_header_that_names_no_size_costs_no_time(data: bytes) -> None:
    started = time.thread_time()
    assert stored_size(data) is None
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"GIF89a" + bytes(60), "GIF image"), (commented_ppm(9), "PPM image"),
     (bytes(64), "not an image"), (huge_webp(), "16383 x 16383"), (animated_webp(), "the limit"),
     (png_header(20_000, 20_000), "20000 x 20000"), (png_header(0, 9), "no pixels")],
)  # fmt: skip
def test_a_file_is_refused_by_its_start(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        check_start(data[:64], "it", formats=CLIENT_FORMATS)


def one_color(kind: str, mode: str, side: int, **options: object) -> bytes:
    return encode(Image.new(mode, (side, side)), kind, **options)


@pytest.mark.parametrize(
    ("side", "make", "most"),
    [
        pytest.param(4000, lambda n: one_color("PNG", "P", n, transparency=0), 10, id="palette"),
        pytest.param(4000, lambda n: one_color("PNG", "LA", n), 10, id="gray and alpha"),
        pytest.param(4000, lambda n: one_color("PNG", "I;16", n), 11, id="16 bits"),
        pytest.param(4000, lambda n: one_color("JPEG", "CMYK", n), 13, id="CMYK"),
        pytest.param(4000, lambda n: one_color("WEBP", "RGBA", n, lossless=True), 20, id="WebP"),
        pytest.param(8100, lambda n: one_color("WEBP", "RGBA", n, lossless=True), 20, id="64 MP",
                     marks=pytest.mark.slow),
        pytest.param(9000, lambda n: one_color("TIFF", "F", n, compression="tiff_lzw"), 13,
                     id="floats", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_small_file_of_many_pixels_takes_a_few_bytes_for_each(
    side: int, make: Callable[[int], bytes], most: int
) -> None:
    code = (
        "import resource, sys\n"
        "from picosam2.images import load_image\n"
        "data = sys.stdin.buffer.read()\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load_image(PIXEL)\n"
        "before = peak()\n"
        "load_image(data)\n"
        "print(peak() - before)\n"
    ).replace("PIXEL", repr(one_color("PNG", "L", 1)))
    done = subprocess.run([sys.executable, "-c", code], input=make(side), capture_output=True)
    assert 1024 * int(done.stdout) < most * side**2 + 20_000_000, done


def test_the_limits_can_be_lifted() -> None:
    for data in (progressive_jpeg(200, 16), commented_ppm(1500), tiled_tiff(450)):
        with pytest.raises(ImageError, match="save it anew"):
            load_image(data)
        assert is_plain(load_image(data, max_seconds=math.inf))


def test_scans_are_counted_where_they_are() -> None:
    data = encode(Image.fromarray(gradient()), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200  # in a comment
    for harmless in (data[:2] + comment + data[2:], data + b"\xff\xda" * 200):  # after the end
        assert is_plain(load_image(harmless))


def test_formats_are_the_callers() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        load_image(encode(Image.fromarray(gradient()), kind), formats=CLIENT_FORMATS)
    for kind in ("GIF", "BMP", "TIFF", "PPM"):
        data = encode(Image.fromarray(gradient()), kind)
        with pytest.raises(ImageError, match=f"a {kind} image: convert it to JPEG, PNG or WEBP"):
            load_image(data, formats=CLIENT_FORMATS)


def test_a_stream_that_is_no_image_is_not_read_on() -> None:
    class Endless(io.RawIOBase):
        def seekable(self) -> bool:
            return False

        def read(self, size: int = -1) -> bytes:
            assert 0 <= size < 100, "it wants all of it"
            return bytes(size)

    with pytest.raises(ImageError, match="not an image"):
        load_image(Endless())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bits_in_16(kind: str) -> None:
    values = np.arange(0, 4096, 16, np.uint16).reshape(16, 16)
    values[-1, -1] = 4095
    expected = np.round(values / 4095 * 255)
    for source in (encode(Image.fromarray(values), kind), values):
        np.testing.assert_array_equal(load_image(source)[:, :, 0], expected)  # type: ignore[arg-type]
    values[0, 0] = 4096  # more than 12 bits
    assert load_image(values).max() == 16
