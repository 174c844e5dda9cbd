"""The script that writes the tables of the guides, for the tests that compare them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from helpers.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def render() -> ModuleType:
    """`tools/docs/render.py` as a module."""
    for module in ("torch", "matplotlib", "jinja2"):
        pytest.importorskip(module, reason="reports need the extra train")
    return load_script(ROOT / "tools" / "docs" / "render.py")
