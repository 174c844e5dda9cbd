"""results: what a Segmentation tells, draws and writes."""

from __future__ import annotations

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picosam2 import masks, results
from picosam2.errors import ConfigError, DataError, ImageError
from picosam2.geometry import Window
from picosam2.prompts import Box, Point, Prompt
from picosam2.results import FORMATS, PALETTE, Segmentation, overlay

HEIGHT, WIDTH = 120, 160
CENTER = Point(80, 60)
RADIUS = 40


def disc_logits(x: float = 80, y: float = 60, radius: float = RADIUS) -> np.ndarray:
    """Logits that rise by one a pixel towards the middle of a disc."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (radius - np.hypot(columns - x, rows - y)).astype(np.float32)


def make(**changes: Any) -> Segmentation:
    logits = disc_logits()
    values: dict[str, Any] = {
        "mask": logits > 0,
        "score": 0.875,
        "prompt": Prompt(points=(CENTER,)),
        "window": Window(32, 12, 128, 108),
        "image": np.full((HEIGHT, WIDTH, 3), 100, np.uint8),
        "logits": logits,
    }
    return Segmentation(**{**values, **changes})


EMPTY = np.zeros((HEIGHT, WIDTH), bool)


def test_masks_are_kept_small_and_given_anew() -> None:
    rng = np.random.default_rng(0)
    for mask in (EMPTY, ~EMPTY, rng.random((HEIGHT, WIDTH)) > 0.9, disc_logits(3, 117, 30) > 0):
        result = make(mask=mask)
        np.testing.assert_array_equal(result.mask, mask)
        assert result.mask is not result.mask
        assert result.area == mask.sum()
        assert result.shape == (HEIGHT, WIDTH)
        again = pickle.loads(pickle.dumps(result))
        for other in (again, copy.deepcopy(result)):
            np.testing.assert_array_equal(other.mask, mask)
            np.testing.assert_array_equal(other.logits, result.logits)
            assert other.to_json() == result.to_json()
    large = np.zeros((3000, 4000), bool)
    large[100:2900, 100:3900] = True
    small = Segmentation(mask=large, score=1, prompt=Prompt(points=(CENTER,)))
    assert len(pickle.dumps(small)) < large.size / 8 + 1000


def test_facts() -> None:
    result = make()
    assert result.area == result.mask.sum()
    assert result.box == Box(40, 20, 120, 100)
    assert make(mask=EMPTY).box is None
    assert repr(result) == (
        f"<Segmentation of {result.area} pixels in 160x120, box (40,20,120,100), score 0.875>"
    )
    assert "box none" in repr(make(mask=EMPTY))
    with pytest.raises(AttributeError):
        result.score = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": np.zeros((HEIGHT, WIDTH), np.uint8)},
        {"mask": np.zeros(9, bool)},
        {"image": np.zeros((WIDTH, HEIGHT, 3), np.uint8)},
        {"logits": np.zeros((96, 96), np.float32)},
        {"score": 1.5},
        {"score": -0.1},
        {"score": float("nan")},
    ],
)
def test_parts_must_agree(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        make(**changes)


def test_json() -> None:
    result = make()
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(value) == {"prompt", "box", "score", "area", "size", "rle", "polygons"}
    assert value["prompt"] == {"points": [[80, 60, 1]]}
    assert value["box"] == [40, 20, 120, 100]
    assert value["score"] == 0.875
    assert value["area"] == result.area
    assert value["size"] == [HEIGHT, WIDTH]
    np.testing.assert_array_equal(masks.rle_decode(value["rle"]), result.mask)
    (polygon,) = value["polygons"]
    assert polygon["hole"] is False
    assert polygon["points"] == result.polygons()[0].points.tolist()
    empty = make(mask=EMPTY).to_json()
    assert (empty["box"], empty["area"], empty["polygons"]) == (None, 0, [])


def test_polygons_and_rle_are_those_of_the_mask() -> None:
    result = make()
    filled = masks.fill_polygons(result.polygons(0), HEIGHT, WIDTH)
    np.testing.assert_array_equal(filled, result.mask)
    assert len(result.polygons()[0].points) < len(result.polygons(0)[0].points)
    assert result.rle() == masks.rle_encode(result.mask)


def test_mask_image() -> None:
    image = make().mask_image()
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), np.where(make().mask, 255, 0))


# --- overlay


def test_overlay_tints_outlines_and_marks() -> None:
    result = make()
    drawn = np.asarray(result.overlay(color=(200, 0, 0), alpha=0.5))
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    depth = result.logits
    near_the_click = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([[[60]], [[80]]]))) < 12
    assert (drawn[(depth > 6) & ~near_the_click] == [150, 50, 50]).all()
    assert (drawn[depth < -6] == 100).all()
    assert drawn[np.abs(depth) < 0.3].min() > 165  # the contour is white ...
    assert drawn[np.abs(depth + 1.5) < 0.2].max() < 90  # ... with a dark rim
    assert drawn[60, 80].tolist() == [200, 0, 0]  # the click's dot
    assert drawn[60, 83].min() > 200  # and its ring
    assert (result.image == 100).all()


def test_the_contour_is_smooth() -> None:
    drawn = np.asarray(make().overlay(alpha=0)).astype(int)[:, :, 1]
    contour = drawn[np.abs(make().logits) < 1.6]
    partly = (contour > 110) & (contour < 245)
    assert 0.2 < partly.mean() < 0.8


def test_overlay_of_a_box_and_a_negative_point() -> None:
    prompt = Prompt(points=(Point(140, 100, positive=False),), box=Box(20, 10, 141, 111))
    drawn = np.asarray(make(mask=EMPTY, prompt=prompt).overlay())
    for row, column in [(60, 20), (60, 140), (10, 80), (110, 80)]:
        assert drawn[row, column].min() > 160
    assert (drawn[20:90, 30:130] == 100).all()
    assert (drawn[:5] == 100).all()
    assert drawn[100, 138:142].min() > 180  # the bar of the minus
    assert drawn[97, 140].max() < 30


@pytest.mark.parametrize("point", [Point(0, 0), Point(159.9, 119.9), Point(0, 119)])
def test_overlay_at_the_corners(point: Point) -> None:
    result = make(mask=~EMPTY, prompt=Prompt(points=(point,), box=Box(0, 0, WIDTH, HEIGHT)))
    assert result.overlay().size == (WIDTH, HEIGHT)


def test_overlay_of_tiny_things() -> None:
    image = np.zeros((1, 1, 3), np.uint8)
    prompt = Prompt(points=(Point(0, 0),))
    tiny = Segmentation(mask=np.ones((1, 1), bool), score=1, prompt=prompt, image=image)
    assert tiny.overlay().size == (1, 1)
    assert tiny.cutout().getpixel((0, 0)) == (0, 0, 0, 255)
    line = EMPTY.copy()
    line[50] = True
    assert np.asarray(make(mask=line, prompt=Prompt(points=(Point(9, 9),))).overlay())[50].any()


def test_colors() -> None:
    for color in ("red", "#ff0000", (255, 0, 0)):
        assert np.asarray(make().overlay(color, alpha=1))[40, 80].tolist() == [255, 0, 0]
    for color in ("reddish", (1, 2), (1, 2, 300), (0.5, 0, 0), 7):
        with pytest.raises(ConfigError, match="color"):
            make().overlay(color)  # type: ignore[arg-type]
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="alpha"):
            make().overlay(alpha=alpha)


def test_many_objects_have_a_color_each() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    spots = [(20 + 20 * i, 60) for i in range(7)]
    items = [
        make(mask=disc_logits(x, y, 8) > 0, prompt=Prompt(points=(Point(x, 10),)), image=None)
        for x, y in spots
    ]
    drawn = np.asarray(overlay(image, items, alpha=1))
    assert [tuple(drawn[y, x]) for x, y in spots] == list(PALETTE)
    assert len(set(PALETTE)) == 7
    drawn = np.asarray(overlay(image, items, colors=["red", "lime"], alpha=1))
    assert drawn[60, 60].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(np.asarray(overlay(image, [])), image)
    assert (image == 50).all()


def test_small_objects_lie_on_top() -> None:
    far = Prompt(points=(Point(2, 2),))
    small, large = make(mask=disc_logits(radius=10) > 0, prompt=far), make(prompt=far)
    for items, colors in [((small, large), ("red", "blue")), ((large, small), ("blue", "red"))]:
        drawn = np.asarray(overlay(small.image, items, colors=colors, alpha=1))
        assert drawn[60, 80].tolist() == [255, 0, 0]


def test_overlay_reads_images_and_checks_them(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    assert overlay(path, [make(image=None)]).size == (WIDTH, HEIGHT)
    with pytest.raises(DataError, match="does not fit"):
        overlay(np.zeros((5, 5, 3), np.uint8), [make()])
    with pytest.raises(ImageError, match="does not exist"):
        overlay(tmp_path / "missing.png", [make()])
    with pytest.raises(ConfigError, match="at least one color"):
        overlay(path, [make()], colors=[])


def test_without_an_image() -> None:
    bare = make(image=None)
    for draw in (bare.overlay, bare.cutout):
        with pytest.raises(ImageError, match="holds no image"):
            draw()


# --- cut-out


def test_cutout_is_opaque_inside_and_clear_outside_with_a_soft_edge() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)
    logits = disc_logits() / 4
    result = make(image=image, logits=logits, mask=logits > 0, window=Window(-112, -132, 272, 252))
    cut = result.cutout()
    assert cut.mode == "RGBA"
    assert cut.size == (WIDTH, HEIGHT)
    pixels = np.asarray(cut)
    alpha = pixels[:, :, 3]
    assert (alpha[logits > 2] == 255).all()
    assert (alpha[logits < -2] == 0).all()
    edge = np.abs(logits) < 0.1
    np.testing.assert_allclose(alpha[edge] / 255, 1 / (1 + np.exp(-4 * logits[edge])), atol=0.03)
    along_a_row = alpha[60, 20:80].astype(int)
    assert (np.diff(along_a_row) >= 0).all()
    assert len(set(along_a_row.tolist())) > 5
    np.testing.assert_array_equal(pixels[alpha > 0][:, :3], image[alpha > 0])
    assert not pixels[alpha == 0].any()


def test_doubt_far_from_the_edge_leaves_no_haze() -> None:
    logits = np.where(disc_logits() > 0, 0.1, -0.1).astype(np.float32)
    alpha = np.asarray(make(logits=logits).cutout())[:, :, 3]
    assert (alpha[disc_logits() > 3] == 255).all()
    assert (alpha[disc_logits() < -3] == 0).all()


def test_cutout_follows_a_mask_that_was_cleaned_up() -> None:
    logits = disc_logits()
    logits[55:65, 75:85] = -9  # a hole that the mask does not have
    logits[:10, :10] = 9  # a piece that the mask does not have
    result = make(mask=disc_logits() > 0, logits=logits)
    alpha = np.asarray(result.cutout())[:, :, 3]
    assert (alpha[55:65, 75:85] == 255).all()
    assert (alpha[:10, :10] == 0).all()


def test_cutout_without_logits_is_the_mask() -> None:
    alpha = np.asarray(make(logits=None).cutout())[:, :, 3]
    np.testing.assert_array_equal(alpha, np.where(make().mask, 255, 0))
    assert not np.asarray(make(mask=EMPTY).cutout()).any()
    assert np.asarray(make(window=None).cutout())[60, 80, 3] == 255


# --- files


@pytest.mark.parametrize(
    ("name", "format", "kind", "mode"),
    [
        ("a.png", None, "PNG", "L"),
        ("a.PNG", "mask", "PNG", "L"),
        ("a.png", "overlay", "PNG", "RGB"),
        ("a.jpg", None, "JPEG", "RGB"),
        ("a.jpeg", "overlay", "JPEG", "RGB"),
        ("a.png", "cutout", "PNG", "RGBA"),
    ],
)
def test_saving_images(tmp_path: Path, name: str, format: Any, kind: str, mode: str) -> None:
    path = tmp_path / "new" / name
    make().save(path, format)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == (kind, mode, (WIDTH, HEIGHT))
    assert list(path.parent.iterdir()) == [path]


def test_a_panorama_that_is_too_wide_for_jpeg(tmp_path: Path) -> None:
    wide = Segmentation(
        mask=np.ones((2, 65_501), bool),
        score=0.5,
        prompt=Prompt(box=Box(0, 0, 1, 1)),
        image=np.zeros((2, 65_501, 3), np.uint8),
    )
    with pytest.raises(ConfigError, match=r"65501x2 pixels is too large for JPEG"):
        wide.save(tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
    wide.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (65_501, 2)


def test_saving_json(tmp_path: Path) -> None:
    make().save(tmp_path / "a.json")
    make().save(str(tmp_path / "b.json"), "json")
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == make().to_json()
    assert text == (tmp_path / "b.json").read_text()


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("a.txt", None, "tells no format"),
        ("a", None, "tells no format"),
        ("a.png", "svg", "there is no format 'svg': use mask, overlay, cutout or json"),
        ("a.jpg", "mask", "does not suit mask: end it in .png"),
        ("a.jpg", "cutout", "does not suit cutout"),
        ("a.json", "overlay", "end it in .png, .jpg or .jpeg"),
        ("a.png", "json", "end it in .json"),
    ],
)
def test_formats_that_do_not_suit(tmp_path: Path, name: str, format: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().save(tmp_path / name, format)
    assert not any(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        make().save(tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        make().save(tmp_path / "folder.png")
    with pytest.raises(ImageError):
        make(image=None).save(tmp_path / "a.jpg")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.png"}


def test_every_format_is_written(tmp_path: Path) -> None:
    for format, endings in FORMATS.items():
        for ending in endings:
            make().save(tmp_path / f"{format}{ending}", format)  # type: ignore[arg-type]
            assert (tmp_path / f"{format}{ending}").stat().st_size > 50


def test_notebooks_show_an_image() -> None:
    for result, mode in [(make(), "RGB"), (make(image=None), "L")]:
        assert Image.open(io.BytesIO(result._repr_png_())).mode == mode


# Size, contrast and time of overlays


def _plain(height: int, width: int, rgb: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), rgb, np.uint8)


def _object(mask: np.ndarray) -> Segmentation:
    return Segmentation(mask=mask, score=0.9, prompt=Prompt(box=Box(0, 0, 1, 1)))


@pytest.mark.parametrize("color", [*PALETTE, (70, 160, 220), (128, 128, 128), (250, 250, 240)])
def test_a_tint_shows_on_what_it_covers(color: tuple[int, int, int]) -> None:
    """Also on an object of the very color that would have been the first in turn."""
    mask = np.zeros((200, 300), np.bool_)
    mask[50:150, 60:240] = True
    drawn = np.asarray(overlay(_plain(200, 300, color), [_object(mask)], prompts=False))
    assert np.abs(drawn[100, 150].astype(int) - color).max() >= 35


def test_objects_have_different_tints_while_there_are_some() -> None:
    strips = []
    for index in range(len(PALETTE)):
        mask = np.zeros((70, 700), np.bool_)
        mask[:, index * 100 + 10 : index * 100 + 90] = True
        strips.append(_object(mask))
    drawn = np.asarray(overlay(_plain(70, 700, PALETTE[0]), strips, prompts=False))
    assert len({tuple(drawn[35, index * 100 + 50]) for index in range(len(PALETTE))}) == 7


@pytest.mark.parametrize(("height", "width"), [(300, 9000), (9000, 300), (4000, 6000)])
def test_outline_and_marker_leave_the_object_to_be_seen(height: int, width: int) -> None:
    """In a panorama, and in a very large image."""
    mask = np.zeros((height, width), np.bool_)
    middle = (slice(height // 2 - 75, height // 2 + 75), slice(width // 2 - 75, width // 2 + 75))
    mask[middle] = True
    item = Segmentation(
        mask=mask, score=0.9, prompt=Prompt((Point(width / 2 + 0.5, height / 2 + 0.5),))
    )
    drawn = np.asarray(overlay(_plain(height, width, (0, 0, 0)), [item]))[middle]
    tint = np.median(drawn.reshape(-1, 3), axis=0)
    assert (np.abs(drawn - tint).max(2) <= 2).mean() > 0.6


def test_an_overlay_in_tiles_is_the_same_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:600, :700]
    mask = (np.hypot(x - 300, y - 280) < 200) | (np.abs(x - 650) < 2)
    image = rng.integers(0, 256, (600, 700, 3), np.uint8)
    drawn = []
    for tile in (37, 512, 10_000):
        monkeypatch.setattr(results, "_TILE", tile)
        drawn.append(np.asarray(overlay(image, [_object(mask)], prompts=False)))
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])
