"""Prepare a store in a process of its own that kills itself while it writes the second shard.

python prepare_slowly.py ANNOTATIONS IMAGES OUT
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
from tiny import SMALL_STORE

from picosam2.data import store
from picosam2.data.store import SourceFiles

added = 0


class Writer(store.CropWriter):
    """Writes crops, but ends the process in the middle of the second shard."""

    def add(self, crop: np.ndarray) -> None:
        global added
        super().add(crop)
        added += 1
        if added == 3 * len(SMALL_STORE.views) + 5:
            self._stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)


store.CropWriter = Writer  # type: ignore[misc]
annotations, images, out = map(Path, sys.argv[1:])
source = SourceFiles(annotations=annotations, images=images, name="shapes")
store.prepare([source], out, SMALL_STORE, workers=1)
