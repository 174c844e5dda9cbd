"""Prepare a store in a process of its own that kills itself while it writes the second shard.

python prepare_slowly.py ANNOTATIONS IMAGES OUT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tiny import SMALL_STORE

from picosam2.data import store
from picosam2.data.store import SourceFiles

saved = 0
honest = np.save


def save(file: Any, array: np.ndarray, **options: Any) -> None:
    """`np.save`, but the fourth file (the second shard's records) ends in the middle."""
    global saved
    saved += 1
    honest(file, array, **options)
    if saved == 4:
        os.truncate(file, 100)
        os.kill(os.getpid(), signal.SIGKILL)


store.np.save = save  # type: ignore[assignment]
annotations, images, out = map(Path, sys.argv[1:])
source = SourceFiles(annotations=annotations, images=images, name="shapes")
store.prepare([source], out, SMALL_STORE, workers=1)
