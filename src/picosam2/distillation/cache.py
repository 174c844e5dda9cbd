"""The teacher cache: what a teacher says of every view of a crop store, computed once.

A cache lies beside its store and has the same shards with the same rows. The teacher's logits are
resampled to each view's context window and kept in 8 bits: a logit is the number times `STEP`,
and `UNSEEN` marks the pixels that the teacher has not seen, or that lie outside the image.

    cache.json                  the plan: the store's and the teacher's fingerprints, settings
    shard-00000.logits.npy      (N, C, C) int8
    shard-00000.records.npy     (N,) of `RECORD`
    shard-00000.json            written last: count, SHA-256 of both files, what was counted
    report.json, *.png          see `distillation.report`
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from picosam2._files import sha256_file, write_json
from picosam2.data.crop_files import read_rows, save_array
from picosam2.data.store import Store
from picosam2.distillation.protocol import Teacher, fingerprint
from picosam2.errors import StoreError

FORMAT = 1

STEP = 0.125
"""A logit is a stored number times this."""

LIMIT = 127
"""The largest stored number; logits are clipped to +-`LIMIT` * `STEP` = +-15.875."""

UNSEEN = -128
"""Stored where the teacher has not looked: taken as a logit it is -16, surely background."""

RECORD = np.dtype(
    [
        ("predicted_iou", "<f4"),  # what the teacher expects, 0..1
        ("iou", "<f4"),  # of its mask with the true one, on the whole image
        ("valid", "?"),  # its answer is there, and finite
        ("agrees", "?"),  # it is valid, and `iou` is at least the cache's threshold
    ]
)
"""What is known of each row, beside its logits."""

_UNFINISHED = re.compile(r"\.(?:cache|shard-(\d+)(?:\.\w+)?)-")  # see `files.atomic_write`

_KINDS = {"logits": np.dtype(np.int8), "records": RECORD}


def quantize(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Logits of any shape to 8 bits; NaN becomes `UNSEEN`."""
    scaled = np.clip(np.rint(logits * np.float32(1 / STEP)), -LIMIT, LIMIT)
    return np.where(np.isnan(scaled), np.float32(UNSEEN), scaled).astype(np.int8)


def make_plan(teacher: Teacher, store: Store, agree: float) -> dict[str, Any]:
    """What a cache is made from. Names and paths are not part of its fingerprint."""
    plan = {
        "format": FORMAT,
        "store": store.fingerprint,
        "count": len(store),
        "context": store.context,
        "shards": len(store.ends),
        "step": STEP,
        "agree": agree,
    }
    about = {"name": teacher.name, "fingerprint": teacher.fingerprint, **teacher.settings}
    return {
        **plan,
        "fingerprint": fingerprint(teacher=teacher.fingerprint, **plan),
        "teacher": about,
    }


