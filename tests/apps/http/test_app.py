"""The server, called in this process: answers, errors, limits, sessions, and hostile input."""

from __future__ import annotations

import base64
import inspect
import io
import json
import re
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

from starlette.testclient import TestClient

from picosam2.apps.http.app import create_app
from picosam2.apps.http.limits import Limits
from picosam2.apps.http.sessions import Sessions
from picosam2.cli.serve import serve
from picosam2.errors import ConfigError
from picosam2.io.sample_image import sample_bytes, sample_objects
from picosam2.masks import iou, rle_decode
from picosam2.predictor import Predictor

HEIGHT, WIDTH = 40, 60
LIMITS = Limits(body=60_000, pixels=10_000, prompts=4, points=6, sessions=2, session_pixels=9_000)
JPEG = {"content-type": "image/jpeg"}


def image_bytes(height: int = HEIGHT, width: int = WIDTH, kind: str = "PNG") -> bytes:
    y, x = np.mgrid[:height, :width]
    disc = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2
    pixels = np.where(disc[..., None], (220, 60, 40), (40, 90, 60)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def predictor(tiny_onnx: Path) -> Predictor:
    return Predictor(tiny_onnx, threads=1)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with TestClient(create_app(predictor, LIMITS), base_url="http://127.0.0.1:8428") as client:
        yield client


@pytest.fixture
def session(client: TestClient) -> str:
    name: str = client.post("/v1/sessions", content=image_bytes(), headers=JPEG).json()["session"]
    return name


def test_an_image_and_a_point(client):
    answer = client.post("/v1/segment?point=30,20", content=image_bytes(), headers=JPEG)
    assert answer.status_code == 200
    value = answer.json()
    assert (value["width"], value["height"]) == (WIDTH, HEIGHT)
    (mask,) = value["masks"]
    assert mask["prompt"] == {"points": [[30, 20, 1]]}
    assert rle_decode(mask["rle"]).shape == (HEIGHT, WIDTH)
    assert 0 <= mask["score"] <= 1


def test_json_is_the_same_as_the_query(client):
    by_query = client.post(
        "/v1/segment?point=30,20&box=20,10,40,30", content=image_bytes(), headers=JPEG
    )
    request = {
        "image": base64.b64encode(image_bytes()).decode(),
        "prompts": [{"points": [[30, 20]]}, {"box": [20, 10, 40, 30]}],
    }
    by_json = client.post("/v1/segment", json=request)
    assert by_json.status_code == 200
    assert by_json.json() == by_query.json()


def test_the_answers_are_the_predictor_s(client, predictor):
    request = {"prompts": [{"points": [[30, 20], [5, 5, 0]]}], "multimask": True,
             "image": base64.b64encode(image_bytes()).decode()}  # fmt: skip
    answer = client.post("/v1/segment", json=request).json()
    from picosam2.prompts import Point, Prompt

    prompt = Prompt((Point(30, 20), Point(5, 5, False)))
    segmentations = predictor(image_bytes(), prompts=[prompt], multimask=True)
    assert answer["masks"] == json.loads(json.dumps([each.to_json() for each in segmentations]))


@pytest.mark.parametrize(("form", "mode"), [("mask", "L"), ("overlay", "RGB"), ("cutout", "RGBA")])
def test_images(client, form, mode):
    url = f"/v1/segment?box=20,10,40,30&format={form}"
    answer = client.post(url, content=image_bytes(), headers=JPEG)
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (WIDTH, HEIGHT)
        assert image.mode == mode


def test_several_masks_are_an_indexed_image(client):
    url = "/v1/segment?box=20,10,40,30&point=5,5&format=mask"
    answer = client.post(url, content=image_bytes(), headers=JPEG)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.mode == "P"


def test_a_session_needs_no_second_upload(client, session):
    url = f"/v1/sessions/{session}/segment"
    for point in ([30, 20], [5, 5]):
        answer = client.post(url, json={"prompts": [{"points": [point]}]})
        assert answer.status_code == 200
        assert len(answer.json()["masks"]) == 1
    assert client.delete(f"/v1/sessions/{session}").status_code == 204
    assert client.delete(f"/v1/sessions/{session}").status_code == 404
    assert client.post(url, json={"prompts": [{"points": [[3, 3]]}]}).status_code == 404


def test_sessions_are_few_and_the_oldest_goes(client):
    names = [
        client.post("/v1/sessions", content=image_bytes(), headers=JPEG).json()["session"]
        for _ in range(3)
    ]
    request = {"prompts": [{"points": [[3, 3]]}]}
    states = [client.post(f"/v1/sessions/{n}/segment", json=request).status_code for n in names]
    assert states == [404, 200, 200]


def test_sessions_expire_and_stay_within_their_pixels():
    now = [0.0]
    sessions = Sessions(LIMITS, clock=lambda: now[0])
    image = np.zeros((50, 100, 3), np.uint8)
    first = sessions.add(image)
    second = sessions.add(image)  # 10,000 pixels are more than 9,000
    assert sessions.get(first) is None
    assert sessions.get(second) is image
    assert sessions.pixels == 5_000
    now[0] += LIMITS.session_seconds + 1
    assert sessions.get(second) is None
    assert len(sessions) == 0


@pytest.mark.parametrize(
    ("url", "content", "headers", "status", "message"),
    [
        ("/v1/segment?point=3,3", b"", JPEG, 400, "no image"),
        ("/v1/segment?point=3,3", b"junk", JPEG, 400, "not an image"),
        ("/v1/segment?point=3,3", b"x" * 60_001, JPEG, 413, "at most 60,000 bytes"),
        ("/v1/segment?point=3,3", b"{}", {"content-type": "text/plain"}, 415, "image/jpeg"),
        ("/v1/segment?point=3,3", b"{}", {}, 415, "image/jpeg"),
        ("/v1/segment", "IMAGE", JPEG, 400, "no prompt"),
        ("/v1/segment?point=3", "IMAGE", JPEG, 400, "not a point"),
        ("/v1/segment?point=300,3", "IMAGE", JPEG, 400, "outside the image"),
        ("/v1/segment?point=3,3&path=/etc/passwd", "IMAGE", JPEG, 400, "no parameter 'path'"),
        ("/v1/segment?point=3,3&format=exe", "IMAGE", JPEG, 400, "must be one of json"),
        ("/v1/segment?point=" + "1" * 80 + ",3", "IMAGE", JPEG, 400, "too many digits"),
        ("/v1/segment?" + "point=3,3&" * 5, "IMAGE", JPEG, 400, "5 prompts are too many"),
        ("/v1/segment?point=3,3&point=4,4&format=cutout", "IMAGE", JPEG, 400, "one object"),
        ("/v1/sessions?point=3,3", "IMAGE", JPEG, 400, "no parameter 'point'"),
        ("/v1/sessions", "LARGE", JPEG, 400, "the limit is 0.01 million"),
    ],
)
def test_mistakes_are_told(client, url, content, headers, status, message):
    content = {"IMAGE": image_bytes(), "LARGE": image_bytes(101, 100)}.get(content, content)
    answer = client.post(url, content=content, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("url", "content", "option"),
    [
        ("/v1/sessions", "LARGE", "--max-megapixels"),
        ("/v1/segment?point=3,3", b"x" * 60_001, "--max-body-mb"),
        ("/v1/segment?" + "point=3,3&" * 5, "IMAGE", "--max-prompts"),
    ],
)
def test_a_limit_names_the_option_that_moves_it(client, url, content, option):
    content = {"IMAGE": image_bytes(), "LARGE": image_bytes(101, 100)}.get(content, content)
    message = client.post(url, content=content, headers=JPEG).json()["error"]
    assert message.endswith(f"(or start the server with a larger {option})")
    assert option.removeprefix("--").replace("-", "_") in inspect.signature(serve).parameters


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a JSON object"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": {}}, "must be a list"),
        ({"prompts": [{"box": [9, 9, 1, 1]}]}, "swapped"),
        ({"prompts": [{"points": [[1, 1]], "x": 1}]}, "no key 'x'"),
        ({"prompts": [{"points": [[1, 1]] * 7}]}, "7 points are too many"),
        ({"prompts": [{"points": [[1, 1]]}], "multimask": 1}, "true or false"),
        ({"prompts": [{"points": [[1, 1]]}], "format": ["json"]}, "must be one of"),
        ({"prompts": [{"points": [[1, 1]]}], "image": "aGk="}, "has its image"),
        ({"prompts": [{"points": [[1, 1]]}], "url": "file:///etc/passwd"}, "no key 'url'"),
    ],
)
def test_json_mistakes_are_told(client, session, value, message):
    answer = client.post(f"/v1/sessions/{session}/segment", json=value)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("@@", "not base64"),
        ("aGk", "not base64"),
        ({"url": "http://x"}, "in base64"),
        (None, "in base64"),
        ("data:image/png,hi", "end it in ;base64,"),
        ("", "no image"),
        ("aGk=", "not an image"),
    ],
)
def test_mistakes_in_base64(client, image, message):
    for url, value in (("/v1/segment", {"prompts": [{"points": [[1, 1]]}]}), ("/v1/sessions", {})):
        answer = client.post(url, json={**value, "image": image})
        assert answer.status_code == 400
        assert message in answer.json()["error"]


