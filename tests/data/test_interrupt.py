"""Ctrl-C during a preparation in several processes: it ends, and only one of them says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import write_coco

pytest.importorskip("pycocotools")

SCRIPT = """
import os, signal, sys
from pathlib import Path
from picosam2.data.store import SourceFiles, StoreConfig, prepare

def interrupt(done, total=None, **_):
    if done:
        os.killpg(0, signal.SIGINT)  # what a terminal does: every process gets it

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    annotations, images, out = map(Path, sys.argv[1:])
    source = SourceFiles(annotations=annotations, images=images, name="shapes")
    config = StoreConfig(context=64, photos_per_shard=1)
    try:
        prepare([source], out, config, workers=2, progress=interrupt)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
def test_workers_are_not_interrupted_but_ended(tmp_path: Path) -> None:
    source = write_coco(tmp_path, 6)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, source.annotations, source.images, tmp_path / "store"],
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
