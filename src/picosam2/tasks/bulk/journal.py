"""What a run over many images has done, so that a later run does only what is missing or differs.

A folder of results has a journal, a hidden file with a line for each image: with which prompts,
weights and settings it was segmented, and which files were written, with their SHA-256. A COCO file
is one file for all images. Until it is whole, finished images are kept in a file beside it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from picosam2._files import sha256_file, write_bytes, write_text
from picosam2.errors import ConfigError, PicoSAM2Error
from picosam2.io.encode import json_line
from picosam2.io.formats.yolo import CLASSES
from picosam2.io.image_names import stays_inside
from picosam2.io.prompt_files import PromptEntry
from picosam2.tasks.bulk.coco import coco_of_run, part_of, read_records
from picosam2.tasks.bulk.images import Job
from picosam2.tasks.bulk.prompts import PromptSource, entries_json
from picosam2.tasks.output_plan import OutputPlan

JOURNAL = ".picosam2.jsonl"
"""The journal's name in a folder of results."""

_VERSION = 1


class Journal(Protocol):
    """What is done. Used in a `with` statement; its methods may be called from several threads."""

    def __enter__(self) -> Journal: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def finished(self, job: Job) -> list[str] | None:
        """None unless the image is done, with the prompts, weights and settings of this run.

        If it is, a sentence for each of its prompts that could not be used.
        """

    def check_free(self, job: Job) -> None:
        """Raise `ConfigError` if the image's results would replace a file of somebody else."""

    def finish(self) -> list[str]:
        """Complete what belongs to all images, once they are done. Returns what could not be."""


# --- a folder of files --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A line of the journal: one image in one format."""

    image: str
    format: str
    key: str
    """Digest of the prompts and settings."""
    size: tuple[int, int]
    """Height and width of the image, with which its prompts were read."""
    stat: tuple[int, int]
    """Bytes and modification time (ns) of the image's file."""
    files: Mapping[str, str]
    """SHA-256 by path below the folder."""
    done: bool
    """Whether all files were written; a line without it is written before the first one is."""


