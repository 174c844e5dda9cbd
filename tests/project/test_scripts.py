"""Benchmarks and studies, which no other test runs, at least start and say what they take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for folder in ("benchmarks", "tools/studies", "tools/figures")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text("utf-8")
]

pytestmark = pytest.mark.skipif(not SCRIPTS, reason="needs the checkout")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_what_it_takes(script: str) -> None:
    done = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if missing := re.search(r"ModuleNotFoundError: No module named '(\w+)'", done.stderr):
        pytest.skip(f"{missing[1]} is not installed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