def test_base64_in_lines_and_as_a_data_url(client):
    lines = base64.encodebytes(image_bytes()).decode()
    assert "\n" in lines.strip()
    plain = base64.b64encode(image_bytes()).decode()
    answers = [
        client.post("/v1/segment", json={"image": text, "prompts": [{"points": [[30, 20]]}]})
        for text in (plain, lines, lines.replace("\n", "\r\n"), f"data:image/png;base64,{plain}")
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(answer.json() == answers[0].json() for answer in answers)


def test_a_form(client):
    files = {"image": ("a.png", image_bytes(), "image/png")}
    plain = client.post(
        "/v1/segment?point=30,20&box=20,10,40,30", content=image_bytes(), headers=JPEG
    )
    for url, fields in (
        ("/v1/segment", {"point": ["30,20"], "box": "20,10,40,30"}),
        ("/v1/segment?point=30,20", {"box": "20,10,40,30"}),
        ("/v1/segment?point=30,20&box=20,10,40,30", {}),
    ):
        answer = client.post(url, files=files, data=fields)
        assert answer.status_code == 200, answer.text
        assert answer.json() == plain.json()
    assert client.post("/v1/sessions", files=files).status_code == 201


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({"image": b""}, {"point": "3,3"}, "no image"),
        ({"file": b"x"}, {"point": "3,3"}, "no image"),
        ({"image": b"x"}, {"point": "3,3"}, "not an image"),
        ({"image": b"x"}, {"x": "3"}, "no field 'x'"),
        ({"image": b"x"}, {"multimask": "maybe"}, "true or false"),
        ({"image": b"x"}, {"prompts": "[]"}, "'point' and 'box'"),
        ({"image": b"x", "more": b"x"}, {"point": "3,3"}, "the form cannot be read"),
    ],
)
def test_mistakes_in_a_form(client, files, fields, message):
    named = {name: ("a.png", data) for name, data in files.items()}
    answer = client.post("/v1/segment", files=named, data=fields)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_form_in_letters_that_cannot_be_read(client):
    kind = "multipart/form-data; boundary=x; charset=undefined"
    body = b'--x\r\nContent-Disposition: form-data; name="point"\r\n\r\n3,3\r\n--x--\r\n'
    answer = client.post("/v1/segment", content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text


def test_a_form_of_no_form(client):
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        for body in (
            b"",
            b"x",
            b"--x\r\n",
            b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--",
        ):
            answer = client.post("/v1/segment", content=body, headers={"content-type": kind})
            assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 50_000, b'{"prompts": NaN}', b"\xff", b"1" * 5000]
)
def test_what_is_not_json(client, body):
    answer = client.post("/v1/segment", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_a_body_without_a_length_is_cut_off_too(client):
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    assert client.post("/v1/segment?point=1,1", content=parts(), headers=JPEG).status_code == 413


def test_a_box_that_reaches_out_is_cut_without_a_word(client):
    answer = client.post("/v1/segment?box=-9,-9,30,30", content=image_bytes(), headers=JPEG)
    assert answer.status_code == 200
    assert answer.json()["masks"][0]["prompt"] == {"box": [0, 0, 30, 30]}


def test_names_and_methods_that_mean_nothing(client):
    assert "openapi" in client.get("/nothing").json()["error"]
    answer = client.get("/v1/segment")
    assert answer.status_code == 405
    assert "openapi" in answer.json()["error"]
    assert answer.headers["allow"] == "POST"


def test_a_foreign_host_name_is_refused(client):
    for host in ("evil.example", "evil.example:8428", "", "127.0.0.1.evil.example"):
        assert client.get("/health", headers={"host": host}).status_code == 421
        assert client.get("/health/", headers={"host": host}).status_code == 421
    for host in ("localhost", "LOCALHOST:1", "[::1]:8428", "127.0.0.1"):
        assert client.get("/health", headers={"host": host}).status_code == 200
        assert client.get("/health/", headers={"host": host}).status_code == 404
    refused = client.get("/health", headers={"host": "box.local:8428"}).json()["error"]
    assert "--allow-host box.local" in refused


def test_the_address_of_the_connection_is_answered(predictor):
    with TestClient(create_app(predictor, LIMITS), base_url="http://192.0.2.7:8428") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"host": "192.0.2.8"}).status_code == 421


