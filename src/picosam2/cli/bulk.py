"""A run over many photos: all cores, what is done is left out, what is bad is named at the end.

Photos are worked on by threads that share one network: ONNX Runtime, Pillow and NumPy let each
other run, and each inference has one thread (`benchmarks/bulk.py` compares the ways). A format with
a file for each photo is its own record of what is done. COCO is one file for all photos; until it
is whole, finished photos are kept line by line in a file beside it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picosam2.cli._outputs import ENDINGS, MANY_PHOTOS, PER_OBJECT, Format, as_json, encode, tail
from picosam2.errors import ConfigError, DataError, ImageError, PicoSAM2Error, PromptWarning

if TYPE_CHECKING:
    from picosam2.io.prompt_files import Asked, BoxesFormat, PromptFile
    from picosam2.predictor import Predictor
    from picosam2.prompts import Prompt
    from picosam2.results import Segmentation
    from picosam2.tasks.everything import Everything

ENDINGS_OF_PHOTOS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
"""What counts as a photo in a folder."""

PART = ".part"
"""What a COCO file's name has more while it is being made."""

_WAITING = 2  # photos that wait for each thread: enough to keep it busy, few enough for memory

# Replacing the warning filters is global to the process, so two threads must not interleave it.
_WARNINGS_LOCK = threading.Lock()


@dataclass(frozen=True)
class Source:
    """What is asked for in each photo: the same everywhere, what a file says, or everything."""

    everywhere: tuple[Asked, ...] | None = None
    file: PromptFile | None = None
    everything: Everything | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """What a later run must share to go on with the same COCO file."""

    @property
    def categories(self) -> dict[str, int]:
        """Class names and numbers."""
        return dict(self.file.categories) if self.file and self.file.categories else {"object": 1}

    @property
    def yolo_classes(self) -> dict[str, int]:
        """The same as YOLO counts: from 0 on."""
        if self.file is not None and self.file.zero_based:
            return self.categories
        ordered = sorted(self.categories.items(), key=lambda item: item[1])
        return {name: number for number, (name, _) in enumerate(ordered)}


def source_of(
    everywhere: Sequence[Prompt] | None,
    prompts: Path | None,
    boxes: Path | None,
    boxes_format: BoxesFormat | None,
) -> Source:
    """What the options ask for. `ConfigError` for none or both, `DataError` for a bad file."""
    from picosam2._files import sha256_file
    from picosam2.io.prompt_files import Asked, read_boxes, read_prompt_file

    if prompts is not None and boxes is not None:
        raise ConfigError("give --prompts or --boxes, not both")
    path = prompts or boxes
    if path is not None:
        file = read_prompt_file(path) if prompts else read_boxes(path, boxes_format)
        return Source(file=file, settings={"prompts": sha256_file(path) if path.is_file() else ""})
    if everywhere is None:
        raise ConfigError("nothing is pointed at: add --prompts, --boxes, --point or --box")
    asked = tuple(
        Asked(prompt=one, name=f"object {number}") for number, one in enumerate(everywhere, 1)
    )
    return Source(
        everywhere=asked, settings={"prompts": json.dumps([one.to_json() for one in everywhere])}
    )


def run(
    photos: Sequence[Path],
    source: Source,
    *,
    out: Path | None,
    format: Format | None,
    tolerance: float,
    overwrite: bool,
    weights: str,
    runtime: str,
    threads: int | None,
    flip: bool = False,
) -> int:
    """Segment all photos; the exit code is 2 if something was left out."""
    from picosam2.cli._progress import progress
    from picosam2.predictor import Predictor

    place = _Place.of(out, format)
    listed = _find_photos(photos, place)
    jobs, problems = _jobs(listed, source)
    workers = threads or os.cpu_count() or 1
    predictor = Predictor(weights, runtime=runtime, threads=1, flip=flip)
    sha256 = predictor.runtime.info.weights_sha256
    settings = {**source.settings, "weights": sha256, "tolerance": tolerance}
    if flip:
        settings["flip"] = flip
    work = _Work(predictor, weights, source, place, tolerance)
    with _Book.open(place, settings, overwrite) as book:
        todo = [job for job in jobs if overwrite or not book.has(job)]
        masks = photos_done = 0
        with progress("segmenting", "photos") as update:
            for done, (job, answer) in enumerate(_all(work, todo, workers), 1):
                if isinstance(answer, PicoSAM2Error):
                    problems.append(f"{job.name}: {answer}")
                else:
                    book.add(answer.record)
                    masks += answer.masks
                    photos_done += 1
                    problems += [f"{job.name}, {what}" for what in answer.problems]
                update(done, len(todo))
        book.close(source)
    left = len(jobs) - len(todo)
    told = f", {left:,} were done already" if left else ""
    print(f"{place.target}: {masks:,} masks of {photos_done:,} photos{told}")
    if problems:
        print(f"picosam2: {len(problems):,} were left out:", file=sys.stderr)
        print(*(f"  {line}" for line in problems), sep="\n", file=sys.stderr)
    return 2 if problems else 0


