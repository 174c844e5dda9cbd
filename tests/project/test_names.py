"""Names in the package say what a thing is, and the package has one word for one thing."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "picosam2"

pytestmark = pytest.mark.skipif(not SRC.is_dir(), reason="needs the checkout")

VAGUE = {"found", "one", "told", "said", "asked", "given"}
"""Names that could be given to anything."""

OTHER_WORDS = re.compile(r"(?:^|_)(?:photo|picture)s?(?:_|$)|colour|quantis", re.IGNORECASE)
"""Second words for an image, and British spellings, in names."""

OTHER_WORDS_IN_TEXT = re.compile(r"\b(?:photo|picture)s?\b|colour|quantis[ei]", re.IGNORECASE)

ALLOWED = {
    ("apps/camera/view.py", "found"): "how many frames had the state `found`",
    ("cli/quantize.py", "photos"): "the option --photos",
    ("data/store.py", "_photos_per_shard"): "a key of the manifests of stores",
    ("data/store.py", "photos_per_shard"): "a key of the manifests of stores",
    ("distillation/teach.py", "photos"): "a key of the shards of teacher caches",
    ("evaluation/analysis.py", "photo"): "a key of result files",
    ("evaluation/compare.py", "photos"): "a key of result files",
    ("export/int8/calibration.py", "photos"): "the option --photos sets it",
    ("tasks/tracking.py", "found"): "whether the object was found in a frame: public, and exact",
    ("training/config.py", "validation_photos"): "a key of recipes",
}
"""Names that files of users hold, or that are exact."""

TITLES = ("Connectivity in Digital Pictures",)


def bound_names(source: str) -> Iterator[tuple[int, str]]:
    """The line and name of everything that a module binds: variables, fields, arguments, defs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def refused_names(source: str) -> list[tuple[int, str]]:
    return sorted(
        (line, name)
        for line, name in bound_names(source)
        if name in VAGUE or OTHER_WORDS.search(name)
    )


def refused_words(source: str) -> list[tuple[int, str]]:
    """Words in comments and in strings of more than one word; not in `code` or {expressions}."""
    refused = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and not re.search(r"\s", token.string):
            continue
        if token.type not in (tokenize.STRING, tokenize.COMMENT):
            continue
        text = re.sub(r"`[^`]*`|\{[^{}]*\}", "", token.string)
        for title in TITLES:
            text = text.replace(title, "")
        refused += [(token.start[0], word[0]) for word in OTHER_WORDS_IN_TEXT.finditer(text)]
    return refused


def test_names_say_what_a_thing_is() -> None:
    used, refused = set(), []
    for path in sorted(SRC.rglob("*.py")):
        file = path.relative_to(SRC).as_posix()
        for line, name in refused_names(path.read_text("utf-8")):
            used.add((file, name))
            if (file, name) not in ALLOWED:
                refused.append(f"{file}:{line} {name}")
    assert refused == []
    assert set(ALLOWED) - used == set()


def test_an_image_is_called_an_image_and_spelling_is_american() -> None:
    refused = [
        f"{path.relative_to(SRC).as_posix()}:{line} {word}"
        for path in sorted(SRC.rglob("*.py"))
        for line, word in refused_words(path.read_text("utf-8"))
    ]
    assert refused == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("found = 1", "found"),
        ("x = [one for one in (1, 2)]", "one"),
        ("def f(asked): return asked", "asked"),
        ("class A:\n    photo: int", "photo"),
        ("self.last_picture = 1", "last_picture"),
        ("def colours(): pass", "colours"),
        ("QUANTISATION = 1", "QUANTISATION"),
    ],
)
def test_a_refused_name_is_noticed(source: str, name: str) -> None:
    assert [refused for _, refused in refused_names(source)] == [name]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('"""A photo, as pixels."""', ["photo"]),
        ("# these Pictures\n", ["Pictures"]),
        ('f"{n} photos of {name}"', ["photos"]),
        ('"the quantised colour"', ["quantise", "colour"]),
        ("table['photos']", []),
        ("f\"{table['photos']} images\"", []),
        ('"""`photos` is the option."""', []),
    ],
)
def test_a_refused_word_is_noticed(source: str, words: list[str]) -> None:
    assert [word for _, word in refused_words(source)] == words
