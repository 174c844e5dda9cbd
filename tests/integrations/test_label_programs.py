"""Label Studio and X-AnyLabeling themselves, connected to a running `picosam2 serve`.

Label Studio is started with a database of its own and used through its interface for programs; of
X-AnyLabeling its own client of remote servers is used, with its settings, without a window.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the server is an extra")

from picosam2 import Box, Point, Predictor, Prompt, sample
from picosam2.io.sample_image import sample_bytes
from picosam2.masks import Polygon, fill_polygons

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = sample().shape[:2]
CLICK, OFF, BOX = (353.0, 349.0), (200.0, 100.0), (310.0, 303.0, 396.0, 394.0)
TOKEN = "a-token-of-the-test"
USER_TOKEN = "0123456789abcdef0123456789abcdef01234567"
LABELS = """<View><Image name="img" value="$image"/><BrushLabels name="tag" toName="img">
<Label value="Apple"/></BrushLabels><KeyPointLabels name="kp" toName="img" smart="true">
<Label value="Apple"/></KeyPointLabels></View>"""


def expected(prompt: Prompt) -> np.ndarray:
    mask: np.ndarray = Predictor(threads=1)(sample_bytes(), prompts=[prompt])[0].mask
    return mask


@contextmanager
def running(words: list[str], environment: dict[str, str], log: Path) -> Iterator[Any]:
    """A program with all that it starts, until the end of the block."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            words,
            env={**os.environ, **environment},
            stdout=stream,
            stderr=stream,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def until_healthy(url: str, process: subprocess.Popen[str], log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """The address of `picosam2 serve`, which reads Label Studio's uploads and wants a token."""
    url = f"http://127.0.0.1:{free_port()}"
    uploads = home / "media" / "upload"
    uploads.mkdir(parents=True)
    words = [sys.executable, "-m", "picosam2", "serve", "--port", url.rpartition(":")[2]]
    with running(
        [*words, "--images", str(uploads)], {"PICOSAM2_TOKEN": TOKEN}, home / "serve.log"
    ) as process:
        until_healthy(url, process, home / "serve.log", 300)
        yield url


# -- Label Studio --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def label_studio(home: Path, server: str) -> Iterator[str]:
    """The address of a running Label Studio."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("label-studio", path=beside)
    if program is None:
        pytest.skip("label-studio is not installed")
    url = f"http://127.0.0.1:{free_port()}"
    words = [program, "start", "--no-browser", "--port", url.rpartition(":")[2]]
    words += ["--internal-host", "127.0.0.1", "--user-token", USER_TOKEN]
    words += ["--username", "tester@example.com", "--password", "of-no-use-1"]
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(home),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        # Or it calls no address of this machine.
        "LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS": "false",
        "LATEST_VERSION_CHECK": "0",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "HOME": str(home),
    }
    with running(words, environment, home / "label-studio.log") as process:
        until_healthy(url, process, home / "label-studio.log", 900)
        yield url


def call(url: str, body: Any = None, kind: str = "application/json") -> Any:
    """What Label Studio's interface answers."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Token {USER_TOKEN}", "Content-Type": kind}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers), timeout=120
        ) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            pytest.fail(f"{url}: {error.code} {error.read()[:2000]!r}")


