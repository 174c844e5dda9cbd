"""Prepare a store with two workers, print their process ids, and be killed once they have begun.

python prepare_killed.py ANNOTATIONS IMAGES OUT
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from tiny import SMALL_STORE

from picosam2.data.store import SourceFiles, prepare


def kill(done: int, total: int | None = None, **_: object) -> None:
    if done >= 9:  # of 8 images to read and 8 to cut
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    annotations, images, out = map(Path, sys.argv[1:])
    source = SourceFiles(annotations=annotations, images=images, name="shapes")
    prepare([source], out, replace(SMALL_STORE, photos_per_shard=1), workers=2, progress=kill)
