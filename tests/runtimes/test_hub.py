"""Weights from a folder for the hub and from a hub: a server on this machine, the real client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from picosam2 import Predictor, sample
from picosam2.errors import WeightsError
from picosam2.export.hub import export_hub
from picosam2.runtimes import hub
from picosam2.runtimes.weights import find_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub")
    export_hub("default", out)
    return out


def test_a_folder_gives_the_masks_of_the_weights(folder: Path) -> None:
    for quantized, name in ((False, "default"), (True, "default-int8")):
        opened = Predictor.from_pretrained(folder, quantized=quantized, threads=1)
        expected = Predictor(name, threads=1)
        assert opened.runtime.info.weights_sha256 == expected.runtime.info.weights_sha256
        assert (
            opened(sample(), points=[(353, 349)])[0].rle()
            == expected(sample(), points=[(353, 349)])[0].rle()
        )


def test_the_runtime_chooses_the_file(folder: Path) -> None:
    assert hub.pretrained(folder, runtime="torch") == folder / "model.safetensors"
    assert hub.pretrained(folder, runtime="openvino") == folder / "onnx" / "model.onnx"
    with pytest.raises(WeightsError, match="no files for litert on the hub"):
        hub.pretrained(folder, runtime="litert")
    with pytest.raises(WeightsError, match="leave out torch"):
        hub.pretrained(folder, runtime="torch", quantized=True)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "x.PKL", "state.ckpt", "onnx/model.joblib"]
)
def test_a_folder_with_a_pickle(name: str, copy: Path) -> None:
    (copy / name).write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError, match=f"holds {name}, a pickle"):
        Predictor.from_pretrained(copy)


def test_a_file_that_is_not_the_one_of_the_configuration(copy: Path) -> None:
    shutil.copy(find_weights("paper"), copy / "onnx" / "model.onnx")
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged"):
        Predictor.from_pretrained(copy)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (None, "there is no config.json"),
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "is no PicoSAM2 model"),
        ('{"model_type": "sam2", "files": {}}', "is no PicoSAM2 model"),
        ('{"model_type": "picosam2"}', "is no PicoSAM2 model"),
        ('{"model_type": "picosam2", "files": {}}', "has no onnx/model.onnx: it has no weights"),
    ],
)
def test_configurations_that_make_no_sense(config: str | None, why: str, copy: Path) -> None:
    (copy / "config.json").unlink()
    if config is not None:
        (copy / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=why):
        Predictor.from_pretrained(copy)


def test_a_folder_without_the_file(copy: Path) -> None:
    (copy / "onnx" / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"there is no onnx/model\.onnx"):
        Predictor.from_pretrained(copy)


@pytest.mark.parametrize("source", ["./nowhere/there", "name", "a/b/c", "org/", "../x", ""])
def test_neither_a_folder_nor_a_name(source: str, tmp_path: Path) -> None:
    if source == "":
        source = str(tmp_path / "none")
    with pytest.raises(WeightsError, match="neither a folder nor the name of a model"):
        Predictor.from_pretrained(source)


def test_a_folder_has_no_revisions(folder: Path) -> None:
    with pytest.raises(WeightsError, match="has no revisions"):
        Predictor.from_pretrained(folder, revision="main")


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub, for the model me/pico."""

    def __init__(self, *arguments: object, folder: Path, requests: list[str]) -> None:
        self.folder, self.requests = folder, requests
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        prefix, _, rest = self.path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        self.requests.append(f"{self.command} {name}")
        path = self.folder / name
        code = None
        if prefix != "/me/pico":
            code = "RepoNotFound"
        elif revision not in ("main", COMMIT):
            code = "RevisionNotFound"
        elif not path.is_file():
            code = "EntryNotFound"
        if code is not None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def server(folder: Path) -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Hub, folder=folder, requests=requests)
    ) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}", requests
        made.shutdown()


SCRIPT = """
import json, sys
from picosam2 import Predictor
from picosam2.errors import PicoSAM2Error
source, revision = sys.argv[1:]
try:
    predictor = Predictor.from_pretrained(source, revision=revision or None, threads=1)
    print(json.dumps(predictor.runtime.info.weights_sha256))
except PicoSAM2Error as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def ask(endpoint: str, cache: Path, source: str = "me/pico", revision: str = "") -> object:
    """What `from_pretrained` gives in a process that takes `endpoint` for the hub."""
    pytest.importorskip("huggingface_hub")
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, source, revision],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_model_on_the_hub(server: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, requests = server
    digest = Predictor().runtime.info.weights_sha256
    assert ask(endpoint, tmp_path, revision=COMMIT) == digest
    assert {each.split()[1] for each in requests} == {"config.json", "onnx/model.onnx"}
    # What was pinned by its hash is read from the cache, without a network.
    assert ask(f"http://127.0.0.1:{free_port()}", tmp_path, revision=COMMIT) == digest


@pytest.mark.parametrize(
    ("source", "revision", "why"),
    [
        ("me/other", "", "there is no model me/other on the hub"),
        ("me/pico", "v9", "me/pico has no revision v9"),
        ("me/--pico", "", "no name of a model on the hub"),
    ],
)
def test_what_the_hub_lacks(
    source: str, revision: str, why: str, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    answer = ask(server[0], tmp_path, source, revision)
    assert isinstance(answer, list)
    assert answer[0] == "WeightsError"
    assert why in answer[1]
    assert "\n" not in answer[1]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_no_network(tmp_path: Path) -> None:
    answer = ask(f"http://127.0.0.1:{free_port()}", tmp_path)
    assert isinstance(answer, list)
    assert answer[0] == "WeightsError"
    assert "connect to the network, or give a folder" in answer[1]
    assert "\n" not in answer[1]
