"""Programs that stand in for Java, Python, pip, Sony's toolkit and Sony's converter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.imx500 import FakeTools, write_script


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Call with a name and the text of a script."""
    return lambda name, text: write_script(tmp_path / "bin" / name, text)


@pytest.fixture
def fake_tools(tmp_path: Path) -> FakeTools:
    """Tools that succeed until they are told otherwise."""
    return FakeTools(tmp_path / "tools")
