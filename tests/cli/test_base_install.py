"""The measuring commands where only the base install is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import write_coco

_EXTRAS = ("torch", "safetensors", "onnx", "pycocotools", "cv2", "rich", "matplotlib", "jinja2")
_RUN = f"""
import sys
sys.modules.update(dict.fromkeys({_EXTRAS!r}))  # importing them fails as if they were not there
from picosam2.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, words)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    source = write_coco(tmp_path_factory.mktemp("photos"), 2)
    return ("--images", source.images, "--annotations", source.annotations, "--threads", 1)


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "--limit", 1),
        ("eval", "--limit", 1, "--protocol", "paper-point"),
        ("clicks", "--limit", 1, "--clicks", 2),
        ("robustness", "--limit", 1, "--curve", "blur"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_measuring_needs_no_extra(images, words, tmp_path):
    done = _run(*words, *images, "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result.json").is_file()


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (("eval", "--pixel-baselines"), "cv2", "baselines"),
        (("eval", "--peer", "sam2:x"), "torch", "train"),
        (("clicks", "--plot", "a.svg"), "matplotlib", "train"),
        (("clicks", "--peer", "sam2:x"), "torch", "train"),
        (("proposals",), "pycocotools.cocoeval", "train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_extra_is_named(images, words, package, extra):
    _refused(_run(*words, *images), package, extra)


@pytest.mark.parametrize(
    ("words", "package"),
    [
        (("report", "none.json", "--out", "report"), "matplotlib"),
        (("analyse", "--store", "none", "--out", "page.md"), "matplotlib"),
        (("info", "--recipe", "default"), "torch"),
        (("finetune", "none.json", "none", "--out", "mine"), "torch"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_the_extra_is_named_by_commands_without_images(words, package):
    _refused(_run(*words), package, "train")


def test_a_package_that_no_extra_brings_is_a_fault_of_ours(monkeypatch):
    from picosam2.cli import main

    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(name="picosam2.nowhere")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(ModuleNotFoundError):
        main.run(["version"])


def test_too_little_memory_is_a_sentence(monkeypatch, refused):
    from picosam2.cli import main

    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 6.00 GiB")

    monkeypatch.setattr(main, "app", fail)
    message = refused("version")
    assert message.startswith("there is not enough memory (Unable to allocate 6.00 GiB)")


def test_the_extras_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib")
    from picosam2.cli._exit_codes import EXTRAS as BY_PACKAGE

    project = Path(__file__).parents[2] / "pyproject.toml"
    known = tomllib.loads(project.read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(BY_PACKAGE.values()) <= set(known)


def _refused(done: subprocess.CompletedProcess[str], package: str, extra: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"picosam2: this needs the Python package '{package}': "
        f"pip install '.[{extra}]' in a copy of the repository\n"
    )