def test_label_studio_gets_masks_for_smart_keypoints(label_studio: str, server: str) -> None:
    project = call(f"{label_studio}/api/projects", {"title": "Apples", "label_config": LABELS})
    boundary = "of-the-form"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="apples.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    form += sample_bytes() + f"\r\n--{boundary}--\r\n".encode()
    call(
        f"{label_studio}/api/projects/{project['id']}/import",
        form,
        f"multipart/form-data; boundary={boundary}",
    )
    (task,) = call(f"{label_studio}/api/tasks?project={project['id']}")["tasks"]
    assert task["data"]["image"].startswith("/data/upload/")
    # It checks /health and /setup, and takes no backend that refuses them.
    backend = call(
        f"{label_studio}/api/ml",
        {
            "url": server,
            "project": project["id"],
            "title": "PicoSAM2",
            "is_interactive": True,
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": "picosam2",
            "basic_auth_pass": TOKEN,
        },
    )
    clicks = [(*CLICK, True), (*OFF, False)]
    drawn = [
        {
            "type": "keypointlabels",
            "original_width": WIDTH,
            "original_height": HEIGHT,
            "is_positive": positive,
            "value": {
                "x": 100 * x / WIDTH,
                "y": 100 * y / HEIGHT,
                "width": 0.3,
                "keypointlabels": ["Apple"],
            },
        }
        for x, y, positive in clicks
    ]
    answer = call(
        f"{label_studio}/api/ml/{backend['id']}/interactive-annotating",
        {"task": task["id"], "context": {"result": drawn}},
    )
    (item,) = answer["data"]["result"]
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    mask = brush.decode_rle(item["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)[..., 3] > 0
    prompt = Prompt((Point(*CLICK), Point(*OFF, positive=False)))
    np.testing.assert_array_equal(mask, expected(prompt))
    assert item["value"]["brushlabels"] == ["Apple"]
    # What it gave can be kept as an annotation, and is exported as it was.
    call(f"{label_studio}/api/tasks/{task['id']}/annotations", {"result": [item]})
    (exported,) = call(f"{label_studio}/api/projects/{project['id']}/export?exportType=JSON")
    assert exported["annotations"][0]["result"][0]["value"]["rle"] == item["value"]["rle"]


# -- X-AnyLabeling -------------------------------------------------------------------------------

CLIENT = """
import json, sys
from PyQt6.QtWidgets import QApplication
application = QApplication([])
from anylabeling import config
from anylabeling.services.auto_labeling.remote_server import RemoteServer
url, token, path, marks = sys.argv[1:]
settings = {"server_url": url, "api_key": token}
config.current_config_file = json.dumps({"remote_server_settings": settings})
messages = []
client = RemoteServer({"type": "remote_server", "display_name": "Remote Server"}, messages.append)
models = client.get_available_models()
client.set_model_id(next(iter(models), None))
client.set_auto_labeling_marks(json.loads(marks))
# It sends the file; of the image it wants to know only that there is one.
result = client.predict_shapes(object(), path)
shapes = [
    [shape.label, shape.shape_type, [[point.x(), point.y()] for point in shape.points]]
    for shape in result.shapes
]
print("RESULT" + json.dumps([list(models), shapes, messages]))
"""


def shapes_of(server: str, token: str, home: Path, marks: list[Any]) -> tuple[Any, Any, Any]:
    """The models, the shapes and the messages that X-AnyLabeling's client shows."""
    if importlib.util.find_spec("anylabeling") is None:
        pytest.skip("x-anylabeling-cvhub is not installed")
    image = home / "sample.jpg"
    image.write_bytes(sample_bytes())
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, server, token, str(image), json.dumps(marks)],
        env={**os.environ, "HOME": str(home), "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    models, shapes, messages = json.loads(done.stdout.rpartition("RESULT")[2])
    return models, shapes, messages


def test_x_anylabeling_gets_polygons_for_its_marks(server: str, home: Path) -> None:
    marks = [
        {"type": "rectangle", "data": [310, 303, 396, 394], "label": 1},
        {"type": "point", "data": [200, 100], "label": 0},
    ]
    models, shapes, messages = shapes_of(server, TOKEN, home, marks)
    assert models == ["picosam2"]
    assert messages == []
    assert {(label, kind) for label, kind, _ in shapes} == {("AUTOLABEL_OBJECT", "polygon")}
    rings = [Polygon(np.array(points[:-1]), hole=False) for _, _, points in shapes]
    made = fill_polygons(rings, HEIGHT, WIDTH)
    mask = expected(Prompt((Point(*OFF, positive=False),), box=Box(*BOX)))
    assert mask.sum() > 1000
    assert (made & mask).sum() > 0.95 * (made | mask).sum()


def test_x_anylabeling_without_the_token_gets_nothing(server: str, home: Path) -> None:
    models, shapes, _ = shapes_of(server, "", home, [{"type": "point", "data": [353, 349]}])
    assert (models, shapes) == ([], [])


def test_the_server_of_these_tests_wants_its_token(server: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server}/v1/models")
    with refused.value as answer:
        assert answer.code == 401
    basic = base64.b64encode(f"x:{TOKEN}".encode()).decode()
    request = urllib.request.Request(
        f"{server}/v1/models", headers={"Authorization": f"Basic {basic}"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
