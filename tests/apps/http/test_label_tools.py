"""The protocols of Label Studio and X-AnyLabeling, by the requests that their clients send."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("starlette", reason="the server is an extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")

from helpers.fakes import FakeRuntime, disc, reddish
from starlette.testclient import TestClient

from picosam2.apps.http.anylabeling import Params, prompts_of
from picosam2.apps.http.app import create_app
from picosam2.apps.http.errors import RequestError
from picosam2.apps.http.label_studio import brush_rle, read_brush_rle, read_tags
from picosam2.apps.http.limits import Limits
from picosam2.masks import Polygon, fill_polygons
from picosam2.predictor import Predictor
from picosam2.prompts import Box, Point, Prompt

HEIGHT, WIDTH = 40, 60
DISC = disc(HEIGHT, WIDTH, WIDTH / 2, HEIGHT / 2, HEIGHT / 4)
LIMITS = Limits(body=60_000, pixels=10_000, prompts=4, points=6)
BRUSH = """<View><Image name="img" value="$image"/><BrushLabels name="tag" toName="img">
<Label value="Cat"/></BrushLabels><KeyPointLabels name="kp" toName="img" smart="true">
<Label value="Cat"/></KeyPointLabels></View>"""
POLYGON = BRUSH.replace("BrushLabels", "PolygonLabels")


def image_bytes() -> bytes:
    pixels = np.where(DISC[..., None], (220, 60, 40), (40, 90, 60)).astype(np.uint8)
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


def guided() -> FakeRuntime:
    """Answers with what is red, and follows clicks where guidance comes along."""

    def follow(_crop: np.ndarray, planes: np.ndarray) -> np.ndarray:
        mask = np.maximum(planes[0], planes[1]) * (1 - planes[2])
        return ((mask - 0.5) * 16)[None]

    return FakeRuntime(reddish, size=48, correct=follow)


@pytest.fixture(scope="module")
def guided_client() -> Iterator[TestClient]:
    app = create_app(Predictor(guided()), LIMITS)
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


def brush(rle: Any) -> dict[str, Any]:
    return {"type": "brushlabels", "value": {"format": "rle", "rle": rle, "brushlabels": ["Cat"]}}


def polygon(points: Any) -> dict[str, Any]:
    return {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["Cat"]}}


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


@pytest.mark.parametrize("seed", range(3))
def test_brush_rle_is_read_as_it_was_written(seed: int) -> None:
    mask = np.random.default_rng(seed).random((31, 43)) < (0.5, 0.02, 0)[seed]
    np.testing.assert_array_equal(read_brush_rle(brush_rle(mask), 31, 43), mask)


def test_label_studio_s_own_rle_is_read() -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    mask = np.random.default_rng(0).random((31, 43)) < 0.3
    rle = brush.mask2rle(mask.astype(np.uint8) * 255)
    np.testing.assert_array_equal(read_brush_rle(rle, 31, 43), mask)


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


def corrected(*points: Point, mask: np.ndarray | None = None) -> np.ndarray:
    """What weights with guidance answer on the test image."""
    prompt = Prompt(tuple(points), mask=mask)
    mask_found: np.ndarray = Predictor(guided())(image_bytes(), prompts=[prompt])[0].mask
    return mask_found


def test_further_keypoints_are_corrections(guided_client: TestClient) -> None:
    regions = [keypoint(50, 50), keypoint(90, 80), keypoint(50, 40, is_positive=0)]
    (item,) = ask(guided_client, regions).json()["results"][0]["result"]
    mask = read_brush_rle(item["value"]["rle"], HEIGHT, WIDTH)
    points = Point(30, 20), Point(54, 32), Point(30, 16, False)
    np.testing.assert_array_equal(mask, corrected(*points))
    assert mask[32, 54]
    assert not mask[16, 30]


@pytest.mark.parametrize(
    "drawn",
    [brush([1, 2, 3]), polygon([[10, 10], [50, 10], [50, 50]]), rectangle()],
    ids=["brush", "polygon", "rectangle"],
)
def test_negative_shapes_are_refused(client: TestClient, drawn: dict[str, Any]) -> None:
    answer = ask(client, [keypoint(50, 50), {**drawn, "is_positive": False}])
    assert answer.status_code == 400
    assert f"a negative {drawn['type'].removesuffix('labels')} cannot" in answer.json()["error"]


def test_a_rotated_rectangle_is_refused(client: TestClient) -> None:
    assert ask(client, [rectangle(rotation=0)]).status_code == 200
    answer = ask(client, [rectangle(rotation=90)])
    assert answer.status_code == 400
    assert "rotated rectangle" in answer.json()["error"]


@pytest.mark.parametrize("shape", ["brush", "polygon"])
def test_a_shape_of_label_studio_is_refined(guided_client: TestClient, shape: str) -> None:
    start = np.zeros((HEIGHT, WIDTH), bool)
    start[4:20, 6:30] = True
    drawn = brush(brush_rle(start))
    if shape == "polygon":
        drawn = polygon([[10, 10], [50, 10], [50, 50], [10, 50]])
    answer = ask(guided_client, [drawn, keypoint(20, 20, is_positive=0)]).json()
    (item,) = answer["results"][0]["result"]
    mask = read_brush_rle(item["value"]["rle"], HEIGHT, WIDTH)
    np.testing.assert_array_equal(mask, corrected(Point(12, 8, False), mask=start))
    assert mask[15, 25]
    assert not mask[8, 12]


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
        ({"regions": [{"type": "ellipselabels", "value": {"x": 1, "y": 1}}]}, "is no prompt"),
        ({"regions": [rectangle(), rectangle()]}, "several rectangles"),
        ({"regions": [brush([1, 2, 3])]}, "damaged"),
        ({"regions": [brush(None)]}, "damaged"),
        ({"regions": [brush([300, -1, "x"])]}, "damaged"),
        ({"regions": [brush([0] * 60)]}, "damaged"),
        ({"regions": [brush(brush_rle(np.ones((8, 8), bool)))]}, "not of an image of 60x40"),
        ({"regions": [brush(brush_rle(DISC)[:-9])]}, "damaged"),
        ({"regions": [brush(brush_rle(DISC & False))]}, "the mask is empty"),
        ({"regions": [{"type": "brushlabels", "value": {"format": "png"}}]}, "format rle"),
        ({"regions": [polygon([[1, 1], [5, 5]])]}, "3 to 1,000 points"),
        ({"regions": [polygon([[1, 1], [5, 5], [5]])]}, "must be [x, y]"),
        ({"regions": [polygon([[1, 1], [5, 5], [5, 101]])]}, "0 to 100"),
        ({"regions": [polygon([[0, 0], [9, 9]] * 501)]}, "3 to 1,000 points"),
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


def in_lines() -> str:
    lines = base64.encodebytes(image_bytes()).decode()
    assert "\n" in lines.strip()
    return lines


def test_a_task_s_image_in_lines_of_base64(client: TestClient) -> None:
    answers = [
        ask(client, [rectangle()], image=url)
        for url in (DATA_URL, "data:image/png;base64," + in_lines())
    ]
    assert answers[0].status_code == 200
    assert masks_of(answers[0]) == masks_of(answers[1])


def masks_of(answer: Any) -> list[Any]:
    """The values of an answer's regions, without their random ids."""
    (made,) = answer.json()["results"]
    assert made["result"]
    return [region["value"] for region in made["result"]]


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


