"""The programs for other tools say which package they lack, and how to install it."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "engines/on_ray.py": ("ray", "docs/integrations.md"),
    "engines/on_daft.py": ("daft", "docs/integrations.md"),
    "engines/on_spark.py": ("pyspark", "docs/integrations.md"),
    "gradio/app.py": ("gradio", "integrations/README.md"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_missing_package_is_named_with_the_command_of_the_guide(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, page = PROGRAMS[program]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(ROOT / "integrations" / program), run_name="__main__")
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    install = re.fullmatch(
        r"\w+ is not installed: run `(.*)` in a copy of the repository\n", message
    )
    assert install, message
    assert f"\n{install[1]}" in (ROOT / page).read_text("utf-8")
