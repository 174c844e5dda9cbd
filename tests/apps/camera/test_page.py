"""The page: commands in, state and images out, and nothing for pages of other sites."""

from __future__ import annotations

import io
import re
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("starlette", reason="the page is an extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")

from starlette.testclient import TestClient

from picosam2.apps.camera.page import Feed, create_app
from picosam2.apps.camera.sensor import AiCamera
from picosam2.apps.camera.session import Session
from picosam2.apps.camera.simulated import SimulatedSensor
from picosam2.errors import WeightsError
from picosam2.predictor import Predictor
from picosam2.prompts import Box
from tests.helpers.box_finder import PatchFinder
from tests.helpers.fakes import FakeRuntime, fixed_scores, reddish

ADDRESS = "http://127.0.0.1:8429"


def scene(_frame: int) -> np.ndarray:
    image = np.full((240, 320, 3), 60, np.uint8)
    image[80:140, 100:160] = 230, 20, 30
    return image


@pytest.fixture
def camera(tmp_path):
    """A session, its feed and a client of its page; frames come when `session.step` is called."""
    network = tmp_path / "network.rpk"
    network.touch()
    scorers = {"click": fixed_scores(0.1, 0.2, 0.9, 0.4, 0.3, 0.2), "box": fixed_scores(0.8)}
    predictor = Predictor(FakeRuntime(reddish, scorers=scorers))
    sensor = SimulatedSensor(scene, lambda crop: predictor.runtime(crop[None])[0])
    sensor.kpi = 14.25, 0.5
    source = AiCamera(network, predictor.runtime.info, size=(320, 240), devices=sensor.devices)
    session, feed = Session(source, predictor), Feed()
    with TestClient(create_app(session, feed), base_url=ADDRESS) as client:
        yield session, feed, client
    feed.close()


def go(session: Session, feed: Feed, frames: int) -> None:
    for _ in range(frames):
        feed.publish(session.step())


def test_the_page_is_whole_and_allows_only_itself(camera):
    _, _, client = camera
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([\w-]+)'", policy).group(1)
    assert answer.text.count(f'nonce="{nonce}"') == 2
    assert "{nonce}" not in answer.text
    assert "default-src 'none'" in policy
    assert nonce not in client.get("/").text
    for name in re.findall(r'\$\("(\w+)"\)', answer.text):
        assert f'id="{name}"' in answer.text


def test_state_before_and_after_a_box(camera):
    session, feed, client = camera
    assert client.get("/state").json()["state"] == "starting"
    go(session, feed, 4)
    first = client.get("/state").json()
    assert first["state"] == "idle"
    assert first["scales"] == 6
    assert first["rate"] == 30
    assert (first["dnn_ms"], first["dsp_ms"]) == (14.25, 0.5)
    assert first["simulated"] is False
    assert client.post("/do", json={"box": [100, 80, 160, 140]}).status_code == 200
    go(session, feed, 30)
    document = client.get("/state").json()
    assert document["state"] == "found"
    assert document["score"] == 0.8
    client.post("/do", json={"forget": True})
    go(session, feed, 1)
    assert client.get("/state").json()["state"] == "idle"


def test_a_box_over_the_edge_is_cut_without_a_warning(camera):
    session, feed, client = camera
    assert client.post("/do", json={"box": [-50, 80, 160, 140]}).status_code == 200
    go(session, feed, 3)
    left, top = session.step().window.x0, session.step().window.y0
    assert left == pytest.approx(0, abs=0.1)  # 1.2 times the rest, shrunk to the frame
    assert top == pytest.approx(80, abs=0.2)


def test_a_click_and_its_scale(camera):
    session, feed, client = camera
    assert client.post("/do", json={"scale": 2}).json()["scale"] == 2
    client.post("/do", json={"point": [130, 110]})
    go(session, feed, 5)
    assert client.get("/state").json()["step"] == [1, 1]
    assert client.post("/do", json={"scale": None}).json()["scale"] is None
    go(session, feed, 30)
    assert client.get("/state").json()["state"] == "found"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ({"point": [400, 10]}, "outside the image"),
        ({"point": [1]}, "a point has 2 or 3 numbers"),
        ({"point": [10, 10, 0]}, "only negative points"),
        ({"point": ["a", 1]}, "must be a number"),
        ({"box": [10, 10, 10, 50]}, "has no area"),
        ({"box": [400, 10, 500, 50]}, "lies outside the image"),
        ({"box": None}, "send {"),
        ({"scale": 6}, "choose from 0 to 5"),
        ({"scale": True}, "send {"),
        ({"forget": False}, "send {"),
        ({"point": [1, 1], "box": [1, 1, 2, 2]}, "send {"),
        ({"open": "/etc/passwd"}, "send {"),
        ([], "send {"),
    ],
    ids=repr,
)
def test_commands_that_make_no_sense(camera, command, message):
    _, _, client = camera
    answer = client.post("/do", json=command)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_bodies_that_are_no_commands(camera):
    _, _, client = camera
    kind = {"content-type": "application/json"}
    assert client.post("/do", content=b"{", headers=kind).status_code == 400
    assert client.post("/do", content=b"\xff\xfe{}", headers=kind).status_code == 400
    assert client.post("/do", content=b"[" * 4000, headers=kind).status_code == 400
    assert client.post("/do", content=b" " * 5000, headers=kind).status_code == 413
    assert client.post("/do", content=b'{"forget": true}').status_code == 415


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["point", "box", "scale", "forget", "x"]), inner, max_size=2
        )
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(value=json_values)
def test_no_command_breaks_it(camera, value):
    import json

    session, feed, client = camera
    kind = {"content-type": "application/json"}
    answer = client.post("/do", content=json.dumps(value).encode(), headers=kind)
    assert answer.status_code in (200, 400)
    go(session, feed, 1)


