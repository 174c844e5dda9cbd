"""Corrections over HTTP: further clicks, masks that come along, and what is wrong in them."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")

from helpers.fakes import FakeRuntime, disc, reddish
from starlette.testclient import TestClient

from picosam2.apps.http.app import create_app
from picosam2.apps.http.bodies import _MAX_VALUES
from picosam2.apps.http.given_masks import MAX_COUNTS
from picosam2.apps.http.limits import Limits
from picosam2.masks import rle_decode, rle_encode
from picosam2.predictor import Predictor
from picosam2.prompts import Point, Prompt

HEIGHT, WIDTH = 90, 120
LIMITS = Limits(body=1_500_000, pixels=40_000, prompts=8, points=120)
RED = disc(HEIGHT, WIDTH, 50, 40, 20)
PIXELS = np.where(RED[..., None], (250, 20, 20), (0, 0, 0)).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_png(mask: np.ndarray) -> str:
    return text(png(mask.astype(np.uint8) * np.uint8(255)))


def follow(crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """The mask so far, with the positive clicks' disks added and the negative ones' cut out."""
    mask = np.maximum(planes[0], planes[1]) * (1 - planes[2])
    return ((mask - 0.5) * 16)[None]


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime(reddish, size=48, correct=follow)


@pytest.fixture
def client(runtime: FakeRuntime) -> Iterator[TestClient]:
    app = create_app(Predictor(runtime), LIMITS)
    with TestClient(app, base_url="http://127.0.0.1:8428") as client:
        yield client


@pytest.fixture
def session(client: TestClient) -> str:
    answer = client.post("/v1/sessions", content=png(PIXELS), headers={"content-type": "image/png"})
    name: str = answer.json()["session"]
    return name


def click(client: TestClient, session: str, *prompts: dict[str, Any]) -> Any:
    return client.post(f"/v1/sessions/{session}/segment", json={"prompts": list(prompts)})


def test_each_further_click_of_a_session_is_one_correction(client, session, runtime):
    clicks = [[50, 40, 1], [90, 70, 1], [50, 30, 0]]
    counts, masks = [], []
    for number in range(1, 4):
        before = len(runtime.planes)
        answer = click(client, session, {"points": clicks[:number]})
        assert answer.status_code == 200, answer.text
        masks.append(rle_decode(answer.json()["masks"][0]["rle"]))
        counts.append(len(runtime.planes) - before)
    assert counts == [1, 2, 3]  # with the second pass of the first click
    assert not masks[0][70, 90]
    assert masks[1][70, 90]
    assert masks[2][70, 90]
    assert masks[1][30, 50]
    assert not masks[2][30, 50]


@pytest.mark.parametrize("form", ["png", "data URL", "rle", "list"])
@pytest.mark.parametrize("kept", [True, False])
def test_a_mask_that_comes_along_is_corrected(client, session, runtime, form, kept):
    first = disc(HEIGHT, WIDTH, 80, 50, 15)
    flat = first.T.ravel()
    ends = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    mask = {
        "png": as_png(first),
        "data URL": f"data:image/png;base64,{as_png(first)}",
        "rle": rle_encode(first),
        "list": {"size": [HEIGHT, WIDTH], "counts": np.diff(ends).tolist()},
    }[form]
    prompt = {"mask": mask, "points": [[80, 50, 0]]}
    if kept:
        answer = click(client, session, prompt)
    else:
        request = {"image": text(png(PIXELS)), "prompts": [prompt]}
        answer = client.post("/v1/segment", json=request)
    assert answer.status_code == 200, answer.text
    (segmentation,) = Predictor(FakeRuntime(reddish, size=48, correct=follow))(
        PIXELS, prompts=[Prompt((Point(80, 50, False),), mask=first)]
    )
    (mask,) = answer.json()["masks"]
    assert np.array_equal(rle_decode(mask["rle"]), segmentation.mask)
    assert not segmentation.mask[50, 80]
    assert segmentation.mask[50, 90]
    assert mask["prompt"] == {"points": [[80, 50, 0]]}
    assert len(runtime.planes) == 1


def test_an_answer_can_be_sent_back_as_it_came(client, session):
    url = f"/v1/sessions/{session}/segment"
    request = {"prompts": [{"points": [[50, 40]]}]}
    rle = client.post(url, json=request).json()["masks"][0]["rle"]
    image = client.post(url, json={**request, "format": "mask"}).content
    answers = [
        click(client, session, {"mask": mask, "points": [[90, 70]]}).json()["masks"][0]
        for mask in (rle, text(image))
    ]
    assert answers[0] == answers[1]
    assert rle_decode(answers[0]["rle"])[70, 90]


def test_a_mask_alone_counts_as_its_box(client, session):
    (mask,) = click(client, session, {"mask": as_png(RED)}).json()["masks"]
    (segmentation,) = Predictor(FakeRuntime(reddish, size=48))(PIXELS, prompts=[Prompt(mask=RED)])
    assert np.array_equal(rle_decode(mask["rle"]), segmentation.mask)
    assert click(client, session, {"mask": None, "points": [[50, 40]]}).status_code == 200


def test_weights_without_guidance_take_masks_by_their_box():
    app = create_app(Predictor(FakeRuntime(reddish, size=48)), LIMITS)
    prompt = {"mask": as_png(RED), "points": [[50, 40]]}
    with TestClient(app, base_url="http://127.0.0.1:8428") as client:
        request = {"image": text(png(PIXELS)), "prompts": [prompt]}
        (mask,) = client.post("/v1/segment", json=request).json()["masks"]
    assert rle_decode(mask["rle"])[40, 50]


def test_a_hundred_clicks(client, session):
    rng = np.random.default_rng(0)
    places = {(int(x), int(y)) for x, y in rng.integers(0, 90, (120, 2))}
    points = [[x, y, int(RED[y, x])] for x, y in sorted(places)][:100]
    assert len(points) == 100
    answer = click(client, session, {"points": points})
    assert answer.status_code == 200, answer.text
    mask = rle_decode(answer.json()["masks"][0]["rle"])
    obeyed = sum(mask[y, x] == label for x, y, label in points)
    assert obeyed >= 98


def test_clicks_that_take_too_long_are_stopped_between_two_of_them():
    def slow(crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return follow(crop, planes)

    runtime = FakeRuntime(reddish, size=48, correct=slow)
    app = create_app(Predictor(runtime), replace(LIMITS, seconds=0.5))
    request = {"image": text(png(PIXELS)), "prompts": [{"points": [[50, 40]] * 100}]}
    with TestClient(app, base_url="http://127.0.0.1:8428") as client:
        answer = client.post("/v1/segment", json=request)
        assert answer.status_code == 503
        assert "fewer prompts or clicks" in answer.json()["error"]
        assert len(runtime.planes) < 20
        request["prompts"] = [{"points": [[50, 40]]}]
        assert client.post("/v1/segment", json=request).status_code == 200


SMALL = np.ones((HEIGHT - 1, WIDTH), bool)
CUT_OFF = text(base64.b64decode(as_png(RED))[:60])
COLORED = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
COLORED[20:40, 20:40, 0] = 255
JPEG = io.BytesIO()
Image.fromarray(PIXELS).save(JPEG, "JPEG")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (as_png(SMALL), "the mask has 120 x 89 pixels and the image 120 x 90"),
        (rle_encode(SMALL), "the mask has 120 x 89 pixels and the image 120 x 90"),
        ({"size": [10**30, 1], "counts": ""}, "pixels and the image 120 x 90"),
        (as_png(np.ones((300, 300), bool)), "the limit is 0.04 million"),
        ("@@", "'mask' is not base64"),
        ("data:image/png,hi", "'mask' is a data URL that is not base64"),
        ("aGk=", "a PNG file in base64, or COCO's RLE"),
        ("", "a PNG file in base64, or COCO's RLE"),
        (text(JPEG.getvalue()), "a PNG file in base64, or COCO's RLE"),
        (CUT_OFF, "'mask': "),
        (text(png(COLORED)), "white on black"),
        (7, "a PNG file in base64, or COCO's RLE"),
        ([[0, 1]], "a PNG file in base64, or COCO's RLE"),
        ({"size": [HEIGHT, WIDTH]}, "a PNG file in base64, or COCO's RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": None}, "a PNG file in base64, or COCO's RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": "", "path": "/"}, "or COCO's RLE"),
        ({"size": [HEIGHT, WIDTH], "counts": "1" * (MAX_COUNTS + 1)}, "too long"),
        ({"size": [HEIGHT, WIDTH], "counts": [9] * _MAX_VALUES}, "more than 100,000 values"),
        ({"size": [HEIGHT, WIDTH], "counts": [5]}, "'mask': an RLE's counts add up to 5"),
        ({"size": [HEIGHT, WIDTH], "counts": "ä"}, "'mask': an RLE's counts hold characters"),
        ({"size": [HEIGHT, WIDTH], "counts": [None]}, "'mask': an RLE's counts must be"),
        ({"size": HEIGHT, "counts": "1"}, "'mask': an RLE's size must be two whole numbers"),
        ({"size": [True, WIDTH], "counts": "1"}, "the mask has 120 x True pixels"),
    ],
)
def test_masks_that_cannot_be_used(client, session, mask, message):
    answer = click(client, session, {"mask": mask, "points": [[50, 40]]})
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert len(answer.text) < 500


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"points": [[50, 40, 1], [50.4, 40.2, 0]]}, "is clicked as on the object and as off it"),
        ({"points": [[50, 40, 0]]}, "only negative points"),
        ({"mask": as_png(RED), "points": [[500, 40]]}, "lies outside the image"),
        ({"mask": as_png(RED), "points": [[5, 4]], "x": 1}, "no key 'x'"),
        ({"mask": as_png(RED & False)}, "the mask is empty"),
        ({"mask": as_png(RED & False), "points": [[50, 40, 0]]}, "the mask is empty"),
        ({"points": [[50, 40]] * 121}, "121 points are too many"),
    ],
)
def test_clicks_that_cannot_be_used(client, session, prompt, message):
    answer = click(client, session, prompt)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_the_masks_of_a_request_have_the_pixels_of_one_image(client, session):
    prompts = [{"mask": as_png(RED), "points": [[50, 40]]}] * 4  # 43,200 pixels
    assert click(client, session, *prompts[:3]).status_code == 200
    answer = click(client, session, *prompts)
    assert answer.status_code == 400
    assert "together may have 40,000 pixels" in answer.json()["error"]
