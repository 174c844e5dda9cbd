"""Names of images in files of others: how they are spelled, and which image each means."""

from __future__ import annotations

import unicodedata

import pytest

from picosam2.io.image_names import match_names, plain, spellings, stays_inside

NFD = unicodedata.normalize("NFD", "café.jpg")


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.jpg", "a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("./sub/a.jpg", "sub/a.jpg"),
        ("my%20cat.jpg", "my cat.jpg"),
        ("100%.jpg", "100%.jpg"),
        (NFD, "café.jpg"),
        ("café.jpg", NFD),
        ("/data/set/images/sub/a.jpg", "sub/a.jpg"),
        ("C:\\set\\images\\a.jpg", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("a.jpg", "park/a.jpg"),
        ("train/a", "train/a.png"),
        ("139", "000000000139.jpg"),
    ],
)
def test_a_name_means_an_image(name: str, image: str) -> None:
    others = ["other/b.jpg", "c.png"]
    assert match_names([name], [image, *others]).names == {image: name}


def test_the_exact_image_only() -> None:
    matched = match_names(["a.jpg"], ["a.jpg", "sub/a.jpg"])
    assert matched.names == {"a.jpg": "a.jpg"}
    assert not matched.unclear


def test_each_image_goes_to_the_name_that_fits_it_best() -> None:
    matched = match_names(["x/a.jpg", "y/a.jpg"], ["data/y/a.jpg", "data/x/a.jpg"])
    assert matched.names == {"data/x/a.jpg": "x/a.jpg", "data/y/a.jpg": "y/a.jpg"}
    matched = match_names(["z/a.jpg", "x/a.jpg"], ["x/a.jpg"])
    assert matched.names == {"x/a.jpg": "x/a.jpg"}  # and z/a.jpg has no image


@pytest.mark.parametrize(
    ("names", "images", "unclear"),
    [
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], ["a.jpg"]),
        (["a"], ["a.jpg", "a.png"], ["a"]),  # YOLO's a.txt beside two images
        (["7"], ["007.jpg", "07.jpg"], ["7"]),
        (["p/c.jpg", "q/c.jpg"], ["c.jpg"], ["p/c.jpg", "q/c.jpg"]),
    ],
)
def test_what_may_be_several_is_unclear(
    names: list[str], images: list[str], unclear: list[str]
) -> None:
    matched = match_names(names, images)
    assert not matched.names
    assert list(matched.unclear) == unclear
    assert "by its path" in matched.unclear[unclear[0]].what


def test_names_of_nothing() -> None:
    matched = match_names(["b.jpg", "", "/", "a.png"], ["a.jpg"])
    assert (matched.names, matched.unclear) == ({}, {})


def test_spellings_stay_inside() -> None:
    for name in ("../a.jpg", "a\0b", "C:a.jpg", "..\\a.jpg", "/etc/passwd", "%2e%2e/a.jpg"):
        assert all(stays_inside(spelled) for spelled in spellings(name))
    assert spellings("/etc/passwd") == ["passwd"]
    assert spellings("../a.jpg") == []
    assert "b.jpg" in spellings("D:\\a\\b.jpg")


def test_plain() -> None:
    assert plain(".\\sub\\my%20cat.jpg") == "sub/my cat.jpg"
    assert plain("%ff.jpg") == "%ff.jpg"  # no text
