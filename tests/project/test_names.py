"""Names say what a thing is, and there is one word for one thing: in the package and beside it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = "src/picosam2"
FOLDERS = (SRC, "benchmarks", "docs/_ext", "integrations", "tests", "tools", "web/tests")

pytestmark = pytest.mark.skipif(not (ROOT / SRC).is_dir(), reason="needs the checkout")

VAGUE = {"found", "one", "told", "said", "asked", "given"}
"""Names that could be given to anything."""

OTHER_WORDS = re.compile(
    r"(?:^|_)(?:photo|picture)s?(?:_|$)|colour|quantis|centre|neighbour|grey", re.IGNORECASE
)
"""Second words for an image, and British spellings, in names."""

OTHER_WORDS_IN_TEXT = re.compile(
    r"\b(?:photo|picture)s?\b(?!-\w|\.(?:png|json|jpg)|/)"
    r"|colour|quantis[ei]|centre|neighbour|grey|licence|labelled",
    re.IGNORECASE,
)
"""The same in text, where `photo.png` and `photo-overlay.png` may be the names of files."""

ALLOWED = {
    (f"{SRC}/apps/camera/view.py", "found"): "how many frames had the state `found`",
    (f"{SRC}/data/augment.py", "neighbour"): "a key of recipes",
    (f"{SRC}/data/store.py", "_photos_per_shard"): "a key of the manifests of stores",
    (f"{SRC}/data/store.py", "photos_per_shard"): "a key of the manifests of stores",
    (f"{SRC}/distillation/teach.py", "photos"): "a key of the shards of teacher caches",
    (f"{SRC}/evaluation/analysis.py", "photo"): "a key of result files",
    (f"{SRC}/evaluation/compare.py", "photos"): "a key of result files",
    (f"{SRC}/tasks/tracking.py", "found"): "whether a frame shows the object: public, and exact",
    (f"{SRC}/training/config.py", "validation_photos"): "a key of recipes",
    (f"{SRC}/training/sessions.py", "centre"): "a key of recipes",
}
"""Names that files of users hold, or that are exact."""

ALLOWED_IN_TEXT = {
    ("tests/io/test_prompt_files.py", "photo"): "a column that prompt files do not have",
    ("tests/tasks/test_batch.py", "photo"): "a column that is not called image",
    ("tests/training/test_config.py", "colour"): "a former key of recipes",
    ("tests/training/test_config.py", "grey"): "a former key of recipes",
}

GUIDES = ("*.md", "docs/*.md", "docs/cli/examples/*.md", "docs/runs/*.md", "integrations/**/*.md",
          "tools/*/*.md", "web/README.md")  # fmt: skip

SETTINGS = ("src/picosam2/recipes/*.toml", "tools/studies/*.toml")

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


def sources() -> Iterator[tuple[str, str]]:
    """The path and text of each Python file that is ours."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__).resolve() and "node_modules" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def check_all(
    refused_in: Callable[[str], list[tuple[int, str]]], allowed: Mapping[tuple[str, str], str]
) -> None:
    """Every word refused in a file is allowed there, and nothing is allowed that is not used."""
    used, refused = set(), []
    for file, source in sources():
        for line, word in refused_in(source):
            used.add((file, word))
            if (file, word) not in allowed:
                refused.append(f"{file}:{line} {word}")
    assert refused == []
    assert set(allowed) - used == set()


def test_names_say_what_a_thing_is() -> None:
    check_all(refused_names, ALLOWED)


def test_an_image_is_called_an_image_and_spelling_is_american() -> None:
    check_all(refused_words, ALLOWED_IN_TEXT)


def test_comments_of_recipes_and_studies_have_the_same_words() -> None:
    comments = [
        (path.name, comment)
        for pattern in SETTINGS
        for path in sorted(ROOT.glob(pattern))
        for comment in re.findall(r"(?:^|\s)#.*", path.read_text("utf-8"))
    ]
    assert len(comments) > 20
    assert [
        (name, comment) for name, comment in comments if OTHER_WORDS_IN_TEXT.search(comment)
    ] == []


def test_guides_have_the_same_words() -> None:
    """In their prose: code and what stands between marks `*` are left out."""
    refused = []
    for path in sorted(path for pattern in GUIDES for path in ROOT.glob(pattern)):
        if "node_modules" in path.parts:
            continue
        text = re.sub(r"```.*?```|`[^`]*`|\*\w+\*", "", path.read_text("utf-8"), flags=re.DOTALL)
        refused += [
            f"{path.relative_to(ROOT).as_posix()}: {word[0]}"
            for word in OTHER_WORDS_IN_TEXT.finditer(text)
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
        ('"cannot read photo.png"', []),
        ("table['photos']", []),
        ("f\"{table['photos']} images\"", []),
        ('"""`photos` is the option."""', []),
    ],
)
def test_a_refused_word_is_noticed(source: str, words: list[str]) -> None:
    assert [word for _, word in refused_words(source)] == words
