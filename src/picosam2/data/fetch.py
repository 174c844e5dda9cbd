"""Fetch one large file by http. A transfer that breaks goes on where it stopped.

What has arrived is in `<file>.part`, and `<file>.json` beside it holds what is needed to continue,
in a later run too, and afterwards to verify.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from picosam2._files import sha256_file, write_json
from picosam2._progress import Progress
from picosam2.data.unzip import Member, disk_errors
from picosam2.errors import ConfigError, DataError

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 60.0
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The file `<file>.json`: what the server stated, then the checksum and what was unpacked."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    files: tuple[Member, ...] = ()

    @property
    def validator(self) -> str | None:
        """What to send as If-Range (RFC 9110, 13.1.5): weak entity tags are not allowed there."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    @classmethod
    def load(cls, target: Path) -> Record | None:
        """The record beside `target`; None without one, or with one that was damaged."""
        try:
            value = json.loads(target.with_name(target.name + ".json").read_bytes())
            members = [(str(name), int(size), int(crc)) for name, size, crc in value.pop("files")]
            files = tuple(Member(name=name, size=size, crc=crc) for name, size, crc in members)
            record = cls(**value, files=files)
        except (
            FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, OverflowError,
            RecursionError,
        ):  # fmt: skip
            return None
        texts = (record.etag, record.last_modified, record.md5, record.sha256)
        sound = isinstance(record.url, str) and isinstance(record.size, int | None)
        return record if sound and all(isinstance(text, str | None) for text in texts) else None

    def save(self, target: Path) -> None:
        """Write the record beside `target`."""
        files = [[member.name, member.size, member.crc] for member in self.files]
        path = target.with_name(target.name + ".json")
        write_json(path, {**asdict(self), "files": files}, indent=None)


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    retries: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Fetch `url` into `target` and give the content's SHA-256, in hexadecimal.

    An interrupted transfer goes on at the next call, unless the file on the server has changed
    meanwhile. Without a known `sha256` the content is checked against the server's length, and
    its MD5 where the server is one whose entity tags are MD5 sums.

    Args:
        size: the length in bytes that the published file has, if known.
        sha256: its SHA-256 in hexadecimal, if known.
        retries: how often in a row a transfer may fail without a new byte.
        sleep: waits between tries, in seconds.

    Raises:
        ConfigError: `url` is not http or https.
        DataError: no network, no such file, no room, or not the published content.
    """
    if not re.match("https?://", url):
        raise ConfigError(f"{url} is no address to fetch from: it must begin with http or https")
    part = target.with_name(target.name + ".part")
    with disk_errors(target.parent):
        most, failures = _size(part), 0
        while True:
            try:
                record = _transfer(url, target, part, size, sha256, progress)
                break
            except _TemporaryError as error:
                failures = 0 if _size(part) > most else failures + 1
                most = max(most, _size(part))
                if failures > retries:
                    raise DataError(
                        f"{url} cannot be fetched, {error}: check the network and run this again, "
                        "it continues where it stopped"
                    ) from error
                sleep(min(2.0**failures, _LONGEST_WAIT_S))
        digest = sha256_file(part)
        if digest != sha256 if sha256 else record.md5 and _md5(part) != record.md5:
            part.unlink()
            raise DataError(
                f"{url} arrived with a wrong checksum and was deleted: run this again, "
                "and if it stays so, the server has another file"
            )
        part.replace(target)
        replace(record, sha256=digest).save(target)
    return digest


class _TemporaryError(Exception):
    """A failure of the network or the server that another try may mend."""


def _transfer(
    url: str,
    target: Path,
    part: Path,
    size: int | None,
    sha256: str | None,
    progress: Progress | None,
) -> Record:
    """One try to bring `part` to its full length; the record of what was fetched."""
    record = Record.load(target)
    if record is None or record.url != url:
        record = Record(url=url)
    have = _size(part)
    expected = size if size is not None else record.size
    # A known checksum proves the joined file, so then even an unknown beginning is worth keeping.
    if (not record.validator and sha256 is None) or (expected is not None and have > expected):
        have = 0
    if have and have == expected:
        return record
    headers = {"User-Agent": "picosam2", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if record.validator:
            headers["If-Range"] = record.validator
    with _open(url, headers, part) as response:
        done, total = _extent(response, have)
        if size is not None and total is not None and total != size:
            raise DataError(
                f"{url} has {total} bytes where the published file has {size}: "
                "the server has another file, name a mirror"
            )
        missing = (total or 0) - done - shutil.disk_usage(part.parent).free
        if missing > 0:
            raise DataError(f"there is no room for {url} in {part.parent}: free {missing} bytes")
        if done == 0:  # otherwise it is the same file, and the answer may leave these out
            record = Record(
                url=url,
                etag=response.headers.get("ETag"),
                last_modified=response.headers.get("Last-Modified"),
                size=total,
                md5=_stated_md5(response.headers),
            )
            record.save(target)
        with part.open("ab" if done else "wb") as stream:
            chunk = b""
            while True:
                stream.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total, what=target.name)
                if not (chunk := _read(response)):
                    break
    if total is not None and done < total:
        raise _TemporaryError("the connection broke off")
    return replace(record, size=done)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from https to something unprotected."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if urlsplit(req.full_url).scheme == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise DataError(
                f"{req.full_url} points on to {newurl}, which is not protected: "
                "fetch from another mirror"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Verifies certificate and host name. Made once: reading the machine's certificates is slow."""
    return ssl.create_default_context()


def _open(url: str, headers: dict[str, str], part: Path) -> http.client.HTTPResponse:
    """Open `url`; `_TemporaryError` if another try may help, `DataError` if not."""
    opener = urllib.request.build_opener(
        _SafeRedirects, urllib.request.HTTPSHandler(context=_tls())
    )
    try:
        request = urllib.request.Request(url, headers=headers)
        response = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is longer than the file is now: begin anew
            part.unlink(missing_ok=True)
        if error.code in _TEMPORARY_STATUS or error.code == 416:
            raise _TemporaryError(f"the server answers {error.code} {error.reason}") from error
        raise DataError(
            f"{url} cannot be fetched, the server answers {error.code} {error.reason}: "
            "check the address, or name a mirror"
        ) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise ConfigError(f"{url} is no address to fetch from: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(
                f"{url} cannot be fetched, the server's certificate is not valid: "
                "check this machine's clock and certificates, or name a mirror"
            ) from error
        raise _TemporaryError(f"the server cannot be reached ({reason})") from error
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the answer starts in the file and how long the file is, in bytes (None: unknown)."""
    if response.status == 206:
        stated = response.headers.get("Content-Range", "").strip()
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", stated)
        if not match or int(match[1]) != have:
            raise _TemporaryError("the server sent another piece than the one asked for")
        return have, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError(f"the connection broke off ({error})") from error


def _stated_md5(headers: Message) -> str | None:
    """The MD5 that an entity tag states: Amazon S3's does, for an object uploaded in one piece."""
    match = re.fullmatch(r'"([0-9a-f]{32})"', headers.get("ETag", ""))
    encrypted = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    if not match or encrypted or headers.get("Server") != "AmazonS3":
        return None
    return match[1]


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
