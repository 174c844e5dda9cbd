"""Fetching and unpacking against a local server that misbehaves in the ways servers do."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import ssl
import stat
import struct
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.progress import Recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from picosam2.data import download as module
from picosam2.data import fetch as transfer
from picosam2.data.download import SOURCES, Archive, Source, download
from picosam2.data.fetch import fetch
from picosam2.data.unzip import unpack
from picosam2.errors import ConfigError, DataError

CONTENT = bytes(range(256)) * 12_000  # about three chunks


class Server(ThreadingHTTPServer):
    """Serves `files`; `script` holds what goes wrong with the next requests, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/a.zip": CONTENT}
        self.etag: str | None = '"first"'
        self.last_modified: str | None = None
        self.extra: dict[str, str] = {}
        self.name = "a test"
        self.script: list[tuple[str, Any]] = []
        self.seen: list[dict[str, str]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up, as some of these tests do, is nothing to print about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def version_string(self) -> str:
        return self.server.name

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.seen.append({key.lower(): value for key, value in self.headers.items()})
        fault, value = server.script.pop(0) if server.script else ("", None)
        if fault == "status":
            self.send_error(value)
            return
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", value)
            self.end_headers()
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        start = self.start_of(content) if fault != "ignore range" else 0
        if start is None:
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + (1 if fault == "wrong piece" else 0)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if fault != "no length":
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.last_modified:
            self.send_header("Last-Modified", server.last_modified)
        for key, text in server.extra.items():
            self.send_header(key, text)
        self.end_headers()
        self.wfile.write(body[:value] if fault == "drop" else body)

    def start_of(self, content: bytes) -> int | None:
        wanted = self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (
            None,
            self.server.etag,
            self.server.last_modified,
        )
        if not wanted or not unchanged:
            return 0
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return start if start < len(content) else None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Waits(list[float]):
    """A `sleep` that only remembers how long it was asked to."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


def digest(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def record(target: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(target.with_name(target.name + ".json").read_text())
    return value


# Fetching


def test_fetch_writes_the_file_and_its_record(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    progress = Recorded()
    fetched = fetch(f"{server.url}/a.zip", target, progress=progress)
    assert fetched == digest()
    assert target.read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a.zip.json"}
    kept = record(target)
    assert (kept["sha256"], kept["size"], kept["etag"]) == (digest(), len(CONTENT), '"first"')
    assert set(progress.names) == {"a.zip"}
    assert progress.counts[0] == (0, len(CONTENT))
    assert progress.counts[-1] == (len(CONTENT), len(CONTENT))
    assert progress.counts == sorted(progress.counts)


@pytest.mark.parametrize("pinned", [None, digest()])
def test_a_dropped_connection_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, waits: Waits, pinned: str | None
) -> None:
    server.script = [("drop", 1_000_000), ("drop", 500_000)]
    target = tmp_path / "a.zip"
    assert fetch(f"{server.url}/a.zip", target, sha256=pinned, sleep=waits) == digest()
    assert target.read_bytes() == CONTENT
    assert [seen.get("range") for seen in server.seen] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
    ]
    assert [seen.get("if-range") for seen in server.seen] == [None, '"first"', '"first"']
    assert waits == [1.0, 1.0]


def test_an_interrupted_run_leaves_a_part_and_the_next_goes_on(
    server: Server, tmp_path: Path, waits: Waits
) -> None:
    target = tmp_path / "a.zip"

    def interrupt(done: int, total: int | None = None, **_: object) -> None:
        if done >= 1 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server.url}/a.zip", target, progress=interrupt, sleep=waits)
    assert not target.exists()
    part = tmp_path / "a.zip.part"
    have = part.stat().st_size
    assert 0 < have < len(CONTENT)
    assert fetch(f"{server.url}/a.zip", target, sleep=waits) == digest()
    assert server.seen[-1]["range"] == f"bytes={have}-"
    assert not part.exists()


@pytest.mark.parametrize("tag", ["etag", "last_modified"])
def test_a_file_that_changed_meanwhile_begins_anew(
    server: Server, tmp_path: Path, waits: Waits, tag: str
) -> None:
    target = tmp_path / "a.zip"
    server.etag = None
    setattr(server, tag, "Mon, 01 Jan 2024 00:00:00 GMT")
    server.script = [("drop", 1_000_000)]
    with pytest.raises(DataError):
        fetch(f"{server.url}/a.zip", target, retries=-1, sleep=waits)
    setattr(server, tag, "Tue, 02 Jan 2024 00:00:00 GMT")
    server.files["/a.zip"] = b"new" * 700_000
    assert fetch(f"{server.url}/a.zip", target, sleep=waits) == digest(b"new" * 700_000)
    assert server.seen[-1]["range"] == "bytes=1000000-"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_tag_only_a_known_checksum_allows_to_continue(
    server: Server, tmp_path: Path, waits: Waits, etag: str | None
) -> None:
    server.etag = etag
    for name, pinned, ranged in (("a.zip", None, False), ("b.zip", digest(), True)):
        server.seen.clear()
        server.script = [("drop", 1_000_000)]
        fetch(f"{server.url}/a.zip", tmp_path / name, sha256=pinned, sleep=waits)
        assert ("range" in server.seen[1]) is ranged
        assert "if-range" not in server.seen[1]
        assert (tmp_path / name).read_bytes() == CONTENT


def test_another_mirror_continues_only_with_a_known_checksum(
    server: Server, tmp_path: Path, waits: Waits
) -> None:
    server.files["/mirror/a.zip"] = CONTENT
    for name, pinned, ranged in (("a.zip", None, False), ("b.zip", digest(), True)):
        target = tmp_path / name
        server.script = [("drop", 1_000_000)]
        with pytest.raises(DataError, match="continues where it stopped"):
            fetch(f"{server.url}/a.zip", target, sha256=pinned, retries=-1, sleep=waits)
        fetch(f"{server.url}/mirror/a.zip", target, sha256=pinned, sleep=waits)
        assert ("range" in server.seen[-1]) is ranged
        assert target.read_bytes() == CONTENT


def test_a_server_that_ignores_range_starts_over(
    server: Server, tmp_path: Path, waits: Waits
) -> None:
    server.script = [("drop", 1_000_000), ("ignore range", None)]
    assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip", sleep=waits) == digest()
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_never_gets_further_is_given_up(
    server: Server, tmp_path: Path, waits: Waits
) -> None:
    server.etag = None
    server.script = [("drop", 1_000_000)] * 20
    with pytest.raises(DataError, match="broke off"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", retries=3, sleep=waits)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert len(server.seen) == 5


def test_a_wrong_piece_is_not_joined(server: Server, tmp_path: Path, waits: Waits) -> None:
    server.script = [("drop", 1_000_000), ("wrong piece", None)]
    assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip", sleep=waits) == digest()


def test_a_part_longer_than_the_file_begins_anew(
    server: Server, tmp_path: Path, waits: Waits
) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT + b"x")
    fetched = fetch(f"{server.url}/a.zip", tmp_path / "a.zip", sha256=digest(), sleep=waits)
    assert fetched == digest()
    assert waits == [2.0]  # after a 416
    (tmp_path / "b.zip.part").write_bytes(CONTENT + b"x")
    fetch(f"{server.url}/a.zip", tmp_path / "b.zip", size=len(CONTENT), sha256=digest())
    assert "range" not in server.seen[-1]


def test_a_whole_part_is_only_checked(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    target = tmp_path / "a.zip"
    fetched = fetch(f"{server.url}/a.zip", target, size=len(CONTENT), sha256=digest())
    assert fetched == digest()
    assert server.seen == []
    assert target.exists()


def test_a_length_that_is_not_stated(server: Server, tmp_path: Path) -> None:
    server.script = [("no length", None)]
    assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip") == digest()
    assert record(tmp_path / "a.zip")["size"] == len(CONTENT)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_tried_again(
    server: Server, tmp_path: Path, waits: Waits, status: int
) -> None:
    server.script = [("status", status)] * 2
    assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip", sleep=waits) == digest()
    assert waits == [2.0, 4.0]
    server.script = [("status", status)] * 9
    with pytest.raises(DataError, match=f"answers {status}.*run this again"):
        fetch(f"{server.url}/a.zip", tmp_path / "b.zip", retries=1, sleep=waits)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, tmp_path: Path, waits: Waits, status: int) -> None:
    server.script = [("status", status)]
    with pytest.raises(DataError, match=f"answers {status}.*mirror"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", sleep=waits)
    assert waits == []
    assert list(tmp_path.iterdir()) == []


def test_no_network(tmp_path: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as gone:
        url = gone.url
    with pytest.raises(DataError, match=r"cannot be reached.*check the network"):
        fetch(f"{url}/a.zip", tmp_path / "a.zip", retries=2, sleep=waits)
    assert len(waits) == 2


def test_a_wrong_checksum_deletes_what_came(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wrong checksum"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", sha256=digest(b"other"))
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip.json"}


def test_a_wrong_length_is_noticed_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="published file has 5"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip", size=5)
    assert list(tmp_path.iterdir()) == []


def test_the_md5_of_an_s3_entity_tag_is_checked(server: Server, tmp_path: Path) -> None:
    right = hashlib.md5(CONTENT).hexdigest()
    server.name = "AmazonS3"
    server.etag = f'"{right}"'
    assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip") == digest()
    server.etag = f'"{right[::-1]}"'
    with pytest.raises(DataError, match="wrong checksum"):
        fetch(f"{server.url}/a.zip", tmp_path / "b.zip")
    server.extra = {"x-amz-server-side-encryption": "aws:kms"}  # then the tag is no MD5
    assert fetch(f"{server.url}/a.zip", tmp_path / "c.zip") == digest()
    server.extra, server.name = {}, "nginx"
    assert fetch(f"{server.url}/a.zip", tmp_path / "d.zip") == digest()


def test_redirections(server: Server, tmp_path: Path) -> None:
    server.script = [("redirect", f"{server.url}/a.zip")]
    assert fetch(f"{server.url}/moved.zip", tmp_path / "a.zip") == digest()
    server.script = [("redirect", "ftp://127.0.0.1/a.zip")]
    with pytest.raises(DataError, match="not protected"):
        fetch(f"{server.url}/a.zip", tmp_path / "b.zip")


def test_https_is_not_left() -> None:
    request = urllib.request.Request("https://example.org/a.zip")
    with pytest.raises(DataError, match="not protected"):
        transfer._SafeRedirects().redirect_request(
            request,
            io.BytesIO(),
            302,
            "Found",
            HTTPMessage(),
            "http://example.org/a.zip",
        )


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: Waits) -> None:
    context = transfer._tls()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname

    class Opener:
        def open(self, *_: object, **__: object) -> None:
            raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr(urllib.request, "build_opener", lambda *_: Opener())
    with pytest.raises(DataError, match="certificate is not valid"):
        fetch("https://example.org/a.zip", tmp_path / "a.zip", sleep=waits)
    assert waits == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/a",
        "a.zip",
        "http://host:port/a",
        "http://[/a",
        "http://a b/",
    ],
)
def test_an_address_that_is_none(url: str, tmp_path: Path, waits: Waits) -> None:
    with pytest.raises(ConfigError, match="no address"):
        fetch(url, tmp_path / "a.zip", sleep=waits)
    assert waits == []


def test_no_room_is_noticed_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=f"no room.*free {len(CONTENT) - 1000} bytes"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_no_room_during_the_transfer(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="no room left"):
        fetch(f"{server.url}/a.zip", tmp_path / "a.zip")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 99_999,
        '{"url": 1, "files": []}',
        '{"url": "x", "files": [1]}',
        '{"url": "x", "files": [["a", Infinity, 1]]}',
        '{"url": "x", "files": [], "etag": 4}',
        '{"url": "x", "files": [], "size": "4"}',
        '{"url": "x", "files": [], "more": "4"}',
    ],
)
def test_a_damaged_record_is_like_none(server: Server, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.zip.json").write_text(text)
    (tmp_path / "a.zip.part").write_bytes(b"what is this")
    assert fetch(f"{server.url}/a.zip", tmp_path / "a.zip") == digest()


# Unpacking


def unpack_bytes(content: bytes, folder: Path, **arguments: Any) -> dict[str, bytes]:
    archive = folder / "a.zip"
    archive.write_bytes(content)
    members = unpack(archive, folder / "out", **arguments)
    collected = {m.name: (folder / "out" / m.name).read_bytes() for m in members}
    assert [m.size for m in members] == [len(collected[m.name]) for m in members]
    return collected


def with_entry(**attributes: Any) -> bytes:
    """A zip file with a plain file and an entry that has these attributes of a ZipInfo."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("good.txt", b"good")
        info = zipfile.ZipInfo("entry.txt")
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, b"content")
    return stream.getvalue()


