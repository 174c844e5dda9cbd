"""Fetch the official archives of COCO 2017 and LVIS, check them and unpack them.

A transfer that breaks goes on where it stopped: what has arrived is in `<archive>.part`, and
`<archive>.json` beside it holds what is needed to continue and, afterwards, to verify.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import http.client
import json
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import IO, Final, NoReturn
from urllib.parse import urlsplit

from picosam2._files import sha256_file, write_json
from picosam2._progress import Progress
from picosam2.errors import ConfigError, DataError
from picosam2.io.image_names import stays_inside

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 60.0
_MAX_RATIO = 20  # unpacked size over archive size; the official ones stay below 4
_MAX_MEMBERS = 1_000_000
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One official zip file.

    Attributes:
        path: its address below the data set's base URL.
        folder: the folder below the data set's own that it is unpacked into.
        size, sha256: of the zip file, where known. The publishers state none; these are what
            others who fetched the files have recorded, TensorFlow Datasets for one.
    """

    path: str
    folder: str = ""
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a data set comes from: its archives by part, and the parts fetched by default."""

    base_url: str
    archives: Mapping[str, Archive]
    default_parts: tuple[str, ...]


# COCO's own address has no valid certificate for https; the SHA-256 guards the content.
SOURCES: Final[Mapping[str, Source]] = {
    "coco": Source(
        base_url="http://images.cocodataset.org",
        archives={
            "train": Archive(
                path="zips/train2017.zip",
                size=19_336_861_798,
                sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
            "val": Archive(
                path="zips/val2017.zip",
                size=815_585_330,
                sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            "annotations": Archive(
                path="annotations/annotations_trainval2017.zip",
                size=252_907_541,
                sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
        },
        default_parts=("annotations", "val", "train"),
    ),
    "lvis": Source(
        base_url="https://dl.fbaipublicfiles.com",
        archives={
            "train": Archive(
                path="LVIS/lvis_v1_train.json.zip",
                folder="annotations",
                size=350_264_821,
                sha256="334a4caa374030a7817cf050364525e910f7960f9b6968cef47cffbf3893f8ba",
            ),
            "val": Archive(
                path="LVIS/lvis_v1_val.json.zip",
                folder="annotations",
                size=64_026_968,
                sha256="5cae9a3c79aadb667550c2b5dcf7f4d86e059a41ec91ef690225b667e28e9ba5",
            ),
            "train-v0.5": Archive(path="LVIS/lvis_v0.5_train.json.zip", folder="annotations"),
            "val-v0.5": Archive(path="LVIS/lvis_v0.5_val.json.zip", folder="annotations"),
        },
        default_parts=("val", "train"),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """One part that is now in place: `files` files below `folder`, from `url`."""

    part: str
    url: str
    sha256: str
    folder: Path
    files: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One unpacked file: its path below the folder, size in bytes and CRC-32."""

    name: str
    size: int
    crc: int


def download(
    dataset: str,
    out: Path,
    *,
    parts: Sequence[str] | None = None,
    base_url: str | None = None,
    keep_archives: bool = True,
    progress: Progress | None = None,
    retries: int = 5,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Fetched, ...]:
    """Fetch, check and unpack a data set. Run again, it continues and verifies.

    Args:
        dataset: "coco" or "lvis". LVIS is annotations only: its images are COCO's, so give both
            the same `out`.
        out: the folder for `train2017/`, `val2017/`, `annotations/` and the archives.
        parts: some of the keys of `SOURCES[dataset].archives`; by default all of the newest
            version.
        base_url: a mirror with the same paths, instead of the official server.
        keep_archives: whether the zip files stay after unpacking. Without them a later run
            verifies the unpacked files, and fetches an archive again if one is missing.
        retries: how often in a row a transfer may fail without a new byte.
        sleep: waits between tries, in seconds.

    Raises:
        ConfigError: an unknown data set or part, or a `base_url` that is not http or https.
        DataError: no network, no such file, no room, or not the published content.
    """
    if dataset not in SOURCES:
        raise ConfigError(f"there is no data set {dataset!r}: choose one of {', '.join(SOURCES)}")
    source = SOURCES[dataset]
    chosen = source.default_parts if parts is None else tuple(dict.fromkeys(parts))
    for part in chosen:
        if part not in source.archives:
            known = ", ".join(source.archives)
            raise ConfigError(f"{dataset} has no part {part!r}: choose from {known}")
    base = (base_url or source.base_url).rstrip("/")
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return tuple(
            _download_part(
                part,
                source.archives[part],
                base,
                out,
                keep_archive=keep_archives,
                progress=progress,
                retries=retries,
                sleep=sleep,
            )
            for part in chosen
        )
    except OSError as error:
        _refuse_disk(error, out)