def claim(out: Path, plan: dict[str, Any], store: Store, *, rank: int = 0, world: int = 1) -> None:
    """Mark the folder `out` as this plan's cache, or refuse if it is another's.

    Halves of files that a killed run left are removed, by each process those of its own shards.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be a cache's folder: {error.strerror}") from error
    # Listed once: another process may write the plan at any moment.
    names = {path.name for path in out.iterdir() if not path.name.startswith(".cache-")}
    if names and "cache.json" not in names:
        raise StoreError(f"{out} is not empty and holds no cache: choose another folder")
    if not names:
        write_json(out / "cache.json", plan)
    existing = _read_plan(out)
    if existing["fingerprint"] != plan["fingerprint"]:
        raise StoreError(_other(out, existing, plan, store))
    for path in out.glob(".*"):
        unfinished = _UNFINISHED.match(path.name)
        if unfinished is None:
            continue
        shard = unfinished[1]  # None: of the plan, which any process may be writing
        if world == 1 or (shard is not None and int(shard) % world == rank):
            path.unlink(missing_ok=True)


def _other(out: Path, existing: dict[str, Any], plan: dict[str, Any], store: Store) -> str:
    """What is wrong with a cache that is there already."""
    if existing["teacher"]["fingerprint"] != plan["teacher"]["fingerprint"]:
        what = f"of the teacher {_named(existing)}, not of {_named(plan)}"
    elif existing["store"] != plan["store"]:
        what = (
            f"for the store {existing['store'][:12]}, not for {store.path} ({plan['store'][:12]})"
        )
    else:
        what = f"with --agree {existing.get('agree')}, not {plan['agree']}"
    return f"{out} holds a cache {what}: choose another folder, or remove it first"


def _named(plan: dict[str, Any]) -> str:
    teacher = plan["teacher"]
    settings = ", ".join(str(teacher[key]) for key in ("prompt", "choose") if key in teacher)
    return f"{teacher['name']} ({settings}; {teacher['fingerprint'][:12]})"


def _read_plan(path: Path) -> dict[str, Any]:
    file = path / "cache.json"
    try:
        plan = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} is not a teacher cache: make one with `picosam2 teach`"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} cannot be read: remove the cache and teach again") from error
    if not isinstance(plan, dict) or plan.get("format") != FORMAT or plan.get("step") != STEP:
        raise StoreError(f"{file} has another format: teach again with this version")
    teacher = plan.get("teacher")
    if not (
        isinstance(teacher, dict)
        and all(isinstance(plan.get(key), str) for key in ("fingerprint", "store"))
        and all(isinstance(teacher.get(key), str) for key in ("name", "fingerprint"))
    ):
        raise StoreError(f"{file} does not say what it is made from: teach again")
    return plan


def shard_file(path: Path, index: int, ending: str) -> Path:
    """A file of one shard; `ending` is "json", "logits.npy" or "records.npy"."""
    return path / f"shard-{index:05d}.{ending}"


def write_shard(
    path: Path,
    index: int,
    logits: npt.NDArray[np.int8],
    records: npt.NDArray[np.void],
    counted: Mapping[str, Any],
) -> None:
    """Write one shard's three files, the summary last; its presence vouches for the arrays.

    Raises:
        StoreError: they cannot be written, for instance because the disk is full.
    """
    arrays = {"logits": logits, "records": records}
    try:
        hashes = {
            name: save_array(shard_file(path, index, f"{name}.npy"), array)
            for name, array in arrays.items()
        }
        summary = {"count": len(records), "sha256": hashes, **counted}
        write_json(shard_file(path, index, "json"), summary)
    except OSError as error:
        # NumPy writes through C and says how much it wrote, not why it was not all.
        reason = error.strerror or "the disk is perhaps full"
        raise StoreError(
            f"{path} cannot be written ({reason}): make room and run the same command again; "
            "finished parts are kept"
        ) from error


class TeacherCache:
    """A teacher cache, opened for reading beside its store.

    Attributes:
        teacher: the teacher's name, fingerprint and how it was asked.
        fingerprint: SHA-256 of everything the cache is made from.
        records: (N,) of `RECORD`, aligned with the store's records.
        done: (N,) bool, the rows whose shard is finished; all, unless `unfinished` was allowed.
        counted: what each finished shard counted, by its number.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        store: Store,
        *,
        verify: bool = False,
        unfinished: bool = False,
    ) -> None:
        """Open the cache at `path` that was made for `store`.

        `verify` reads every byte and compares checksums; `unfinished` takes a cache of which only
        some shards are there yet.

        Raises:
            StoreError: missing, unfinished, damaged, of another format or for another store.
        """
        self.path, self._store = Path(path), store
        plan = _read_plan(self.path)
        if plan["store"] != store.fingerprint:
            raise StoreError(
                f"the cache {self.path} was made for the store {plan['store'][:12]}, but "
                f"{store.path} is {store.fingerprint[:12]}: teach that store, or give the right one"
            )
        self.fingerprint: str = plan["fingerprint"]
        self.teacher: dict[str, Any] = plan["teacher"]
        self.agree = float(plan.get("agree", 0.0))
        self.records = np.zeros(len(store), RECORD)
        self.done = np.zeros(len(store), np.bool_)
        self.counted: dict[int, dict[str, Any]] = {}
        self._files: list[tuple[str, int]] = []
        start = 0
        for index, end in enumerate(store.ends.tolist()):
            if shard_file(self.path, index, "json").exists():
                self.records[start:end] = self._open_shard(index, end - start, verify)
                self.done[start:end] = True
            elif unfinished:
                self._files.append((str(shard_file(self.path, index, "logits.npy")), 0))
            else:
                raise StoreError(f"{self.path} is unfinished: run the same `picosam2 teach` again")
            start = end

    def _open_shard(self, index: int, count: int, verify: bool) -> npt.NDArray[np.void]:
        """A shard's records; where its logits begin is kept."""
        file = shard_file(self.path, index, "json")
        try:
            summary = json.loads(file.read_text())
            arrays = {}
            for name, kind in _KINDS.items():
                array_file = shard_file(self.path, index, f"{name}.npy")
                if verify and sha256_file(array_file) != summary["sha256"][name]:
                    raise ValueError(f"the checksum of its {name} differs")
                arrays[name] = np.load(array_file, mmap_mode="r", allow_pickle=False)
                if arrays[name].dtype != kind:
                    raise ValueError("it holds other data")
            side = self._store.context
            if arrays["logits"].shape != (count, side, side) or arrays["records"].shape != (count,):
                raise ValueError("its size differs")
            self.counted[index] = dict(summary)
            path = str(shard_file(self.path, index, "logits.npy"))
            self._files.append((path, int(arrays["logits"].offset)))
        except Exception as error:  # NumPy's reader of headers raises a dozen kinds
            raise StoreError(
                f"{file.stem} of the cache {self.path} is damaged ({error}): delete its three "
                "files and run the same `picosam2 teach` again"
            ) from error
        records: npt.NDArray[np.void] = np.array(arrays["records"])
        return records

    def __len__(self) -> int:
        return len(self.records)

    def gather(
        self, rows: npt.NDArray[np.integer], out: npt.NDArray[np.int8] | None = None
    ) -> npt.NDArray[np.int8]:
        """The logits of `rows` (B,), in units of `STEP`: (B, C, C) int8 (in `out` if given)."""
        if out is None:
            out = np.empty((len(rows), self._store.context, self._store.context), np.int8)
        read_rows(self._files, self._store.ends, rows, out)
        return out
