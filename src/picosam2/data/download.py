"""The official archives of COCO 2017 and LVIS: fetch them, check them and unpack them.

`picosam2.data.fetch` goes on where a transfer broke off, `picosam2.data.unzip` unpacks safely.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from picosam2._files import sha256_file
from picosam2._progress import Progress
from picosam2.data.fetch import Record, fetch
from picosam2.data.unzip import disk_errors, unpack
from picosam2.errors import ConfigError, DataError


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
    fetching = partial(fetch, progress=progress, retries=retries, sleep=sleep)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        return tuple(
            _download_part(
                part, source.archives[part], base, out, fetching, progress, keep=keep_archives
            )
            for part in chosen
        )


def _download_part(
    part: str,
    archive: Archive,
    base: str,
    out: Path,
    fetching: Callable[..., str],
    progress: Progress | None,
    *,
    keep: bool,
) -> Fetched:
    target, folder = out / archive.name, out / archive.folder
    url = f"{base}/{archive.path}"
    record = Record.load(target) or Record(url=url)
    if target.exists():
        digest = sha256_file(target)
        if digest != (archive.sha256 or record.sha256 or digest):
            raise DataError(
                f"{target} is not the file that was published: delete it and run this again"
            )
    elif record.sha256 and record.files and all(f.in_place(folder) for f in record.files):
        return Fetched(
            part=part, url=record.url, sha256=record.sha256, folder=folder, files=len(record.files)
        )
    else:
        digest = fetching(url, target, size=archive.size, sha256=archive.sha256)
        record = Record.load(target) or record
    members = unpack(target, folder, progress=progress)
    replace(record, sha256=digest, files=members).save(target)
    if not keep:
        target.unlink()
    return Fetched(part=part, url=record.url, sha256=digest, folder=folder, files=len(members))