def test_what_is_there_is_boxes_that_can_be_commanded(camera):
    session, feed, _ = camera
    finder = PatchFinder()
    with TestClient(
        create_app(session, feed, open_finder=lambda: finder), base_url=ADDRESS
    ) as client:
        refused = client.get("/objects")
        assert (refused.status_code, "no frame" in refused.json()["error"]) == (409, True)
        go(session, feed, 2)
        assert not finder.batches
        answer = client.get("/objects")
        assert answer.headers["cache-control"] == "no-store"
        assert (answer.json()["width"], answer.json()["height"]) == (320, 240)
        (box,) = answer.json()["boxes"]
        assert box == pytest.approx([100, 80, 160, 140], abs=6)
        assert finder.batches == [1]  # one view: a camera does not wait for the parts
        assert client.post("/do", json={"box": box}).status_code == 200
        go(session, feed, 30)
        assert client.get("/state").json()["state"] == "found"


def test_a_finder_that_cannot_be_opened_is_said_and_the_camera_goes_on(camera):
    session, feed, _ = camera

    def fail() -> PatchFinder:
        raise WeightsError("there are no weights called finder: train one")

    with TestClient(create_app(session, feed, open_finder=fail), base_url=ADDRESS) as client:
        go(session, feed, 2)
        for _ in range(2):
            answer = client.get("/objects")
            assert answer.status_code == 503
            assert answer.json() == {"error": "there are no weights called finder: train one"}
        assert client.get("/state").json()["state"] == "idle"


def test_one_question_of_what_is_there_at_a_time(camera):
    session, feed, _ = camera
    begun, answered = threading.Event(), threading.Event()

    class Slow(PatchFinder):
        def __call__(self, views: np.ndarray) -> np.ndarray:
            begun.set()
            assert answered.wait(10)
            return super().__call__(views)

    go(session, feed, 2)
    finder = Slow()
    with TestClient(
        create_app(session, feed, open_finder=lambda: finder), base_url=ADDRESS
    ) as client:
        answers = []
        first = threading.Thread(target=lambda: answers.append(client.get("/objects")))
        first.start()
        assert begun.wait(10)
        assert client.get("/objects").status_code == 429
        answered.set()
        first.join(10)
        assert answers[0].status_code == 200
        assert client.get("/objects").status_code == 200


@pytest.mark.parametrize("path", ["/", "/state", "/stream", "/objects"])
def test_other_names_and_other_sites_are_refused(camera, path):
    _, _, client = camera
    assert client.get(path, headers={"host": "evil.example"}).status_code == 421
    for site in ("cross-site", "same-site"):
        assert client.get(path, headers={"sec-fetch-site": site}).status_code == 403


def test_the_stream_shows_frames_and_ends_with_the_camera(camera):
    session, feed, client = camera
    session.box(Box(100, 80, 160, 140))
    done = threading.Event()

    def frames() -> None:
        while not done.wait(0.02):
            go(session, feed, 1)
            if session._camera._index > 40:
                feed.close()
                return

    thread = threading.Thread(target=frames)
    thread.start()
    try:
        answer = client.get("/stream")
    finally:
        done.set()
        thread.join()
    assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
    parts = answer.content.split(b"--frame\r\n")[1:]
    assert len(parts) > 5
    head, _, body = parts[-1].partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
    last = np.asarray(Image.open(io.BytesIO(body[:length])))
    assert last.shape == (240, 320, 3)
    assert last[110, 130, 2] > 90  # the red object is tinted in blue


def test_a_feed_without_frames_says_so_and_ends(camera):
    _, feed, _ = camera
    assert feed.after(-1, timeout=0.01) == (-1, b"")
    feed.close()
    assert feed.after(-1) is None
