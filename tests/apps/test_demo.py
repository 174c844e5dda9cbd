"""The demo server: what it serves, with which headers, to whom; and the command around it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.scripts import load_script

from picosam2.apps.demo import HEADERS, HOST, DemoServer, Site, find_site
from picosam2.errors import ConfigError, WeightsError
from picosam2.runtimes.weights import shipped

WEB = Path(__file__).parents[2] / "web"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder that looks like a built page."""
    folder = tmp_path / "web"
    for name, text in {
        "index.html": "<!doctype html><title>page</title>",
        "sw.js": "self.x = 1",
        "assets/index-abc.js": "export {}",
        "assets/ort-abc.wasm": "\0asm",
        "model/default.onnx": "default model",
        "notes.md": "not for the web",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "secret.js").write_text("secret")
    return folder


@contextmanager
def serving(site: Site) -> Iterator[Callable[..., http.client.HTTPResponse]]:
    """A running server, as a function from method, path and headers to the (read) answer."""
    with DemoServer(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        connections = []

        def ask(path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
            connections.append(connection)
            connection.request(method, path, headers=headers)
            return connection.getresponse()

        try:
            yield ask
        finally:
            for connection in connections:
                connection.close()
            server.shutdown()
            thread.join()


def test_the_page_comes_with_its_headers(built: Path) -> None:
    with serving(find_site(folder=built)) as ask:
        answer = ask("/")
        assert answer.status == 200
        assert answer.read().startswith(b"<!doctype html>")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "unsafe-inline" not in answer.headers["Content-Security-Policy"]
        assert "'unsafe-eval'" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/assets/index-abc.js", "text/javascript; charset=utf-8"),
        ("/assets/ort-abc.wasm", "application/wasm"),
        ("/model/default.onnx", "application/octet-stream"),
        ("/sw.js?v=1", "text/javascript; charset=utf-8"),
    ],
)
def test_files_have_the_types_that_browsers_ask_for(built: Path, path: str, kind: str) -> None:
    with serving(find_site(folder=built)) as ask:
        answer = ask(path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
        answer.read()


@pytest.mark.parametrize(
    "path",
    [
        "/secret.js", "/../secret.js", "/%2e%2e/secret.js", "/..%2fsecret.js",
        "/assets/../../secret.js", "/notes.md", "//etc/passwd", "/index.html/", "/model/",
        "/%00", "/assets/%ff",
    ],
)  # fmt: skip
def test_nothing_else_is_served(built: Path, path: str) -> None:
    with serving(find_site(folder=built)) as ask:
        assert ask(path).status == 404


def test_other_names_for_this_machine_get_nothing(built: Path) -> None:
    with serving(find_site(folder=built)) as ask:
        assert ask("/", Host="attacker.example").status == 421
        assert ask("/", method="POST").status == 501


def test_a_browser_may_keep_what_has_not_changed(built: Path) -> None:
    with serving(find_site(folder=built)) as ask:
        first = ask("/")
        first.read()
        assert first.headers["Cache-Control"] == "no-cache"
        again = ask("/", **{"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.read()) == (304, b"")
        assert "immutable" in ask("/assets/index-abc.js").headers["Cache-Control"]
        head = ask("/model/default.onnx", method="HEAD")
        assert (head.headers["Content-Length"], head.read()) == ("13", b"")


def test_weights_from_a_file_have_a_name_of_their_own(built: Path, tmp_path: Path) -> None:
    weights = tmp_path / "my weights.onnx"
    weights.write_bytes(b"mine")
    site = find_site(weights, folder=built)
    assert site.start.startswith("/?model=my_weights-")
    with serving(site) as ask:
        name = site.start.removeprefix("/?model=")
        assert ask(f"/model/{name}").read() == b"mine"
    weights.write_bytes(b"changed")
    assert find_site(weights, folder=built).start != site.start


def test_weights_must_be_onnx(built: Path, tmp_path: Path) -> None:
    other = tmp_path / "weights.safetensors"
    other.write_bytes(b"")
    with pytest.raises(WeightsError, match="export onnx"):
        find_site(other, folder=built)


def test_shipped_weights_are_served_from_where_they_are(built: Path) -> None:
    assert find_site(folder=built).files["/model/default.onnx"].is_relative_to(built)
    (built / "model" / "default.onnx").unlink()  # as in a wheel
    files = find_site(folder=built).files if shipped() else {}
    for name in shipped():
        assert files[f"/model/{name}.onnx"].parent.name == "weights"


def test_without_a_built_page_the_two_commands_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`npm ci` and then `npm run build`"):
        find_site(folder=tmp_path)


def test_a_build_of_the_checkout_is_found_after_the_package_was_installed(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "my checkout"
    page = checkout / "src" / "picosam2" / "assets" / "web"
    package = tmp_path / "site-packages" / "picosam2"
    origin = {"url": checkout.as_uri(), "dir_info": {}}

    class Installed:
        def read_text(self, name: str) -> str | None:
            return json.dumps(origin) if name == "direct_url.json" else None

    monkeypatch.setattr("picosam2.apps.demo.metadata.distribution", lambda name: Installed())
    monkeypatch.setattr("picosam2.apps.demo.resources.files", lambda name: package)
    with pytest.raises(ConfigError, match="`npm run build`"):
        find_site()
    shutil.copytree(built, page)
    assert find_site().files["/"].is_relative_to(page)
    # Of two builds the newer one is served.
    shutil.copytree(built, package / "assets" / "web")
    os.utime(page / "index.html", (1, 1))
    assert find_site().files["/"].is_relative_to(package)
    os.utime(package / "assets" / "web" / "index.html", (0, 0))
    assert find_site().files["/"].is_relative_to(page)
    # A package out of an archive or from an index has no checkout.
    origin["url"] = "https://example.org/picosam2.zip"
    assert find_site().files["/"].is_relative_to(package)


def test_a_taken_port_is_said_to_be(built: Path) -> None:
    site = find_site(folder=built)
    with DemoServer(site, 0) as first, pytest.raises(ConfigError, match="choose another"):
        DemoServer(site, first.server_port)


def test_the_command_opens_the_browser_and_stops(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from picosam2.cli.demo import demo

    opened: list[str] = []
    monkeypatch.setattr("picosam2.apps.demo.find_site", lambda weights: find_site(folder=built))
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)))

    def interrupted(server: DemoServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", interrupted)
    demo(port=0)
    assert opened == [capsys.readouterr().out.splitlines()[0]]
    assert opened[0].startswith(f"http://{HOST}:")
    demo(port=0, browser=False)
    assert len(opened) == 1


@pytest.mark.skipif(not WEB.is_dir(), reason="the page's source is not beside the package")
@pytest.mark.parametrize("name", ["make_predictor.py", "make_guidance.py", "make_everything.py"])
def test_the_pages_reference_answers_are_the_packages(name: str) -> None:
    golden = load_script(WEB / "tests" / "golden" / name)
    assert golden.PATH.read_text() == golden.text(), f"run {golden.__file__}"


@pytest.mark.skipif(not WEB.is_dir(), reason="the page's source is not beside the package")
def test_page_and_server_have_one_policy() -> None:
    source = (WEB / "app" / "vite.config.ts").read_text()
    directives = HEADERS["Content-Security-Policy"].split("; ")
    directives.remove("frame-ancestors 'none'")  # has no effect in a page, only in a header
    for directive in directives:
        assert f'"{directive}"' in source
