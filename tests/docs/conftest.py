"""The script that writes the tables of the guides, for the tests that compare them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def render() -> ModuleType:
    """`tools/docs/render.py` as a module."""
    for module in ("torch", "matplotlib", "jinja2"):
        pytest.importorskip(module, reason="reports need the extra train")
    spec = importlib.util.spec_from_file_location("render", ROOT / "tools" / "docs" / "render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
