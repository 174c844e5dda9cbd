"""File names that come from a file of someone else."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath


def stays_inside(name: str) -> bool:
    """Whether a relative path names something below its folder, whichever system reads it."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not path.parts or path.is_absolute() or path.drive or path.root or ".." in path.parts:
            return False
    return "\0" not in name