def test_unpack_writes_the_files(tmp_path: Path) -> None:
    files = {"val2017/1.jpg": b"one", "val2017/2.jpg": b"", "annotations/x.json": b"{}" * 9}
    progress = Recorded()
    read_back = unpack_bytes(
        zipped(files | {"val2017/empty/": b""}),
        tmp_path,
        progress=progress,
    )
    assert read_back == files
    assert (progress.names[-1], progress.counts[-1]) == ("a.zip, unpacking", (21, 21))
    names = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("out/**/*.*")}
    assert names == set(files)


def test_unpack_keeps_right_files_and_replaces_wrong_ones(tmp_path: Path) -> None:
    content = zipped({"a": b"first", "b": b"second"})
    unpack_bytes(content, tmp_path)
    kept = (tmp_path / "out" / "a").stat().st_mtime_ns
    (tmp_path / "out" / "b").write_bytes(b"secONd")  # the same size
    assert unpack_bytes(content, tmp_path) == {"a": b"first", "b": b"second"}
    assert (tmp_path / "out" / "a").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (with_entry(filename="../evil.txt"), "leaves the folder"),
        (with_entry(filename="a/../../evil.txt"), "leaves the folder"),
        (with_entry(filename="/evil.txt"), "leaves the folder"),
        (with_entry(filename="..\\evil.txt"), "leaves the folder"),
        (with_entry(filename="C:/evil.txt"), "leaves the folder"),
        (with_entry(filename="."), "leaves the folder"),
        (with_entry(filename=""), "leaves the folder"),
        (with_entry(filename="GOOD.txt"), "twice"),
        (with_entry(filename="./good.txt"), "twice"),
        (with_entry(external_attr=(stat.S_IFLNK | 0o777) << 16), "not a plain file"),
        (with_entry(external_attr=(stat.S_IFCHR | 0o777) << 16), "not a plain file"),
        (with_entry(compress_type=zipfile.ZIP_LZMA), "rare compression"),
        (zipped({"good.txt": b"good", "bomb": b"\0" * 5_000_000}), "20 times"),
    ],
)
def test_unpack_refuses_hostile_contents_before_writing(
    tmp_path: Path, content: bytes, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        unpack_bytes(content, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip"}


def test_unpack_refuses_encryption(tmp_path: Path) -> None:
    content = bytearray(zipped({"good.txt": b"good"}))
    content[content.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(DataError, match="encryption"):
        unpack_bytes(bytes(content), tmp_path)


def test_a_bomb_that_lies_about_its_size_writes_no_more_than_it_says(tmp_path: Path) -> None:
    content = bytearray(zipped({"bomb": b"\0" * 5_000_000}))
    for place in (content.index(b"PK\1\2") + 24, content.index(b"PK\3\4") + 22):
        content[place : place + 4] = struct.pack("<I", 50)
    with pytest.raises(DataError, match="damaged"):
        unpack_bytes(bytes(content), tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_shorter_than_stated_is_damaged(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"content"}))
    for place in (content.index(b"PK\1\2") + 24, content.index(b"PK\3\4") + 22):
        content[place : place + 4] = struct.pack("<I", 50)
    with pytest.raises(DataError, match="shorter than stated"):
        unpack_bytes(bytes(content), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", zipped({"a": b"x" * 99})[:-5]])
def test_what_is_no_zip_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="damaged"):
        unpack_bytes(content, tmp_path)


def test_wrong_content_is_noticed_by_its_crc(tmp_path: Path) -> None:
    content = zipped({"a": b"plain text"}, zipfile.ZIP_STORED).replace(b"plain", b"plane")
    with pytest.raises(DataError, match="damaged"):
        unpack_bytes(content, tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_unpack_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(DataError, match="choose another folder"):
        unpack_bytes(zipped({"a": b"x"}), tmp_path)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_damaged_zip_files_raise_nothing_but_our_error(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    content = bytearray(zipped({"a/b.txt": b"content" * 9, "c.txt": b"more"}))
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(DataError):
        unpack_bytes(bytes(content), folder)
    assert {path.name for path in folder.iterdir()} <= {"a.zip", "out"}


# The data sets

FILES = {
    "val": {"val2017/1.jpg": b"one", "val2017/2.jpg": b"two"},
    "annotations": {"annotations/instances_val2017.json": b"{}"},
}


@pytest.fixture
def small(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The two data sets with small archives, one of them with nothing known about it."""
    val, annotations = zipped(FILES["val"]), zipped(FILES["annotations"])
    lvis = zipped({"lvis_v1_val.json": b"[]"})
    server.files = {
        "/zips/val2017.zip": val,
        "/annotations/annotations.zip": annotations,
        "/LVIS/lvis_v1_val.json.zip": lvis,
    }
    coco = Source(
        base_url="http://images.cocodataset.org",
        archives={
            "val": Archive(path="zips/val2017.zip", size=len(val), sha256=digest(val)),
            "annotations": Archive(path="annotations/annotations.zip"),
        },
        default_parts=("annotations", "val"),
    )
    other = Source(
        base_url="https://dl.fbaipublicfiles.com",
        archives={"val": Archive(path="LVIS/lvis_v1_val.json.zip", folder="annotations")},
        default_parts=("val",),
    )
    monkeypatch.setattr(module, "SOURCES", {"coco": coco, "lvis": other})
    return server


def test_download_puts_everything_in_place(small: Server, tmp_path: Path) -> None:
    out = tmp_path / "data"
    annotations, val = download("coco", out, base_url=small.url + "/")
    assert (annotations.part, val.part) == ("annotations", "val")
    assert val.url == f"{small.url}/zips/val2017.zip"
    assert (val.files, val.folder, val.sha256) == (
        2,
        out,
        digest(small.files["/zips/val2017.zip"]),
    )
    (lvis,) = download("lvis", out, base_url=small.url)
    assert lvis.folder == out / "annotations"
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.jp*g")} == set(FILES["val"])
    assert (out / "annotations" / "instances_val2017.json").read_bytes() == b"{}"
    assert (out / "annotations" / "lvis_v1_val.json").read_bytes() == b"[]"


def test_a_second_run_verifies_and_fetches_nothing(small: Server, tmp_path: Path) -> None:
    first = download("coco", tmp_path, base_url=small.url)
    small.seen.clear()
    (tmp_path / "val2017" / "1.jpg").write_bytes(b"0ne")
    assert download("coco", tmp_path, base_url=small.url) == first
    assert (tmp_path / "val2017" / "1.jpg").read_bytes() == b"one"
    assert small.seen == []


@pytest.mark.parametrize("name", ["val2017.zip", "annotations.zip"])
def test_an_archive_that_changed_on_disk_is_refused(
    small: Server, tmp_path: Path, name: str
) -> None:
    download("coco", tmp_path, base_url=small.url)
    with (tmp_path / name).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="delete it and run this again"):
        download("coco", tmp_path, base_url=small.url)


def test_an_archive_that_was_there_before_is_used(small: Server, tmp_path: Path) -> None:
    for path in ("/zips/val2017.zip", "/annotations/annotations.zip"):
        (tmp_path / Path(path).name).write_bytes(small.files[path])
    download("coco", tmp_path, base_url=small.url)
    assert small.seen == []
    assert (tmp_path / "val2017" / "1.jpg").exists()
    assert record(tmp_path / "annotations.zip")["sha256"]


def test_archives_need_not_stay(small: Server, tmp_path: Path) -> None:
    first = download("coco", tmp_path, parts=["val"], base_url=small.url, keep_archives=False)
    assert not (tmp_path / "val2017.zip").exists()
    small.seen.clear()
    again = download("coco", tmp_path, parts=["val"], base_url=small.url, keep_archives=False)
    assert again == first
    assert small.seen == []
    (tmp_path / "val2017" / "2.jpg").unlink()
    download("coco", tmp_path, parts=["val", "val"], base_url=small.url, keep_archives=False)
    assert len(small.seen) == 1
    assert (tmp_path / "val2017" / "2.jpg").read_bytes() == b"two"


def test_names_that_are_none(small: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'voc': choose one of coco, lvis"):
        download("voc", tmp_path)
    with pytest.raises(ConfigError, match="'test': choose from val, annotations"):
        download("coco", tmp_path, parts=["test"])
    with pytest.raises(ConfigError, match="no address"):
        download("coco", tmp_path, base_url="file:///tmp")


def test_a_folder_that_is_a_file(small: Server, tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DataError, match="choose another folder"):
        download("coco", tmp_path / "data", base_url=small.url)


def test_the_official_addresses() -> None:
    urls = {
        f"{source.base_url}/{archive.path}"
        for source in SOURCES.values()
        for archive in source.archives.values()
    }
    assert "http://images.cocodataset.org/zips/train2017.zip" in urls
    assert "http://images.cocodataset.org/annotations/annotations_trainval2017.zip" in urls
    assert "https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip" in urls
    for source in SOURCES.values():
        assert set(source.default_parts) <= set(source.archives)
        for part in source.default_parts:
            archive = source.archives[part]
            assert archive.size
            assert archive.sha256
            assert len(bytes.fromhex(archive.sha256)) == 32