def _download_part(
    part: str,
    archive: Archive,
    base: str,
    out: Path,
    *,
    keep_archive: bool,
    progress: Progress | None,
    retries: int,
    sleep: Callable[[float], None],
) -> Fetched:
    target, folder = out / archive.name, out / archive.folder
    url = f"{base}/{archive.path}"
    record = _Record.load(target)
    if target.exists():
        digest = sha256_file(target)
        expected = archive.sha256 or (record.sha256 if record else None)
        if expected and digest != expected:
            raise DataError(
                f"{target} is not the file that was published: delete it and run this again"
            )
    elif record and record.sha256 and record.files and _in_place(record.files, folder):
        return Fetched(
            part=part,
            url=record.url,
            sha256=record.sha256,
            folder=folder,
            files=len(record.files),
        )
    else:
        digest = fetch(
            url,
            target,
            size=archive.size,
            sha256=archive.sha256,
            progress=progress,
            retries=retries,
            sleep=sleep,
        )
    members = unpack(target, folder, progress=progress)
    record = _Record.load(target) or _Record(url=url)
    replace(record, sha256=digest, files=members).save(target)
    if not keep_archive:
        target.unlink()
    return Fetched(part=part, url=record.url, sha256=digest, folder=folder, files=len(members))


# Fetching


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

    Raises:
        ConfigError: `url` is not http or https.
        DataError: see `download`.
    """
    if not re.match("https?://", url):
        raise ConfigError(f"{url} is no address to fetch from: it must begin with http or https")
    try:
        return _fetch(url, target, size, sha256, progress, retries, sleep)
    except OSError as error:
        _refuse_disk(error, target.parent)


def _fetch(
    url: str,
    target: Path,
    size: int | None,
    sha256: str | None,
    progress: Progress | None,
    retries: int,
    sleep: Callable[[float], None],
) -> str:
    part = target.with_name(target.name + ".part")
    best = _size(part)
    failures = 0
    while True:
        try:
            record = _transfer(url, target, part, size=size, sha256=sha256, progress=progress)
            break
        except _TemporaryError as error:
            failures = 0 if _size(part) > best else failures + 1
            best = max(best, _size(part))
            if failures > retries:
                raise DataError(
                    f"{url} cannot be fetched, {error}: check the network and run this again, "
                    "it continues where it stopped"
                ) from error
            sleep(min(2.0**failures, _LONGEST_WAIT_S))
    digest = sha256_file(part)
    if (sha256 and digest != sha256) or (not sha256 and record.md5 and _md5(part) != record.md5):
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """The file `<archive>.json`: what the server said, and later what was found."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    files: tuple[Member, ...] = field(default=())

    @property
    def validator(self) -> str | None:
        """What to send as If-Range (RFC 9110, 13.1.5): weak entity tags are not allowed there."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    @staticmethod
    def path(target: Path) -> Path:
        return target.with_name(target.name + ".json")

    @classmethod
    def load(cls, target: Path) -> _Record | None:
        """The record beside `target`; None without one, or with one that was damaged."""
        try:
            value = json.loads(cls.path(target).read_bytes())
            files = tuple(
                Member(name=str(name), size=int(size), crc=int(crc))
                for name, size, crc in value.pop("files")
            )
            record = cls(**value, files=files)
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None
        except (OverflowError, RecursionError):
            return None
        texts = (record.etag, record.last_modified, record.md5, record.sha256)
        if not isinstance(record.url, str) or not all(isinstance(x, str | None) for x in texts):
            return None
        return record if isinstance(record.size, int | None) else None

    def save(self, target: Path) -> None:
        value = asdict(self)
        value["files"] = [[member.name, member.size, member.crc] for member in self.files]
        write_json(self.path(target), value, indent=None)


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


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Open `url`; `_TemporaryError` if another try may help, `DataError` if not."""
    opener = urllib.request.build_opener(
        _SafeRedirects, urllib.request.HTTPSHandler(context=_tls())
    )
    try:
        request = urllib.request.Request(url, headers=headers)
        response = opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _TEMPORARY_STATUS or error.code == 416:
            raise _TemporaryError(f"the server answers {error.code} {error.reason}") from error
        raise DataError(
            f"{url} cannot be fetched, the server answers {error.code} {error.reason}: "
            "check the address, or name a mirror"
        ) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DataError(
                f"{url} cannot be fetched, the server's certificate is not valid: "
                "check this machine's clock and certificates, or name a mirror"
            ) from error
        raise _TemporaryError(f"the server cannot be reached ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise ConfigError(f"{url} is no address to fetch from: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TemporaryError(f"the server cannot be reached ({error})") from error
    assert isinstance(response, http.client.HTTPResponse)
    return response


def _transfer(
    url: str,
    target: Path,
    part: Path,
    *,
    size: int | None,
    sha256: str | None,
    progress: Progress | None,
) -> _Record:
    """One try to bring `part` to its full length; the record of what was fetched."""
    record = _Record.load(target)
    if record is None or record.url != url:
        record = _Record(url=url)
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
    try:
        response = _open(url, headers)
    except _TemporaryError as error:
        if isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 416:
            part.unlink(missing_ok=True)  # longer than the file is now: begin anew
        raise
    with response:
        start, total = _extent(response, have)
        if size is not None and total is not None and total != size:
            raise DataError(
                f"{url} has {total} bytes where the published file has {size}: "
                "the server has another file, name a mirror"
            )
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - start > free:
            raise DataError(
                f"there is no room for {url} in {part.parent}: free {total - start - free} bytes"
            )
        if start == 0:  # otherwise it is the same file, and the answer may leave these out
            record = _Record(
                url=url,
                etag=response.headers.get("ETag"),
                last_modified=response.headers.get("Last-Modified"),
                size=total,
                md5=_stated_md5(response.headers),
            )
            record.save(target)
        done = start
        if progress:
            progress(done, total, what=target.name)
        with part.open("ab" if start else "wb") as stream:
            while chunk := _read(response):
                stream.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total, what=target.name)
    if total is not None and done < total:
        raise _TemporaryError("the connection broke off")
    return replace(record, size=done)


