"""Names of images that come from a file of someone else: spelled as they are, and matched."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from picosam2.io.formats.objects import EntryProblem

_SHOWN = 3  # images that a message names


def stays_inside(name: str) -> bool:
    """Whether a relative path names something below its folder, whichever system reads it."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not path.parts or path.is_absolute() or path.drive or path.root or ".." in path.parts:
            return False
    return "\0" not in name


def plain(name: str) -> str:
    """A path as its usual spelling: with /, without ./ and %20, its letters composed (NFC)."""
    spelled = unquote(name, errors="strict") if "%" in name and _unquotes(name) else name
    spelled = spelled.replace("\\", "/")
    while spelled.startswith("./"):
        spelled = spelled[2:]
    return unicodedata.normalize("NFC", spelled)


def _unquotes(name: str) -> bool:
    try:
        return bool(unquote(name, errors="strict"))
    except UnicodeDecodeError:
        return False


def spellings(name: str) -> list[str]:
    """The paths below a folder that a name may mean, the likeliest first.

    That is the name itself, with / for back-slashes, without escapes such as %20, with composed
    or decomposed letters; and each of them without its first folders, for names that are absolute
    or begin with the folder itself (images/a.jpg).
    """
    if "\0" in name:
        return []
    whole = dict.fromkeys([name, name.replace("\\", "/"), plain(name)])
    for form in ("NFC", "NFD"):
        whole |= dict.fromkeys([unicodedata.normalize(form, spelled) for spelled in list(whole)])
    tails: dict[str, None] = {}
    for spelled in whole:
        parts = [part for part in spelled.split("/") if part]
        if ".." not in parts:
            tails |= dict.fromkeys("/".join(parts[start:]) for start in range(1, len(parts)))
    longest_first = sorted(tails, key=lambda tail: -tail.count("/"))
    return [name for name in [*whole, *longest_first] if stays_inside(name)]


@dataclass(frozen=True)
class Matches:
    """Which image each name means. `names` holds the name by image."""

    names: dict[str, str] = field(default_factory=dict)
    unclear: dict[str, EntryProblem] = field(default_factory=dict)
    """Names that may mean several images, or share one with another name."""


def match_names(names: Iterable[str], images: Sequence[str]) -> Matches:
    """Match names in a file with images, which are known by their paths below a folder (with /).

    The first way that finds an image for a name counts, and an image goes to the name that fits
    it best: the exact path; the path spelled otherwise (see `plain`); the same file name, with as
    many of the same folders as there are; the same file name without ending, for names that have
    none; and the number, where 000000000139.jpg is image 139. A name that still means several
    images, or several names for one image, are left unclear.
    """
    matches = Matches()
    waiting = list(dict.fromkeys(names))
    free = dict.fromkeys(images)
    for key_of_image, key_of_name, by_folders in _WAYS:
        index: dict[str, list[str]] = defaultdict(list)
        for image in free:
            if (key := key_of_image(image)) is not None:
                index[key].append(image)
        possible: dict[str, list[str]] = {}
        for name in waiting:
            key = key_of_name(name)
            candidates = index.get(key, []) if key is not None else []
            if by_folders and len(candidates) > 1:
                common = [_common_folders(name, image) for image in candidates]
                candidates = [
                    image for image, n in zip(candidates, common, strict=True) if n == max(common)
                ]
            if candidates:
                possible[name] = candidates
        claims: dict[str, list[str]] = defaultdict(list)
        for name, candidates in possible.items():
            for image in candidates:
                claims[image].append(name)
        for name, candidates in possible.items():
            rivals = claims[candidates[0]]
            if len(candidates) > 1:
                what = f"may be {_listed(candidates)}: name it by its path below the folder"
                matches.unclear[name] = EntryProblem(where=name, what=what)
            elif len(rivals) > 1:
                what = f"and {len(rivals) - 1} more may all be {candidates[0]}: name it by its path"
                matches.unclear[name] = EntryProblem(where=name, what=what)
            else:
                matches.names[candidates[0]] = name
                del free[candidates[0]]
        waiting = [name for name in waiting if name not in possible]
    return matches


def _listed(images: Sequence[str]) -> str:
    more = len(images) - _SHOWN
    return " or ".join(images[:_SHOWN]) + (f" or {more} more" if more > 0 else "")


def _same(name: str) -> str | None:
    return name


def _last(name: str) -> str | None:
    return plain(name).rpartition("/")[2] or None


def _stem(name: str) -> str | None:
    return PurePosixPath(plain(name)).stem or None


def _number(name: str) -> str | None:
    digits = _stem(name) or ""
    return digits.lstrip("0") or "0" if digits.isascii() and digits.isdecimal() else None


def _digits(name: str) -> str | None:
    return _number(name) if name.isascii() and name.isdecimal() else None


def _common_folders(name: str, image: str) -> int:
    """How many folders above the file have the same names in both paths."""
    count = 0
    above = zip(plain(name).split("/")[-2::-1], plain(image).split("/")[-2::-1], strict=False)
    for folder, other in above:
        if PurePosixPath(folder).name != other:
            break
        count += 1
    return count


_Key = Callable[[str], "str | None"]
_WAYS: tuple[tuple[_Key, _Key, bool], ...] = (
    (_same, _same, False),
    (plain, plain, False),
    (_last, _last, True),
    (_stem, _last, True),
    (_number, _digits, False),
)
"""For each way: the key of an image, the key of a name, and whether folders decide between many."""