# --- where to and from --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """The folder for files of single photos, or the one COCO file."""

    target: Path
    format: Format

    @staticmethod
    def of(out: Path | None, format: Format | None) -> _Place:
        if out is not None and str(out) == "-":
            raise ConfigError("many photos do not fit into standard output: give --out a folder")
        is_file = out is not None and bool(out.suffix) and not out.is_dir()
        if format is None:
            format = "coco" if is_file and out and out.suffix.lower() == ".json" else "overlay"
        if format in MANY_PHOTOS:
            target = out if is_file and out else (out or Path()) / "masks.json"
            if target.suffix.lower() not in ENDINGS[format]:
                raise ConfigError(f"{target} does not suit {format}: end it in .json")
            return _Place(target, format)
        if is_file:
            raise ConfigError(f"{format} has a file for each photo: give --out a folder, not {out}")
        return _Place(out or Path(), format)

    @property
    def one_file(self) -> bool:
        return self.format in MANY_PHOTOS

    def path(self, name: str, number: int | None = None) -> Path:
        base = self.target / Path(name).with_suffix("")
        numbered = "" if number is None else f"-{number}"
        return base.with_name(f"{base.name}{tail(self.format)}{numbered}{ENDINGS[self.format][0]}")

    def paths(self, name: str, objects: int) -> list[Path]:
        """The files of a photo with so many objects."""
        if self.format in PER_OBJECT and objects != 1:
            return [self.path(name, number) for number in range(1, objects + 1)]
        return [self.path(name)]


@dataclass(frozen=True)
class _Job:
    """A photo: its path below the photo folder, where it is, and what the prompt file calls it."""

    name: str
    path: Path
    key: str | None


def _find_photos(given: Sequence[Path], place: _Place) -> dict[str, Path]:
    """Photos by their paths below the folder they were found in; of a file, its name."""
    if not given:
        raise ImageError("there is no photo: name a folder of photos")
    found: dict[str, Path] = {}
    for one in given:
        if one.is_dir():
            folder, written = one.resolve(), None if place.one_file else place.target.resolve()
            if written == folder and ENDINGS[place.format][0] == ".png":
                raise ConfigError(f"{one} holds the photos: give --out another folder")
            # Pictures that an earlier run wrote into a folder among the photos are none of them.
            inside = written if written and folder in written.parents else None
            photos = [
                (path.relative_to(one).as_posix(), path)
                for path in sorted(one.rglob("*"))
                if path.suffix.lower() in ENDINGS_OF_PHOTOS
                and not path.name.startswith(".")
                and path.is_file()
                and not (inside and path.resolve().is_relative_to(inside))
            ]
            if not photos:
                raise ImageError(f"there is no photo in {one}")
        elif str(one) == "-" or not one.is_file():
            raise ImageError(f"{one} is not a photo nor a folder of photos: check the path")
        else:
            photos = [(one.name, one)]
        for name, path in photos:
            if name in found:
                raise ConfigError(f"{found[name]} and {path} have one name: use two calls")
            found[name] = path
    if not place.one_file:
        _check_names(found, place)
    return found


def _check_names(found: dict[str, Path], place: _Place) -> None:
    written: dict[Path, Path] = {}
    for name, path in found.items():
        other = written.setdefault(place.path(name), path)
        if other != path:
            raise ConfigError(
                f"{other} and {path} would both be written to {place.path(name)}: "
                "segment them in two calls, each with its own --out"
            )


def _jobs(listed: dict[str, Path], source: Source) -> tuple[list[_Job], list[str]]:
    """The photos that something is asked for, and what is asked for without a photo."""
    if source.file is None:
        return [_Job(name, path, None) for name, path in listed.items()], []
    keys = {name: source.file.find(name) for name in listed}
    jobs = [_Job(name, listed[name], key) for name, key in keys.items() if key is not None]
    if not jobs:
        known = next(iter(source.file.readers), None)
        raise DataError(
            f"no photo is named in the prompts, such as {known}: check the folder"
            if known
            else "the prompts name no photo"
        )
    known_keys = set(keys.values())
    missing = [
        f"{key}: there is no such photo" for key in source.file.readers if key not in known_keys
    ]
    return jobs, [*source.file.problems, *missing]