def _extent(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the answer starts in the file and how long the file is, in bytes (None: unknown)."""
    if response.status == 206:
        match = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
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


def _refuse_disk(error: OSError, folder: Path) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise DataError(
            f"there is no room left in {folder}: free some and run this again, "
            "it continues where it stopped"
        ) from error
    raise DataError(
        f"{error.filename or folder} cannot be used ({error.strerror or error}): "
        "choose another folder"
    ) from error


# Unpacking


def unpack(archive: Path, folder: Path, *, progress: Progress | None = None) -> tuple[Member, ...]:
    """Unpack a zip file below `folder` and give its files, with CRC-32 checked.

    Files that are already there with the right size and CRC-32 stay; others are replaced, each at
    once. The whole list of contents is checked before the first file is written: no path out of
    the folder, no link or device, no file twice, no more than 20 times the archive's size.

    Raises:
        DataError: the archive is damaged or has such contents, or there is no room.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.filename.endswith("/")]
            _check_contents(archive, infos)
            total = sum(info.file_size for info in infos)
            done = 0
            members = []
            for info in infos:
                member = Member(name=info.filename, size=info.file_size, crc=info.CRC)
                target = folder / info.filename
                if not _same(target, member):
                    _unpack_one(opened, info, target)
                members.append(member)
                done += info.file_size
                if progress:
                    progress(done, total, what=f"{archive.name}, unpacking")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        _refuse_zip(error, archive)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the file's beginning
            _refuse_zip(error, archive)
        _refuse_disk(error, folder)
    return tuple(members)


def _refuse_zip(error: Exception, archive: Path) -> NoReturn:
    raise DataError(
        f"{archive} is a damaged zip file ({str(error) or type(error).__name__}): "
        "delete it and run this again"
    ) from error


def _check_contents(archive: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    def refuse(what: str) -> NoReturn:
        raise DataError(f"{archive} {what}: it is not the official archive, do not use it")

    if len(infos) > _MAX_MEMBERS:
        refuse(f"holds more than {_MAX_MEMBERS} files")
    if sum(info.file_size for info in infos) > _MAX_RATIO * archive.stat().st_size:
        refuse(f"would unpack to more than {_MAX_RATIO} times its size")
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        kind = stat.S_IFMT(info.external_attr >> 16)
        if not stays_inside(name):
            refuse(f"holds a file that leaves the folder, {name!r}")
        if kind not in (0, stat.S_IFREG):
            refuse(f"holds something that is not a plain file, {name!r}")
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            refuse(f"holds a file with encryption or rare compression, {name!r}")
        same_everywhere = PurePosixPath(name).as_posix().casefold()
        if same_everywhere in seen:
            refuse(f"holds a file twice, {name!r}")
        seen.add(same_everywhere)


def _unpack_one(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    # Not `files.atomic_write`: it waits for the disk, which 118,287 images make too slow, and a
    # file lost in a power cut is found by its CRC at the next run.
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        with opened.open(info) as source, temporary.open("wb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
            if stream.tell() != info.file_size:
                raise zipfile.BadZipFile(f"{info.filename!r} is shorter than stated")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _in_place(members: Sequence[Member], folder: Path) -> bool:
    return all(stays_inside(m.name) and _same(folder / m.name, m) for m in members)


def _same(path: Path, member: Member) -> bool:
    """Whether `path` is a file with the member's size and CRC-32."""
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    crc = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.crc