def test_no_other_site_is_given_leave(client):
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = client.options("/v1/segment", headers=headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_forms_of_other_sites_are_refused(client, headers):
    files = {"image": ("a.png", image_bytes(), "image/png")}
    answer = client.post("/v1/segment?point=3,3", files=files, headers=headers)
    assert answer.status_code == 403
    own = {"origin": "http://localhost:3000", "sec-fetch-site": "same-origin"}
    assert client.post("/v1/segment?point=3,3", files=files, headers=own).status_code == 200


def test_what_a_client_sent_does_not_come_back_whole(client):
    key = "k" * 10_000
    bodies = [{key: 1}, {"prompts": [{key: 1}]}, {"prompts": [{"points": [[1, 1, key]]}]}]
    for body in bodies:
        answer = client.post("/v1/segment", json={"image": "aGk=", **body})
        assert answer.status_code == 400
        assert len(answer.text) < 500
    assert len(client.post(f"/v1/segment?{key}=1", content=b"x", headers=JPEG).text) < 500


def test_answers_are_what_the_document_says(client):
    from picosam2.apps.http.schemas import Health, Index, Masks, Session

    answer = client.post(
        "/v1/segment?box=20,10,40,30&multimask=true", content=image_bytes(), headers=JPEG
    )
    Masks.model_validate_json(answer.content)
    Session.model_validate_json(
        client.post("/v1/sessions", content=image_bytes(), headers=JPEG).content
    )
    Health.model_validate_json(client.get("/health").content)
    Index.model_validate_json(client.get("/").content)


def test_metrics_count(client):
    def count(text: str) -> int:
        line = re.search(r'requests_total\{route="/health",status="200"\} (\d+)', text)
        return int(line[1]) if line else 0

    before = count(client.get("/metrics").text)
    client.get("/health")
    after = client.get("/metrics")
    assert count(after.text) == before + 1
    assert after.headers["content-type"].startswith("text/plain")
    for line in after.text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{.*\})? [0-9.e+-]+", line), line


