"""What the scripts beside the package import from it is there: mypy reads only the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("benchmarks", "tools", "integrations")
SCRIPTS = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "node_modules" not in path.parts
]

pytestmark = pytest.mark.skipif(not SCRIPTS, reason="needs the checkout")


def module_file(name: str) -> Path | None:
    """The file of a module of the package, or None."""
    path = ROOT / "src" / Path(*name.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def defined(file: Path) -> set[str]:
    """The names that a module defines or imports, and a package's own modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    if file.name == "__init__.py":
        names |= {path.stem for path in file.parent.iterdir()}
    return names


def missing(script: str) -> list[str]:
    """What a script imports from the package and is not there, as `module.name`."""
    wrong = []
    for node in ast.walk(ast.parse(script)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("picosam2"):
            continue
        assert node.module
        file = module_file(node.module)
        names = defined(file) if file else set()
        if "__getattr__" not in names:  # the package itself, whose names are lazy
            wrong += [f"{node.module}.{a.name}" for a in node.names if a.name not in names]
    return wrong


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_imports_only_what_the_package_has(script: Path) -> None:
    assert missing(script.read_text("utf-8")) == []


def test_a_name_that_moved_is_noticed() -> None:
    assert missing("from picosam2.masks import no_such_name") == ["picosam2.masks.no_such_name"]
    assert missing("from picosam2.no_such_module import a") == ["picosam2.no_such_module.a"]
    assert missing("from picosam2.errors import ConfigError") == []


def test_scripts_make_a_sentence_of_a_mistake() -> None:
    """`run_script` does. Those that release, render the scene or time imports do without it."""
    without = [
        str(path.relative_to(ROOT))
        for path in SCRIPTS
        if path.parts[-3] != "integrations"
        and "\n    main()\n" in path.read_text("utf-8").partition('__name__ == "__main__"')[2]
    ]
    assert without == ["benchmarks/import_time.py"]
