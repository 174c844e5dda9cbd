"""`picosam2 segment --mask`: a mask as the prompt, with clicks that correct it and without."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers.fakes import disc
from PIL import Image

pytest.importorskip("onnx", reason="makes its own weights with onnx")

from helpers.guided_onnx import write_guided_onnx

from picosam2 import masks

HEIGHT, WIDTH = 120, 160
MASK = disc(HEIGHT, WIDTH, 70.5, 60.5, 25)
ON, OFF = ("--point", "110,60"), ("--point", "70,60,0")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an image and a mask for it."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(MASK.astype(np.uint8) * np.uint8(255)).save("mask.png")
    return tmp_path


@pytest.fixture
def guided(cli, here):
    """`picosam2 segment photo.png` with weights that take guidance; gives the first mask."""
    weights = write_guided_onnx(here / "guided.onnx")

    def call(*words):
        done = cli("segment", "photo.png", *words, "--weights", weights, "-o", "out.json")
        assert (done.code, done.err) == (0, "")
        (result,) = json.loads((here / "out.json").read_text())["masks"]
        return masks.rle_decode(result["rle"])

    return call


@pytest.fixture
def refuses(refused, here, tiny_onnx):
    return lambda *words: refused("segment", "photo.png", *words, "--weights", tiny_onnx)


def test_a_click_corrects_the_mask(guided):
    more, less = guided("--mask", "mask.png", *ON), guided("--mask", "mask.png", *OFF)
    assert more[60, 110]
    assert not less[60, 70]
    for corrected in (more, less):
        assert 0.75 < masks.iou(corrected, MASK) < 1


def test_clicks_come_one_after_the_other(guided):
    both = guided("--mask", "mask.png", *ON, *OFF)
    assert both[60, 110]
    assert not both[60, 70]
    assert 0.7 < masks.iou(both, MASK) < 1


def test_several_clicks_without_a_mask_correct_each_other(guided):
    result = guided("--box", "45,35,96,86", *ON, *OFF, "--one-object")
    assert result[60, 110]
    assert not result[60, 70]


def test_a_hundred_clicks(guided):
    points = [(x, y) for x in range(5, 155, 15) for y in range(5, 115, 11)]
    assert len(points) == 100
    words = [word for x, y in points for word in ("--point", f"{x},{y}")]
    result = guided("--mask", "mask.png", *words)
    assert all(result[y, x] for x, y in points)


@pytest.mark.parametrize("clicks", [(), OFF])
def test_weights_without_guidance_take_the_box_of_the_mask(cli, here, tiny_onnx, clicks):
    x0, y0, x1, y1 = masks.bbox(MASK)
    words = ("segment", "photo.png", *clicks, "--weights", tiny_onnx, "--threads", 1)
    assert cli(*words, "--mask", "mask.png", "-o", "mask.json").code == 0
    assert cli(*words, "--box", f"{x0},{y0},{x1},{y1}", "-o", "box.json").code == 0
    by_mask, by_box = (json.loads((here / f"{n}.json").read_text()) for n in ("mask", "box"))
    assert by_mask["masks"][0]["rle"] == by_box["masks"][0]["rle"]


def test_the_corrected_mask_goes_to_standard_output(here):
    weights = write_guided_onnx(here / "guided.onnx")
    words = ("segment", "photo.png", "--mask", "photo-mask.png", *ON, "-f", "mask", "-o", "-")
    (here / "mask.png").rename(here / "photo-mask.png")
    command = [sys.executable, "-m", "picosam2", *words, "--weights", weights]
    done = subprocess.run(command, capture_output=True, check=True)
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert np.asarray(image)[60, 110] == 255


def test_a_cutout_is_a_mask(guided, here):
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[MASK] = 200, 30, 40, 255
    Image.fromarray(pixels).save("cutout.png")
    assert np.array_equal(guided("--mask", "cutout.png", *ON), guided("--mask", "mask.png", *ON))


def numbered():
    numbers = np.zeros((HEIGHT, WIDTH), np.uint8)
    numbers[:20], numbers[40:60] = 1, 2
    image = Image.fromarray(numbers, "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (WIDTH, HEIGHT)), "the mask is empty: add a point on the object"),
        (Image.new("L", (80, 60), 255), "the mask has 80 x 60 pixels and the image 160 x 120"),
        (Image.new("RGB", (WIDTH, HEIGHT), "red"), "is an image in colors, and not a mask"),
        (numbered(), "has the numbers of 2 objects"),
        (
            Image.linear_gradient("L").point([value // 4 for value in range(256)]),
            "several shades of gray, and all are dark",
        ),
    ],
)
def test_a_mask_that_cannot_be_used(refuses, image, message):
    image.save("bad.png")
    assert message in refuses("--mask", "bad.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "the mask bad.png cannot be read: No such file"),
        (b"", "bad.png is no PNG that can be read"),
        (b"\xff\xd8\xff\xe0 an image", "bad.png is no PNG that can be read"),
    ],
)
def test_a_file_that_is_no_mask(refuses, here, data, message):
    if data is not None:
        (here / "bad.png").write_bytes(data)
    assert message in refuses("--mask", "bad.png", *OFF)


def test_a_damaged_mask(refuses, here):
    data = (here / "mask.png").read_bytes()
    (here / "bad.png").write_bytes(data[:100])
    assert "bad.png is a damaged PNG" in refuses("--mask", "bad.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (OFF, "only negative points"),
        (("--mask", "mask.png", *OFF, "--point", "70.5,60.5"), "as on the object and as off it"),
        (("--mask", "mask.png", "--point", "160,10"), "the point 160,10 lies outside the image"),
        (("--mask", "mask.png", "--point", "1,2,7"), "label must be 1"),
        (("--mask", "mask.png", *ON, "--separate"), "leave out --separate"),
        (("--mask", "mask.png", "--box", "1,1,9,9", "--box", "2,2,9,9"), "one object has one box"),
        (("--mask", "mask.png", "mask.png"), "--mask is of one image, and 2 are named"),
        (
            ("--mask", "mask.png", *ON, "-o", "mask.png", "-f", "mask"),
            "mask.png is one of the images",
        ),
        (("--mask", "mask.png", "."), "--mask is for images named one by one"),
    ],
)
def test_a_mistake_is_one_sentence(refuses, here, words, message):
    before = sorted(here.iterdir())
    assert message in refuses(*words)
    assert sorted(here.iterdir()) == before


def test_an_empty_mask_with_a_click_is_a_click(cli, here, tiny_onnx):
    Image.new("L", (WIDTH, HEIGHT)).save("empty.png")
    words = ("segment", "photo.png", *ON, "--weights", tiny_onnx, "--threads", 1)
    assert cli(*words, "--mask", "empty.png", "-o", "a.json").code == 0
    assert cli(*words, "-o", "b.json").code == 0
    by_mask, by_click = (json.loads((here / f"{n}.json").read_text()) for n in "ab")
    assert by_mask["masks"][0]["rle"] == by_click["masks"][0]["rle"]