class FolderJournal:
    """The journal of a folder with files for each image."""

    def __init__(
        self,
        plan: OutputPlan,
        source: PromptSource,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        """Read the folder's journal. `ConfigError` if that file is not a journal."""
        self._plan, self._source = plan, source
        self._settings = dict(settings)
        self._overwrite = overwrite
        self._path = plan.folder / JOURNAL
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}  # the last of each image and format
        self._whole: dict[tuple[str, str], _Entry] = {}  # the last whose files were all written
        self._written: dict[str, set[str]] = {}  # SHA-256 of all that was ever written to a file
        self._writers: dict[str, tuple[str, str]] = {}  # image and format of the last to write it
        for entry in _read_journal(self._path):
            self._remember(entry)
        self._stream: BinaryIO | None = None

    def __enter__(self) -> FolderJournal:
        # Lines that later runs have replaced are dropped here, but not those of files that
        # were being replaced.
        before = [e for key, e in self._whole.items() if self._entries[key] is not e]
        entries = [*before, *self._entries.values()]
        lines = [{"picosam2_journal": _VERSION}, *map(asdict, entries)]
        write_bytes(self._path, b"".join(map(json_line, lines)))
        self._stream = self._path.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def finished(self, job: Job) -> list[str] | None:
        if self._overwrite:
            return None
        entry = self._entries.get((job.name, self._plan.format))
        if entry is None or not entry.done or entry.stat != _stat(job.path):
            return None
        try:
            entries, problems = self._source.prompts_for(job.key, *entry.size)
        except PicoSAM2Error:  # it is named when its turn comes
            return None
        if entry.key != self._key(entries):
            return None
        whole = all(
            self._writers[name] == (entry.image, entry.format)
            and (self._plan.folder / name).is_file()
            for name in entry.files
        )
        return problems if whole else None

    def check_free(self, job: Job) -> None:
        self._check_own([self._plan.path(job.name)])

    def write(
        self,
        job: Job,
        size: tuple[int, int],
        entries: Sequence[PromptEntry],
        files: Mapping[Path, bytes],
    ) -> None:
        """Write all files of an image, and remove those that an earlier run wrote beside them.

        Raises:
            ConfigError: a file there was not written by this command, or was changed since.
        """
        self._check_own(list(files))
        key = (job.name, self._plan.format)
        earlier: set[str] = set()
        for entries_by_key in (self._entries, self._whole):
            if key in entries_by_key:
                earlier.update(entries_by_key[key].files)
        entry = _Entry(
            image=job.name,
            format=self._plan.format,
            key=self._key(entries),
            size=size,
            stat=_stat(job.path),
            files={
                self._name(path): hashlib.sha256(data).hexdigest() for path, data in files.items()
            },
            done=False,
        )
        self._add(entry)
        for path, data in files.items():
            self._plan.write(path, data)
        for name in earlier - set(entry.files):
            path = self._plan.folder / name
            if path.is_file() and self._is_own(path):
                path.unlink()
        self._add(_Entry(**{**vars(entry), "done": True}))

    def finish(self) -> list[str]:
        """Write the names of YOLO's classes."""
        if self._plan.format != "yolo":
            return []
        names = self._source.yolo_names
        lines = [names.get(number, str(number)) for number in range(max(names) + 1)]
        text = "\n".join([*lines, ""])
        path = self._plan.folder / CLASSES
        digest = hashlib.sha256(text.encode()).hexdigest()
        if path.exists() and not self._overwrite:
            if sha256_file(path) == digest:
                return []
            if not self._is_own(path):
                return [
                    f"{path} was not written by this command, so it is left as it is; the labels "
                    f"mean {', '.join(f'{number} {names[number]}' for number in sorted(names))}"
                ]
        write_text(path, text)
        self._add(
            _Entry(
                image="",
                format="yolo",
                key="",
                size=(0, 0),
                stat=(0, 0),
                files={CLASSES: digest},
                done=True,
            )
        )
        return []

    def _key(self, entries: Sequence[PromptEntry]) -> str:
        if self._source.everything is not None:
            prompts: Any = vars(self._source.everything)
        else:
            prompts = entries_json(entries)
        classes = self._source.yolo_names if self._plan.format == "yolo" else {}
        text = json.dumps([self._settings, prompts, classes], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _check_own(self, paths: Sequence[Path]) -> None:
        if self._overwrite:
            return
        for path in paths:
            if path.exists() and not self._is_own(path):
                raise ConfigError(
                    f"{path} is there, and was not written by this command or was changed since: "
                    "add --overwrite, or choose another --out"
                )

    def _is_own(self, path: Path) -> bool:
        digests = self._written.get(self._name(path))
        return bool(digests) and sha256_file(path) in (digests or ())

    def _name(self, path: Path) -> str:
        return path.relative_to(self._plan.folder).as_posix()

    def _add(self, entry: _Entry) -> None:
        assert self._stream is not None
        with self._lock:
            self._remember(entry)
            self._stream.write(json_line(asdict(entry)))
            self._stream.flush()

    def _remember(self, entry: _Entry) -> None:
        key = (entry.image, entry.format)
        self._entries.pop(key, None)  # so that they stay in the order in which they were written
        self._entries[key] = entry
        if entry.done:
            self._whole[key] = entry
        for name, digest in entry.files.items():
            self._written.setdefault(name, set()).add(digest)
            self._writers[name] = key


def _read_journal(path: Path) -> list[_Entry]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    # A line that was being written when a run was killed has no end.
    lines = [line for line in text.splitlines(True) if line.endswith("\n")]
    try:
        if lines and json.loads(lines[0]) != {"picosam2_journal": _VERSION}:
            raise ValueError("another version")
        return [_entry_of(json.loads(line)) for line in lines[1:]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not a journal of this release: remove it, or choose another --out"
        ) from error


def _entry_of(value: Mapping[str, Any]) -> _Entry:
    height, width = value["size"]
    length, changed = value["stat"]
    files = {str(name): str(digest) for name, digest in dict(value["files"]).items()}
    if not all(map(stays_inside, files)):
        raise ValueError("a file outside of the folder")
    return _Entry(
        image=str(value["image"]),
        format=str(value["format"]),
        key=str(value["key"]),
        size=(int(height), int(width)),
        stat=(int(length), int(changed)),
        files=files,
        done=bool(value["done"]),
    )


def _stat(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:  # gone; reading it gives the reason
        return 0, 0
    return about.st_size, about.st_mtime_ns


# --- one COCO file ------------------------------------------------------------------------------


class CocoJournal:
    """The records of a COCO file in the making."""

    def __init__(
        self,
        plan: OutputPlan,
        source: PromptSource,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        """Read what an earlier run left. `ConfigError` if that had other prompts or settings."""
        assert plan.file is not None
        self._target, self._source = plan.file, source
        self._settings = {"prompts": source.digest, **settings, "format": plan.format}
        self._records: dict[str, dict[str, Any]] = {}
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()
        for path in (self._target, part_of(self._target)):
            if overwrite or not path.exists():
                continue
            records, earlier = read_records(path)
            used = {entry["category_id"] for record in records for entry in record["masks"]}
            if earlier not in (self._settings, None) or not used <= set(source.categories):
                raise ConfigError(
                    f"{path} is of a run with other prompts, weights or settings: "
                    "choose another --out, or add --overwrite"
                )
            self._records |= {record["name"]: record for record in records}

    def __enter__(self) -> CocoJournal:
        part = part_of(self._target)
        lines = [{"settings": self._settings}, *self._records.values()]
        write_bytes(part, b"".join(map(json_line, lines)))
        self._stream = part.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def finished(self, job: Job) -> list[str] | None:
        record = self._records.get(job.name)
        if record is None:
            return None
        try:
            return self._source.prompts_for(job.key, record["height"], record["width"])[1]
        except PicoSAM2Error as error:
            return [str(error)]

    def check_free(self, job: Job) -> None:
        """The one file was checked when it was opened."""

    def add(self, record: dict[str, Any]) -> None:
        """Keep what was found in an image."""
        assert self._stream is not None
        with self._lock:
            self._records[record["name"]] = record
            self._stream.write(json_line(record))
            self._stream.flush()

    def finish(self) -> list[str]:
        """Write the whole file."""
        assert self._stream is not None
        self._stream.close()
        document = coco_of_run(self._records, self._source, self._settings)
        write_bytes(self._target, json_line(document))
        part_of(self._target).unlink(missing_ok=True)
        return []
