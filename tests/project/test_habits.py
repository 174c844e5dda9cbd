"""What a contributor is told holds: recipes, paths, versions, and the size of the root."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "picosam2"

pytestmark = pytest.mark.skipif(not (ROOT / "justfile").is_file(), reason="needs the checkout")


def recipes() -> set[str]:
    text = (ROOT / "justfile").read_text("utf-8")
    return set(re.findall(r"^([a-z0-9]+)(?: \*arguments)?:", text, re.MULTILINE))


def test_ci_and_guides_use_recipes_that_exist() -> None:
    files = [ROOT / ".ci" / "run", ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
    files += (ROOT / ".github" / "workflows").glob("*.yml")
    used = {
        (path.name, name)
        for path in files
        for name in re.findall(
            r"(?:`|run: |&& |^|\" )just ([a-z0-9]+)\b", path.read_text("utf-8"), re.MULTILINE
        )
    }
    assert len(used) > 10
    assert [(file, name) for file, name in used if name not in recipes()] == []


def test_paths_of_the_contributing_guide_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    words = re.findall(r"`([\w./-]+(?:/|\.py|\.yml|\.toml|\.md|\.txt))`", text)
    places = (ROOT, ROOT / ".github" / "workflows", SRC, SRC / "cli", SRC / "runtimes")
    places += (SRC / "evaluation", SRC / "distillation")
    missing = [word for word in words if not any((place / word).exists() for place in places)]
    assert len(words) > 20
    assert missing == []


def test_every_room_is_in_the_contributing_guide() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rooms = [path.parent.name for path in SRC.glob("*/__init__.py")]
    rooms.append("recipes")
    assert [room for room in rooms if f"`{room}/`" not in text and f"`{room}`" not in text] == []


def test_every_module_of_the_root_is_in_the_guides() -> None:
    modules = [path.stem for path in SRC.glob("*.py") if not path.stem.startswith("__")]
    assert len(modules) > 5
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert [name for name in modules if f"`{name}.py`" not in contributing] == []
    how = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")
    assert [name for name in modules if f"`{name}`" not in how] == []


def test_the_root_of_the_package_stays_small() -> None:
    modules = sorted(path.name for path in SRC.glob("*.py"))
    assert len(modules) <= 14, modules


def release_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "release" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def check_version() -> ModuleType:
    return release_tool("check_version")


def released(
    root: Path, *, changelog: str = "0.2.0", citation: str = "0.2.0", npm: str = "0.2.0"
) -> Path:
    (root / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    (root / "CHANGELOG.md").write_text(f"# Changelog\n\n## [{changelog}] - 2026-12-01\n")
    (root / "CITATION.cff").write_text(f"title: x\nversion: {citation}\n")
    package = root / "web" / "packages" / "picosam2" / "package.json"
    package.parent.mkdir(parents=True)
    package.write_text(json.dumps({"version": npm}))
    return root


def test_a_release_whose_files_agree_is_accepted(check_version: ModuleType, tmp_path: Path) -> None:
    assert check_version.problems("v0.2.0", released(tmp_path)) == []


@pytest.mark.parametrize(
    ("tag", "files", "says"),
    [
        ("v0.3.0", {}, "the tag is v0.3.0"),
        ("v0.2.0", {"changelog": "0.1.0"}, "CHANGELOG.md"),
        ("v0.2.0", {"citation": "0.1.0"}, "CITATION.cff"),
        ("v0.2.0", {"npm": "0.1.0"}, "package.json has version 0.1.0"),
    ],
)
def test_a_release_whose_files_differ_is_refused(
    check_version: ModuleType, tmp_path: Path, tag: str, files: dict[str, str], says: str
) -> None:
    messages = check_version.problems(tag, released(tmp_path, **files))
    assert len(messages) == 1
    assert says in messages[0]


def test_the_citation_names_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_lowest_versions_of_every_extra_are_tested() -> None:
    lowest = release_tool("lowest")
    assert set(lowest.CHECKS) == lowest.declared()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    job = workflow.partition("\n  lowest:\n")[2].partition("\n  smoke:\n")[0]
    assert set(re.findall(r"^          - ([a-z0-9-]+)$", job, re.MULTILINE)) == lowest.declared()
    for name, check in lowest.CHECKS.items():
        assert check.tests or check.commands, name
        for pattern in check.tests.split():
            assert list(ROOT.glob(pattern)), f"{name}: {pattern}"
    assert lowest.main(["nonsense"]) == 2


def test_every_extra_says_the_lowest_versions_that_it_takes() -> None:
    lowest = release_tool("lowest")
    assert lowest.bounds(["base"])["onnxruntime"]
    for name in lowest.declared():
        assert lowest.bounds([name]), name


def test_other_ranges_begin_at_what_is_tested() -> None:
    """Python, Node, the packages that others bring to ours, and the tools of integrations/."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")

    def matrix(name: str) -> list[str]:
        (line,) = re.findall(rf"^        {name}: \[(.*)\]$", workflow, re.MULTILINE)
        return re.findall(r'"([0-9.]+)"', line)

    lowest = release_tool("lowest")
    pinned = re.search(r"^mypy==(.*)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == lowest.bounds(["dev"])["mypy"]  # see CHECKS
    table = lowest.project()
    python = r"Programming Language :: Python :: (3\.[0-9]+)"
    stated = [m[1] for m in map(re.compile(python).fullmatch, table["classifiers"]) if m]
    assert matrix("python") == stated
    assert table["requires-python"] == f">={stated[0]}"
    packages = ROOT / "web" / "packages" / "picosam2"
    for file in (ROOT / "web" / "package.json", packages / "package.json"):
        assert json.loads(file.read_text("utf-8"))["engines"] == {"node": f">={matrix('node')[0]}"}
    peers = json.loads((packages / "package.json").read_text("utf-8"))["peerDependencies"]
    test = (packages / "tests" / "pack" / "tarball.test.ts").read_text("utf-8")
    for name, version in re.findall(r'\b(web|node): "([0-9]+\.[0-9]+)\.[0-9]+"', test):
        assert peers.pop(f"onnxruntime-{name}") == f">={version} <2"
    assert not peers
    readme = (ROOT / "integrations" / "README.md").read_text("utf-8")
    for name, file in (("napari", "pyproject.toml"), ("gradio", "requirements.txt")):
        (tested,) = re.findall(rf"^\| {name} \|.*\| ([0-9.]+)[.,] ", readme, re.MULTILINE | re.I)
        text = (ROOT / "integrations" / name / file).read_text("utf-8")
        (allowed,) = re.findall(rf"{name}>=([0-9.]+)", text)
        assert tested.startswith(allowed), name


@pytest.mark.parametrize(
    ("allowed", "installed", "wide"),
    [
        ("2.0", "2.0.0", False),
        ("2.0", "2.0.0+cpu", False),
        ("2024.8.6", "2024.08.06", False),
        ("13.0", "13.6.0", True),  # another package asks for more
        ("3.9", "3.10.8", True),
        ("2.0", None, True),
    ],
)
def test_a_range_wider_than_what_is_tested_is_named(
    allowed: str, installed: str | None, wide: bool
) -> None:
    lowest = release_tool("lowest")
    versions = {"other": "1"} if installed is None else {"thing": installed}
    assert bool(lowest.untested({"thing": allowed}, versions)) == wide


def test_files_of_which_no_test_runs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lowest = release_tool("lowest")
    contents = {
        "test_runs.py": "def test_it(): pass",
        "test_parts.py": "import pytest\ndef test_it(): pass\ndef test_no(): pytest.skip('no')",
        "test_some.py": (
            "import pytest\n@pytest.mark.parametrize('x', ['a', 'b'])\ndef test_some(x): pass"
        ),
        "test_class.py": "class TestIt:\n    def test_it(self): pass",
        "test_skips.py": "import pytest\npytest.importorskip('nonsense')\ndef test_it(): pass",
        "test_each_skips.py": "import pytest\ndef test_it(): pytest.skip('no')",
        "below/test_skips.py": "import pytest\npytest.importorskip('nonsense')",
        "below/test_is_slow.py": "import pytest\n@pytest.mark.slow\ndef test_it(): pass",
    }
    for name, text in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={report}",
         "--import-mode=importlib", "."],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setattr(lowest, "ROOT", tmp_path)
    paths = [*sorted(path.name for path in tmp_path.glob("test_*.py")), "below"]
    assert lowest.idle_files(paths, report) == [
        "below/test_is_slow.py", "below/test_skips.py", "test_each_skips.py", "test_skips.py",
    ]  # fmt: skip
    proofs = ["test_it", "test_s*e[b", "test_no", "test_s*e[c"]
    assert lowest.missing_tests(proofs, report) == ["test_no", "test_s*e[c"]


def test_files_that_may_stay_idle_are_there() -> None:
    lowest = release_tool("lowest")
    named = [name for check in lowest.CHECKS.values() for name in check.idle.split()]
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_test_of_every_integration_runs_in_a_job_that_installs_the_tool() -> None:
    """In a nightly job with packages of its own, or with the lowest versions of an extra."""
    nightly = (ROOT / ".github" / "workflows" / "nightly.yml").read_text("utf-8")
    jobs = nightly.partition("\n  extras:\n")[2]  # those before install nothing but `dev`
    checked = " ".join(check.tests for check in release_tool("lowest").CHECKS.values())
    places = re.findall(r"\btests/[\w./]+", f"{jobs} {checked}")
    readme = (ROOT / "integrations" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!tool |---)([^|]+) \|.*\| ([^|]*) \|$", readme, re.MULTILINE)
    assert len(rows) > 10
    for tool, tested in rows:
        tests = re.findall(r"`(tests/[\w./]+)`", tested)
        assert tests, tool
        for test in tests:
            assert (ROOT / test).is_file(), test
            assert any(test == place or test.startswith(f"{place}/") for place in places), test