def test_openapi_describes_every_route(client, predictor):
    document = client.get("/openapi.json").json()
    offered = {
        (path, method)
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    routes = {
        (route.path, method.lower())
        for route in create_app(predictor).routes
        for method in route.methods - {"HEAD"}
        if route.path != "/openapi.json"
    }
    assert offered == routes

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    for reference in set(references(document)):
        result = document
        for part in reference.removeprefix("#/").split("/"):
            result = result[part]


def test_limits_make_sense():
    with pytest.raises(ConfigError, match="pixels must be above 0"):
        Limits(pixels=0)
    with pytest.raises(ConfigError, match="bodies must be at least"):
        Limits(body=2, bodies=1)


def test_a_fault_of_ours_tells_nothing(predictor, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    app = create_app(predictor, LIMITS)
    monkeypatch.setattr("picosam2.apps.http.app.Service.decode", fail)
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.post("/v1/segment?point=3,3", content=image_bytes(), headers=JPEG)
    assert answer.status_code == 500
    assert "secret" not in answer.text


# --- hostile input --------------------------------------------------------------------------------

fuzz = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
numbers = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(), st.integers(), st.booleans(), st.none()
)
scalars = st.one_of(numbers, st.text(max_size=8))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
coordinates = st.one_of(st.floats(-10, 70), numbers)
prompts = st.one_of(
    values,
    st.fixed_dictionaries(
        {},
        optional={
            "points": st.one_of(
                values, st.lists(st.lists(coordinates, max_size=4), min_size=1, max_size=4)
            ),
            "box": st.one_of(values, st.lists(coordinates, min_size=3, max_size=5)),
        },
    ),
)
prompt_values = st.one_of(
    values,
    st.fixed_dictionaries(
        {"prompts": st.one_of(values, st.lists(prompts, max_size=3))},
        optional={
            "multimask": st.one_of(st.booleans(), values),
            "format": st.one_of(st.sampled_from(["json", "mask", "overlay", "cutout"]), values),
        },
    ),
)


@fuzz
@given(value=prompt_values)
def test_any_json_is_answered_or_refused(client, session, value):
    # allow_nan: what a careless client writes, which is no JSON
    body = json.dumps(value, allow_nan=True).encode()
    answer = client.post(
        f"/v1/sessions/{session}/segment",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert list(answer.json()) == ["error"]


@fuzz
@given(
    body=st.binary(max_size=400),
    cut=st.integers(0, 400),
    query=st.text(max_size=40),
    kind=st.sampled_from(["image/png", "image/x", "application/json", "text/html", ""]),
)
def test_any_bytes_are_answered_or_refused(client, body, cut, query, kind):
    data = body + image_bytes()[cut:] if cut % 2 else image_bytes()[:cut] + body
    params = {"point": ["3,3", query]}
    headers = {"content-type": kind}
    for url in ("/v1/segment", "/v1/sessions"):
        answer = client.post(url, content=data, params=params, headers=headers)
        assert answer.status_code in (200, 201, 400, 415), answer.text


@fuzz
@given(name=st.text(max_size=30), method=st.sampled_from(["GET", "POST", "DELETE", "PUT"]))
def test_any_path_is_answered_or_refused(client, name, method):
    from urllib.parse import quote

    answer = client.request(method, f"/v1/sessions/{quote(name, safe='')}")
    assert answer.status_code in (204, 404, 405, 415), answer.text


# --- everything ---------------------------------------------------------------------------------


def test_everything_of_an_image(client):
    answer = client.post("/v1/everything?max_masks=5", content=image_bytes(), headers=JPEG)
    assert answer.status_code == 200, answer.text
    value = answer.json()
    assert (value["width"], value["height"]) == (WIDTH, HEIGHT)
    assert len(value["masks"]) <= 5
    areas = [mask["area"] for mask in value["masks"]]
    assert areas == sorted(areas, reverse=True)
    for mask in value["masks"]:
        assert rle_decode(mask["rle"]).shape == (HEIGHT, WIDTH)
        assert len(mask["prompt"]["box"]) == 4


def test_everything_as_an_image_of_masks_has_as_many_as_it_holds(client):
    url = "/v1/everything?format=mask&max_masks="
    assert client.post(f"{url}255", content=image_bytes(), headers=JPEG).status_code == 200
    answer = client.post(f"{url}256", content=image_bytes(), headers=JPEG)
    assert answer.status_code == 400
    assert "holds 255 of them" in answer.json()["error"]


def test_everything_of_the_sample_finds_its_objects() -> None:
    data = sample_bytes()
    limits = Limits()
    with TestClient(create_app(Predictor(threads=1), limits, threads=1),
                    base_url="http://127.0.0.1:8428") as client:  # fmt: skip
        masks = client.post("/v1/everything", content=data, headers=JPEG).json()["masks"]
        session = client.post("/v1/sessions", content=data, headers=JPEG).json()["session"]
        kept = client.post(f"/v1/sessions/{session}/everything").json()["masks"]
        overlay = client.post("/v1/everything?format=overlay", content=data, headers=JPEG)
    assert len(masks) > 3
    decoded = [rle_decode(mask["rle"]) for mask in masks]
    best = {
        thing.name: max(iou(mask, thing.mask) for mask in decoded) for thing in sample_objects()
    }
    assert min(best["apple"], best["tennis ball"]) > 0.9
    assert np.median(list(best.values())) > 0.6
    assert kept == masks
    assert Image.open(io.BytesIO(overlay.content)).size == (640, 480)


@pytest.mark.parametrize("form", ["mask", "overlay"])
def test_everything_as_an_image(client, form: str) -> None:
    answer = client.post(f"/v1/everything?format={form}", content=image_bytes(), headers=JPEG)
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (WIDTH, HEIGHT)


def test_everything_of_an_empty_image_is_an_answer(client) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(buffer, "PNG")
    for form in ("json", "mask", "overlay"):
        answer = client.post(f"/v1/everything?format={form}", content=buffer.getvalue(),
                             headers=JPEG)  # fmt: skip
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("max_masks=0", "max_masks"),
        ("max_masks=301", "max_masks"),
        ("max_masks=many", "max_masks"),
        ("format=cutout", "must be one of json, mask or overlay"),
        ("point=3,4", "no parameter 'point': use max_masks, format"),
    ],
)
def test_everything_asked_in_a_wrong_way(client, session, query: str, message: str) -> None:
    for path in ("/v1/everything", f"/v1/sessions/{session}/everything"):
        answer = client.post(f"{path}?{query}", content=image_bytes(), headers=JPEG)
        assert answer.status_code == 400
        assert message in answer.json()["error"]


def test_everything_of_no_image_or_no_session(client) -> None:
    assert client.post("/v1/everything", content=b"", headers=JPEG).status_code == 400
    assert client.post("/v1/everything", content=b"no image", headers=JPEG).status_code == 400
    assert client.post("/v1/sessions/none/everything").status_code == 404


def test_everything_stops_when_its_time_is_over(predictor: Predictor) -> None:
    limits = Limits(seconds=1e-3)
    with TestClient(create_app(predictor, limits), base_url="http://127.0.0.1:8428") as client:
        answer = client.post("/v1/everything", content=image_bytes(), headers=JPEG)
    assert answer.status_code in (408, 503)