# --- the work -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    """What became of a photo."""

    record: dict[str, Any]
    masks: int
    problems: list[str]


@dataclass(frozen=True)
class _Work:
    """What a thread does with a photo."""

    predictor: Predictor
    weights: str
    source: Source
    place: _Place
    tolerance: float

    def __call__(self, job: _Job) -> _Answer:
        from picosam2.images import load_image

        picture = load_image(job.path)
        height, width = picture.shape[:2]
        if self.source.everything is not None:
            found, asked = self._everything(picture, self.source.everything)
            problems: list[str] = []
        else:
            asked, problems = self._asked(job, height, width)
            found = self.predictor(picture, prompts=[one.prompt for one in asked]) if asked else []
        record = {"name": job.name, "height": height, "width": width}
        if self.place.one_file:
            record["masks"] = [
                self._annotation(one, what) for one, what in zip(found, asked, strict=True)
            ]
        else:
            self._write(job, picture, found, asked)
        return _Answer(record, len(found), problems)

    def _everything(
        self, picture: Any, settings: Everything
    ) -> tuple[list[Segmentation], list[Asked]]:
        from picosam2.io.prompt_files import Asked
        from picosam2.tasks.everything import everything

        found = everything(picture, self.predictor, settings)
        return found, [Asked(prompt=one.prompt) for one in found]

    def _asked(self, job: _Job, height: int, width: int) -> tuple[list[Asked], list[str]]:
        """What is asked for in a photo of that size, and what of it makes no sense."""
        from dataclasses import replace

        file = self.source.file
        everything = (
            file.readers[job.key](height, width)
            if file is not None and job.key is not None
            else self.source.everywhere or ()
        )
        found, problems = [], []
        for one in everything:
            try:
                # A detector's boxes reach past the photo as a matter of course.
                with _WARNINGS_LOCK, warnings.catch_warnings():
                    warnings.simplefilter("ignore", PromptWarning)
                    found.append(replace(one, prompt=one.prompt.within(height, width)))
            except PicoSAM2Error as error:
                problems.append(f"{one.name}: {error}")
        return found, problems

    def _annotation(self, one: Segmentation, asked: Asked) -> dict[str, Any]:
        from picosam2.io.formats import coco_annotation

        entry = coco_annotation(
            one,
            id=0,
            image_id=0,
            polygons=self.place.format == "coco-polygons",
            tolerance=self.tolerance,
        )
        entry |= {"id": asked.id, "label": asked.label}
        if asked.score is not None:
            entry["prompt_score"] = asked.score
        return entry

    def _write(
        self, job: _Job, picture: Any, found: Sequence[Segmentation], asked: Sequence[Asked]
    ) -> None:
        from picosam2._files import write_bytes
        from picosam2.cli.segment import document

        labels = [one.label for one in asked]
        classes = self.source.yolo_classes
        groups: list[Sequence[Segmentation]] = (
            [[one] for one in found] if self.place.format in PER_OBJECT else [found]
        )
        for path, group in zip(self.place.paths(job.name, len(found)), groups, strict=True):
            if self.place.format == "json":
                size = picture.shape[:2]
                data = document(job.name, self.weights, self.predictor, size, group)
            else:
                data = encode(
                    self.place.format,
                    job.path.name,
                    picture,
                    group,
                    prompts=self.source.everything is None,
                    labels=labels,
                    class_ids=[classes[label] for label in labels],
                    tolerance=self.tolerance,
                )
            write_bytes(path, data)


def _all(
    work: _Work, jobs: Sequence[_Job], workers: int
) -> Iterator[tuple[_Job, _Answer | PicoSAM2Error]]:
    """Every photo's answer as it comes; few photos are in memory at a time."""
    waiting = iter(jobs)
    running: dict[Future[_Answer], _Job] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                for job in waiting:
                    running[pool.submit(work, job)] = job
                    if len(running) >= _WAITING * workers:
                        break
                if not running:
                    return
                done = wait(running, return_when=FIRST_COMPLETED).done
                # What stops the run comes last, so that no photo that is done is lost.
                for future in sorted(done, key=lambda one: one.exception() is not None):
                    job = running.pop(future)
                    error = future.exception()
                    if isinstance(error, PicoSAM2Error):
                        yield job, error
                    else:
                        yield job, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


# --- what is done -------------------------------------------------------------------------------


