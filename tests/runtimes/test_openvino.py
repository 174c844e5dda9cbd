"""OpenVINO: what it does to the process that it runs in."""

from __future__ import annotations

import subprocess
import sys

import pytest

CTRL_C_AFTER_TWO = """
import faulthandler, gc, signal
from picosam2 import Predictor

faulthandler.enable()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
first, second = (Predictor("default", runtime="openvino") for _ in range(2))
del first
gc.collect()
del second
gc.collect()
for _ in range(100):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        continue
    raise SystemExit("not interrupted")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no stacks for signals")
def test_ctrl_c_does_not_crash_when_the_first_of_two_predictors_has_gone() -> None:
    pytest.importorskip("openvino")
    run = subprocess.run(
        [sys.executable, "-c", CTRL_C_AFTER_TWO], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