def test_an_image_in_lines_of_base64_and_as_a_data_url(client: TestClient) -> None:
    marks = [{"type": "rectangle", "data": [15, 10, 45, 30]}]
    plain = base64.b64encode(image_bytes()).decode()
    answers = [
        predict(client, marks, image=text).json()["data"]
        for text in (plain, DATA_URL, in_lines(), "data:image/png;base64," + in_lines())
    ]
    assert answers[0]["shapes"]
    assert answers == [answers[0]] * 4


def test_several_marks_are_corrections(guided_client: TestClient) -> None:
    marks = [{"type": "point", "data": data, "label": label}
             for data, label in (([30, 20], 1), ([54, 32], 1), ([30, 16], 0))]  # fmt: skip
    shapes = predict(guided_client, marks).json()["data"]["shapes"]
    points = Point(30, 20), Point(54, 32), Point(30, 16, False)
    rings = [Polygon(np.array(shape["points"][:-1]), hole=False) for shape in shapes]
    outlines, expected = fill_polygons(rings, HEIGHT, WIDTH), corrected(*points)
    assert expected[32, 54]
    assert not expected[16, 30]
    assert (outlines & expected).sum() > 0.9 * (outlines | expected).sum()


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


# -- hostile requests ----------------------------------------------------------------------------

fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
numbers = st.one_of(st.floats(), st.integers(), st.floats(-1, 101), st.booleans(), st.none())
values = st.recursive(
    st.one_of(numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=10,
)
pairs = st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=5)
kinds = st.sampled_from(
    ["keypoint", "keypointlabels", "rectanglelabels", "brush", "brushlabels", "polygonlabels"]
)
regions = st.fixed_dictionaries(
    {
        "type": st.one_of(kinds, kinds, values),
        "value": st.one_of(
            values,
            st.fixed_dictionaries(
                {},
                optional={
                    **dict.fromkeys(("x", "y", "width", "height"), numbers),
                    "points": st.one_of(values, pairs),
                    "format": st.one_of(st.just("rle"), values),
                    "rle": st.one_of(values, st.lists(st.integers(-1, 256), max_size=40)),
                    "keypointlabels": values,
                },
            ),
        ),
    },
    optional={"is_positive": values, "original_width": values, "original_height": values},
)
images = st.one_of(values, st.just(DATA_URL), st.just(DATA_URL), st.text(max_size=20))


def answered_or_refused(client: TestClient, path: str, value: Any) -> None:
    # allow_nan: what a careless client writes, which is no JSON
    body = json.dumps(value, allow_nan=True).encode()
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]


@fuzz
@given(
    drawn=st.one_of(values, st.lists(regions, min_size=1, max_size=3)),
    config=st.one_of(st.just(BRUSH), st.just(POLYGON), values),
    image=images,
)
def test_any_task_is_answered_or_refused(
    client: TestClient, drawn: Any, config: Any, image: Any
) -> None:
    task = {"data": {"image": image}}
    body = {"tasks": [task], "label_config": config, "params": {"context": {"result": drawn}}}
    answered_or_refused(client, "/predict", body)


@fuzz
@given(value=values)
def test_any_json_of_a_label_tool_is_answered_or_refused(client: TestClient, value: Any) -> None:
    for path in ("/predict", "/setup", "/v1/predict"):
        if path != "/setup":
            answered_or_refused(client, path, value)
        answered_or_refused(client, path, {"tasks": value, "label_config": BRUSH, "params": value})


@fuzz
@given(
    marks=st.one_of(
        values,
        st.lists(
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(["point", "rectangle", "circle"]),
                    "data": st.one_of(values, st.lists(numbers, min_size=2, max_size=4)),
                },
                optional={"label": st.one_of(st.sampled_from([0, 1]), values)},
            ),
            min_size=1,
            max_size=3,
        ),
    ),
    image=images,
    epsilon=st.one_of(st.just(0.001), values),
)
def test_any_marks_are_answered_or_refused(
    client: TestClient, marks: Any, image: Any, epsilon: Any
) -> None:
    params = {"marks": marks, "epsilon_factor": epsilon}
    answered_or_refused(
        client, "/v1/predict", {"model": "picosam2", "image": image, "params": params}
    )


def test_a_labeling_interface_of_many_tags_takes_no_time() -> None:
    many = '<Image name="a" value="$a"/>' * 3000 + '<BrushLabels toName="b"/>' * 4000
    started = time.process_time()
    with pytest.raises(RequestError, match="no BrushLabels"):
        read_tags(f"<View>{many}</View>")
    assert time.process_time() - started < 1
