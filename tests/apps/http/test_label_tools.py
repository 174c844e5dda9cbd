"""The protocols of Label Studio and X-AnyLabeling, by the requests that their clients send."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")

from starlette.testclient import TestClient

from picosam2.apps.http.anylabeling import Params, prompts_of
from picosam2.apps.http.app import create_app
from picosam2.apps.http.label_studio import brush_rle
from picosam2.apps.http.limits import Limits
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt

HEIGHT, WIDTH = 40, 60
LIMITS = Limits(body=60_000, pixels=10_000, prompts=4, points=6)
BRUSH = """<View><Image name="img" value="$image"/><BrushLabels name="tag" toName="img">
<Label value="Cat"/></BrushLabels><KeyPointLabels name="kp" toName="img" smart="true">
<Label value="Cat"/></KeyPointLabels></View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")


def image_bytes() -> bytes:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2 < (HEIGHT / 4) ** 2
    pixels = np.where(disc[..., None], (220, 60, 40), (40, 90, 60)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


DATA_URL = "data:image/png;base64," + base64.b64encode(image_bytes()).decode()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    (root / "images" / "1").mkdir(parents=True)
    (root / "images" / "1" / "a b.png").write_bytes(image_bytes())
    (root / "secret.png").write_bytes(image_bytes())
    (root / "images" / "link.png").symlink_to(root / "secret.png")
    return root / "images"


@pytest.fixture(scope="module")
def client(predictor: Predictor, folder: Path) -> Iterator[TestClient]:
    app = create_app(predictor, LIMITS, images=folder)
    with TestClient(app, base_url="http://127.0.0.1:8428") as client:
        yield client


# -- Label Studio --------------------------------------------------------------------------------


def keypoint(x: float, y: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.3, "keypointlabels": ["Cat"]}
    return {"type": "keypointlabels", "original_width": WIDTH, "original_height": HEIGHT,
            "value": value, **more}  # fmt: skip


def rectangle(**more: Any) -> dict[str, Any]:
    value = {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["Cat"], **more}
    return {"type": "rectanglelabels", "value": value}


def ask(client: TestClient, regions: list[Any], config: str = BRUSH, image: Any = DATA_URL) -> Any:
    body = {"tasks": [{"id": 1, "data": {"image": image}}], "label_config": config,
            "project": "1.2", "params": {"context": {"result": regions}}}  # fmt: skip
    return client.post("/predict", json=body)


def decode(rle: list[int]) -> np.ndarray:
    """Label Studio's RLE, read bit by bit as its front end does."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    size, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = np.zeros(size, np.uint8)
    index = 0
    while index < size:
        same = read(1)
        end = index + 1 + read(lengths[read(2)])
        if same:
            values[index:end] = read(word)
            index = end
        else:
            for index in range(index, end):  # noqa: B020
                values[index] = read(word)
            index = end
    return values


@pytest.mark.parametrize("seed", range(4))
def test_brush_rle_is_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((31, 43)) < (0.5, 0.02, 0.98, 0)[seed]
    rle = brush_rle(mask)
    expected = np.repeat(mask.ravel(), 4) * 255
    np.testing.assert_array_equal(decode(rle), expected)


def test_brush_rle_of_long_runs() -> None:
    mask = np.zeros((300, 300), bool)
    mask[100:250] = True
    np.testing.assert_array_equal(decode(brush_rle(mask)), np.repeat(mask.ravel(), 4) * 255)


@pytest.mark.parametrize("mask", [np.ones((300, 200), bool), np.eye(57, dtype=bool)])
def test_label_studio_s_converter_reads_our_rle(mask: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    decoded = brush.decode_rle(brush_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(decoded[:, :, 3] > 0, mask)


def test_setup_and_health(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    answer = client.post("/setup", json={"project": "1.2", "schema": BRUSH, "access_token": "x"})
    assert answer.json()["model_version"].startswith("picosam2-")


def test_keypoints_give_a_brush(client: TestClient, predictor: Predictor) -> None:
    regions = [keypoint(50, 50, is_positive=1), keypoint(2, 2, is_positive=0)]
    answer = ask(client, regions).json()
    (prediction,) = answer["results"]
    (item,) = prediction["result"]
    prompt = Prompt((Point(30, 20), Point(1.2, 0.8, False)))
    (expected,) = predictor(image_bytes(), prompts=[prompt])
    mask = decode(item["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)[:, :, 3] > 0
    np.testing.assert_array_equal(mask, expected.mask)
    assert item["value"]["brushlabels"] == ["Cat"]
    assert (item["from_name"], item["to_name"], item["type"]) == ("tag", "img", "brushlabels")
    assert prediction["score"] == pytest.approx(expected.score)


def test_a_rectangle_gives_polygons(client: TestClient, predictor: Predictor) -> None:
    answer = ask(client, [rectangle()], POLYGON).json()
    items = answer["results"][0]["result"]
    (expected,) = predictor(image_bytes(), prompts=[Prompt(box=Box(15, 10, 45, 30))])
    outer = [polygon.points for polygon in expected.polygons() if not polygon.hole]
    assert len(items) == len(outer) > 0
    for item, points in zip(items, outer, strict=True):
        scaled = np.array(item["value"]["points"]) * [WIDTH / 100, HEIGHT / 100]
        np.testing.assert_allclose(scaled, points, atol=1e-9)


def test_a_task_nobody_has_clicked_on_gets_nothing(client: TestClient) -> None:
    body = {"tasks": [{"data": {"image": "http://x/a.png"}}] * 2, "label_config": BRUSH}
    assert [each["result"] for each in client.post("/predict", json=body).json()["results"]] == [
        [], [],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["/data/local-files/?d=1/a%20b.png", "/data/upload/1/a%20b.png", "1/a b.png",
     "http://localhost:8080/data/upload/1/a%20b.png"],
)  # fmt: skip
def test_images_of_the_folder(client: TestClient, name: str) -> None:
    assert ask(client, [rectangle()], image=name).json() == ask(client, [rectangle()]).json()


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "/data/upload/../secret.png", "/data/local-files/?d=../secret.png",
     "/data/upload/%2e%2e/secret.png", "link.png", "/etc/passwd", "http://example.org/a.png",
     "file:///etc/passwd", "1", "none.png", "a\0b", "http://["],
)  # fmt: skip
def test_nothing_else_is_opened(client: TestClient, name: str) -> None:
    answer = ask(client, [rectangle()], image=name)
    assert answer.status_code == 404
    assert answer.json() == {"error": "the folder of --images does not hold the task's image"}


def test_without_a_folder_an_address_is_refused(predictor: Predictor) -> None:
    with TestClient(create_app(predictor, LIMITS), base_url="http://127.0.0.1") as client:
        answer = ask(client, [rectangle()], image="1/a b.png")
    assert answer.status_code == 400
    assert "--images FOLDER" in answer.json()["error"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"regions": [{"type": "brushlabels", "value": {"x": 1, "y": 1}}]}, "is no prompt"),
        ({"regions": [keypoint(101, 5)]}, "0 to 100"),
        ({"regions": [keypoint(5, 5, original_width=61)]}, "image of 61x40"),
        ({"regions": [rectangle(width="x")]}, "0 to 100"),
        ({"regions": [keypoint(5, 5)] * 7}, "7 points are too many"),
        ({"regions": [rectangle()], "image": None}, "has no image"),
        ({"regions": [rectangle()], "image": "data:image/png;base64,?"}, "not base64"),
        ({"regions": [rectangle()], "config": "<View/>"}, "no BrushLabels"),
        ({"regions": [rectangle()], "config": "<View"}, "not XML"),
        ({"regions": [rectangle()], "config": '<!DOCTYPE a [<!ENTITY b "c">]><a/>'}, "document"),
    ],
)
def test_mistakes_are_sentences(client: TestClient, change: Any, sentence: str) -> None:
    answer = ask(client, **change)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_a_request_without_tasks(client: TestClient) -> None:
    for body in ({}, {"tasks": [], "label_config": BRUSH}, {"label_config": BRUSH}):
        assert client.post("/predict", json=body).status_code == 400


# -- X-AnyLabeling -------------------------------------------------------------------------------


def predict(client: TestClient, marks: Any, **more: Any) -> Any:
    params = {"conf_threshold": 0.0, "iou_threshold": 0.0, "epsilon_factor": 0.001, "marks": marks}
    body = {"model": "picosam2", "image": DATA_URL, "params": params, **more}
    return client.post("/v1/predict", json=body, headers={"Token": ""})


def test_the_models(client: TestClient) -> None:
    models = client.get("/v1/models").json()["data"]
    assert list(models) == ["picosam2"]
    assert client.get("/v1/models/picosam2/info").json()["data"] == models["picosam2"]
    assert client.get("/v1/models/other/info").status_code == 404


def test_marks_give_shapes(client: TestClient, predictor: Predictor) -> None:
    marks = [{"type": "rectangle", "data": [15, 10, 45, 30], "label": 1},
             {"type": "point", "data": [2, 2], "label": 0}]  # fmt: skip
    answer = predict(client, marks).json()
    assert answer["success"]
    prompt = Prompt((Point(2, 2, False),), box=Box(15, 10, 45, 30))
    (expected,) = predictor(image_bytes(), prompts=[prompt])
    shapes = answer["data"]["shapes"]
    assert len(shapes) == sum(not polygon.hole for polygon in expected.polygons(0.1)) > 0
    for shape in shapes:
        assert shape["shape_type"] == "polygon"
        assert shape["points"][0] == shape["points"][-1]
        assert shape["score"] == pytest.approx(expected.score)


def test_several_rectangles_are_several_objects() -> None:
    marks = [
        {"type": "rectangle", "data": [30, 20, 5, 4]},
        {"type": "rectangle", "data": [1, 2, 3, 4]},
    ]
    prompts = prompts_of(Params.model_validate({"marks": marks}), LIMITS)
    assert prompts == [Prompt(box=Box(5, 4, 30, 20)), Prompt(box=Box(1, 2, 3, 4))]


@pytest.mark.parametrize(
    ("marks", "more", "status", "sentence"),
    [
        ([], {}, 400, "no mark"),
        ([], {"params": {"text_prompt": "cat"}}, 400, "no words"),
        ([{"type": "point", "data": [1, 2, 3]}], {}, 400, "2 numbers"),
        ([{"type": "circle", "data": [1, 2]}], {}, 400, "point"),
        ([{"type": "rectangle", "data": [1, 2, 9, 9], "label": 0}], {}, 400, "use points"),
        ([{"type": "point", "data": [1, 2]}] * 7, {}, 400, "too many"),
        ([{"type": "point", "data": [1, 2]}], {"model": "sam3"}, 404, "no model"),
        ([{"type": "point", "data": [1, 2]}], {"image": "data:image/png,x"}, 400, "base64"),
    ],
)
def test_mistakes_of_marks(
    client: TestClient, marks: Any, more: Any, status: int, sentence: str
) -> None:
    answer = predict(client, marks, **more)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
