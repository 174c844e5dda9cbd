"""Serves the built page (`web/`) from the package to a browser on this machine, and nothing else.

The page runs the model itself, so this is a file server with the headers that the page needs:
cross-origin isolation for threads, and a content security policy. What can be asked for is a table
made at the start, so no path a browser sends is ever opened.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata, resources
from pathlib import Path
from shutil import copyfileobj
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from picosam2._files import sha256_file
from picosam2.errors import ConfigError, WeightsError
from picosam2.runtimes.weights import find_weights, shipped

HOST: Final = "127.0.0.1"
PORT: Final = 8427
"""The port tried first. A page belongs to its port, and so does what it keeps for use offline."""

HEADERS: Final[Mapping[str, str]] = {
    # Threads need shared memory, which browsers give to isolated pages only.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
        "style-src 'self'; img-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Sent with every answer."""

# Not `mimetypes`, which asks the system and is told text/plain for JavaScript on some.
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}

_NOT_BUILT: Final = (
    "this copy of picosam2 has no built page: run `npm ci` and then `npm run build` "
    "in the folder web of its source"
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What is served: the files by their URL paths, and the address to open."""

    files: Mapping[str, Path]
    start: str = "/"
    """The path and query of the page, with the chosen model in it."""


def find_site(weights: str | os.PathLike[str] = "default", folder: Path | None = None) -> Site:
    """The built page with the weights it is to run.

    Args:
        weights: shipped weights by name, or the path of an ONNX file.
        folder: where the built page is; by default in the package, or in the checkout that it was
            installed from if that build is newer.

    Raises:
        ConfigError: the page is not built.
        WeightsError: no such weights, or not an ONNX file.
    """
    root = folder or _newest_build()
    if root is None or not (root / "index.html").is_file():
        raise ConfigError(_NOT_BUILT)
    files = {
        "/" + path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.suffix in _TYPES and path.is_file()
    }
    files["/"] = files.pop("/index.html")
    for name in shipped():
        # A wheel holds the weights once, beside the page; a build has the copy it was made with.
        files.setdefault(f"/model/{name}.onnx", find_weights(name))
    if str(weights) == "default" and "/model/default.onnx" in files:
        return Site(files=files)
    path = find_weights(weights)
    if path.suffix != ".onnx":
        raise WeightsError(f"{path} is no ONNX file: make one with `picosam2 export onnx`")
    # The page keeps models for use offline by their names: another file needs another name.
    stem = re.sub(r"[^\w.-]", "_", path.stem, flags=re.ASCII)
    name = f"{stem}-{sha256_file(path)[:8]}.onnx"
    files[f"/model/{name}"] = path
    return Site(files=files, start=f"/?model={quote(name)}")


def _newest_build() -> Path | None:
    """The built page of the package, or of the checkout it was installed from if that is newer."""
    folders = [Path(str(resources.files("picosam2") / "assets" / "web"))]
    checkout = _checkout()
    if checkout is not None:
        folders.append(checkout / "src" / "picosam2" / "assets" / "web")
    built = [folder for folder in folders if (folder / "index.html").is_file()]
    return max(built, key=lambda folder: (folder / "index.html").stat().st_mtime, default=None)


def _checkout() -> Path | None:
    """The folder that `pip install FOLDER` was run on, if that is how the package was installed."""
    try:
        text = metadata.distribution("picosam2").read_text("direct_url.json")
        origin = json.loads(text or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    address = urlsplit(str(origin.get("url", "")))
    if address.scheme != "file" or "dir_info" not in origin:
        return None
    return Path(url2pathname(address.path))


class DemoServer(ThreadingHTTPServer):
    """Serves one `Site` on 127.0.0.1. A context manager; `serve_forever` runs it."""

    daemon_threads = True

    def __init__(self, site: Site, port: int | None = None) -> None:
        """Listen on `port`, 0 for any that is free; by default `PORT`, or any if that is taken.

        Raises:
            ConfigError: the port cannot be had.
        """
        self.site = site
        try:
            super().__init__((HOST, PORT if port is None else port), _Handler)
        except OSError as error:
            if port is not None:
                raise ConfigError(
                    f"port {port} cannot be used ({error.strerror or error}): choose another"
                ) from error
            super().__init__((HOST, 0), _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server who 127.0.0.1 is, as `HTTPServer` does."""
        if hasattr(socket, "SO_REUSEADDR") and os.name == "posix":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://{HOST}:{self.server_port}{self.site.start}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Browsers close connections whenever they like: that is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: DemoServer
    protocol_version = "HTTP/1.1"
    server_version = "picosam2"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        # A page elsewhere can point its own name at 127.0.0.1 (DNS rebinding): it gets nothing.
        hosts = {f"{name}:{self.server.server_port}" for name in (HOST, "localhost")}
        if self.headers.get("Host") not in hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path = unquote(urlsplit(self.path).path)
        file = self.server.site.files.get(path)
        try:
            if file is None:
                raise FileNotFoundError
            with file.open("rb") as stream:
                state = os.fstat(stream.fileno())
                tag = f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
                known = self.headers.get("If-None-Match") == tag
                self.send_response(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK)
                self.send_header("ETag", tag)
                # The build names what lies in assets/ by its content.
                fixed = path.startswith("/assets/")
                self.send_header(
                    "Cache-Control", "max-age=31536000, immutable" if fixed else "no-cache"
                )
                if not known:
                    self.send_header("Content-Type", _TYPES[file.suffix])
                    self.send_header("Content-Length", str(state.st_size))
                self.end_headers()
                if body and not known:
                    copyfileobj(stream, self.wfile)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for the address."""