class _Book:
    """What is done: the files that are there, or the records of a COCO file in the making."""

    def __init__(self, place: _Place, settings: dict[str, Any], records: list[Any]) -> None:
        self._place, self._settings = place, settings
        self._records: dict[str, dict[str, Any]] = {one["name"]: one for one in records}
        self._stream: Any = None

    @classmethod
    def open(cls, place: _Place, settings: dict[str, Any], overwrite: bool) -> _Book:
        """Read what an earlier run left. `ConfigError` if that was asked for something else."""
        if not place.one_file:
            return cls(place, settings, [])
        part = _part(place.target)
        settings = {**settings, "format": place.format}
        records: list[Any] = []
        for path in (place.target, part):
            if overwrite or not path.exists():
                continue
            found, earlier = _read_records(path)
            if earlier not in (settings, None):
                raise ConfigError(
                    f"{path} is of a run with other prompts, weights or settings: "
                    "choose another --out, or add --overwrite"
                )
            records += found
        return cls(place, settings, records)

    def __enter__(self) -> _Book:
        from picosam2._files import write_bytes

        if self._place.one_file:
            part = _part(self._place.target)
            lines = [{"settings": self._settings}, *self._records.values()]
            write_bytes(part, b"".join(map(as_json, lines)))
            self._stream = part.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def has(self, job: _Job) -> bool:
        """Whether a photo is done."""
        if self._place.one_file:
            return job.name in self._records
        first = self._place.path(job.name)
        numbered = self._place.path(job.name, 1)
        return first.exists() or (self._place.format in PER_OBJECT and numbered.exists())

    def add(self, record: dict[str, Any]) -> None:
        """A photo is done."""
        if self._stream is not None:
            self._records[record["name"]] = record
            self._stream.write(as_json(record))
            self._stream.flush()

    def close(self, source: Source) -> None:
        """All photos are done: write the whole file, or the classes that YOLO's numbers mean."""
        from picosam2._files import write_bytes, write_text
        from picosam2.io.prompt_files import CLASSES

        if self._stream is not None:
            self._stream.close()
            document = _document(self._records, source, self._settings)
            write_bytes(self._place.target, as_json(document))
            _part(self._place.target).unlink(missing_ok=True)
        elif self._place.format == "yolo":
            names = {number: name for name, number in source.yolo_classes.items()}
            lines = [names.get(number, str(number)) for number in range(max(names) + 1)]
            write_text(self._place.target / CLASSES, "\n".join([*lines, ""]))


def _part(target: Path) -> Path:
    return target.with_name(target.name + PART)


def _read_records(path: Path) -> tuple[list[dict[str, Any]], Any]:
    """The records of a whole or half-made COCO file of ours, and the settings it was made with."""
    try:
        text = path.read_text("utf-8")
        if path.name.endswith(PART):
            lines = [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
            return lines[1:], lines[0]["settings"] if lines else None
        document = json.loads(text)
        settings = document["info"]["settings"]
        labels = {one["id"]: one["name"] for one in document["categories"]}
        records = {
            one["id"]: {
                "name": one["file_name"],
                "height": one["height"],
                "width": one["width"],
                "masks": [],
            }
            for one in document["images"]
        }
        for one in document["annotations"]:
            kept = {k: v for k, v in one.items() if k not in ("image_id", "category_id")}
            records[one["image_id"]]["masks"].append(kept | {"label": labels[one["category_id"]]})
        return list(records.values()), settings
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{path} is there, but is no result of this command: "
            "choose another --out, or add --overwrite"
        ) from error


def _document(
    records: dict[str, dict[str, Any]], source: Source, settings: dict[str, Any]
) -> dict[str, Any]:
    """The COCO file. Numbers of photos, objects and classes are those of the prompts' file."""
    from picosam2.io.formats import coco_document

    categories = source.categories
    numbers = source.file.image_ids if source.file else {}
    ordered = sorted(records.values(), key=lambda record: str(record["name"]))
    ids = [
        numbers.get((source.file.find(one["name"]) if source.file else None) or "", None)
        for one in ordered
    ]
    if None in ids or len(set(ids)) != len(ids):
        ids = list(range(1, len(ordered) + 1))
    given = [entry["id"] for one in ordered for entry in one["masks"]]
    keep = None not in given and len(set(given)) == len(given)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in zip(ids, ordered, strict=True):
        images.append(
            {
                "id": number,
                "file_name": record["name"],
                "height": record["height"],
                "width": record["width"],
            }
        )
        for entry in record["masks"]:
            rest = {key: value for key, value in entry.items() if key != "label"}
            rest["id"] = entry["id"] if keep else len(annotations) + 1
            annotations.append(
                rest | {"image_id": number, "category_id": categories[entry["label"]]}
            )
    return coco_document(
        images,
        annotations,
        [{"id": number, "name": name} for name, number in categories.items()],
        {"description": "masks by PicoSAM2", "settings": settings},
    )
