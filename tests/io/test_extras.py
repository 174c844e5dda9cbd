"""Opacity, color profiles and resolution of image files reach overlays and cut-outs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from picosam2.images import load_image
from picosam2.io.encode import encode
from picosam2.io.extras import FileExtras, file_extras
from picosam2.prompts import Point, Prompt
from picosam2.results import Segmentation

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def segmentation(path: Path) -> Segmentation:
    image = load_image(path)
    mask = np.zeros(image.shape[:2], bool)
    mask[4:16, 5:20] = True
    return Segmentation(mask=mask, score=1.0, prompt=Prompt((Point(6, 6),)), image=image)


def written(path: Path, form: str, **encoding: bool) -> Image.Image:
    result = segmentation(path)
    assert result.image is not None
    data = encode(form, path.name, result.image, [result], extras=file_extras(path), **encoding)  # type: ignore[arg-type]
    return Image.open(io.BytesIO(data))


def rgba_image(kind: str) -> Image.Image:
    pixels = np.full((20, 30, 4), (200, 40, 10, 255), np.uint8)
    pixels[:10, :, 3] = 0
    pixels[10:12, :, 3] = 128
    image = Image.fromarray(pixels)
    if kind == "LA":
        return image.convert("LA")
    if kind == "P":
        palette = Image.fromarray((pixels[:, :, 3] // 128).astype(np.uint8)).convert("P")
        palette.putpalette([9, 9, 9, 200, 40, 10])
        palette.info["transparency"] = 0
        return palette
    return image


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("RGBA", ".png"), ("LA", ".png"), ("P", ".png"), ("RGBA", ".webp"), ("RGBA", ".tif")],
)
def test_clear_pixels_stay_clear(kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    rgba_image(kind).save(path, **({"lossless": True} if ending == ".webp" else {}))
    alpha = np.asarray(written(path, "cutout"))[:, :, 3]
    expected = np.asarray(rgba_image(kind).convert("RGBA"))[:, :, 3].copy()
    expected[~segmentation(path).mask] = 0
    np.testing.assert_array_equal(alpha, expected)
    assert (alpha[4:10, 5:20] == 0).all()
    assert alpha[15, 10] == 255


def test_half_clear_pixels_keep_their_color(tmp_path: Path) -> None:
    rgba_image("RGBA").save(tmp_path / "a.png")
    cutout = np.asarray(written(tmp_path / "a.png", "cutout"))
    assert cutout[11, 10].tolist() == [200, 40, 10, 128]  # not lightened by white


def test_opacity_is_turned_with_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba_image("RGBA").save(tmp_path / "a.png", exif=exif, dpi=(100, 200))
    extras = file_extras(tmp_path / "a.png")
    assert extras.rgba is not None
    assert extras.rgba.shape == (30, 20, 4)
    assert extras.rgba[:, 15, 3].max() == 0  # the stored top is shown on the right
    assert extras.rgba[:, 3, 3].min() == 255
    assert extras.info["dpi"] == pytest.approx((200, 100), abs=0.1)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif", ".webp"])
def test_color_profiles_are_kept(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    Image.new("RGB", (30, 20), (90, 60, 30)).save(path, icc_profile=PROFILE)
    assert written(path, "cutout").info["icc_profile"] == PROFILE
    assert written(path, "overlay").info["icc_profile"] == PROFILE
    assert written(path, "overlay", jpeg=True).info["icc_profile"] == PROFILE


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_the_resolution_is_kept(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    Image.new("RGB", (30, 20), (90, 60, 30)).save(path, dpi=(300, 300))
    for image in (written(path, "cutout"), written(path, "overlay", jpeg=True)):
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_a_profile_of_other_colors_is_left_out(tmp_path: Path) -> None:
    gray = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    Image.new("L", (30, 20), 90).save(tmp_path / "a.png", icc_profile=gray)
    assert file_extras(tmp_path / "a.png").info == {}


def test_without_extras_nothing_is_added(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    extras = file_extras(tmp_path / "a.png")
    assert extras.rgba is None
    assert extras.info == FileExtras().info == {}
