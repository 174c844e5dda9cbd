"""Damage to files, drawn from a seeded generator: of JSON values, of text, and of bytes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 0.5, 640.0, -0.0, 1e308, -1e308, 10**30, 10**400, 2**63,
    2**64,
    float("nan"), float("inf"), "", "0", "7", "1_0", "+1", "-1", "é", "\ud800", "\0", "../x",
    "/etc",
    "x" * 300, "9" * 5000, [], {}, [[]], [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6]],
    {"size": [9, 9]}, "PPPP0",
)  # fmt: skip
"""Values that programs stumble over."""

WORDS = (
    "-1", "+1", "1_0", "0.0", "1e9", "nan", "inf", "9" * 5000, "999999999", "", ",", '"', "'",
    "\t", "\0",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "٣", "½", "1,5",
    "0x10", "é", "x" * 200_000,
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [path, *(inner for key, child in items for inner in _paths(child, (*path, key)))]


def mutate_json(document: Any, draw: random.Random) -> str:
    """A JSON document with a few values replaced, removed, doubled or renamed; now and then cut."""
    changed = copy.deepcopy(document)
    for _ in range(draw.randint(1, 4)):
        path = draw.choice(_paths(changed))
        value = copy.deepcopy(draw.choice(VALUES))
        if not path:
            if draw.random() < 0.1:
                changed = value
            continue
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        kind = draw.random()
        if kind < 0.6:
            parent[path[-1]] = value
        elif kind < 0.8:
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[str(value)[:20]] = parent[path[-1]]
    text = _dump(changed)
    if draw.random() < 0.05:
        text = text[: draw.randrange(len(text) + 1)]
    return text


def _dump(value: Any) -> str:
    """JSON, also of numbers with more digits than Python will print."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(k))}:{_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dump, value)) + "]"
    if value == 10**400:
        return "1" + "0" * 5000
    return json.dumps(value)


def mutate_text(text: str, draw: random.Random) -> str:
    """Text with a few words, lines or characters replaced, doubled or removed."""
    for _ in range(draw.randint(1, 4)):
        kind = draw.random()
        if kind < 0.5:
            words = text.replace("\n", " \n ").replace(",", " , ").split(" ")
            words[draw.randrange(len(words))] = draw.choice(WORDS)
            text = " ".join(words).replace(" \n ", "\n").replace(" , ", ",")
        elif kind < 0.7:
            place = draw.randrange(len(text) + 1)
            text = text[:place] + draw.choice(WORDS) + text[place:]
        elif kind < 0.85:
            lines = text.split("\n")
            text = "\n".join([*lines, draw.choice(lines)])
        else:
            start = draw.randrange(len(text) + 1)
            text = text[:start] + text[start + draw.randint(0, 20) :]
    return text


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bytes with a few flipped, replaced, removed or put in."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        kind, place = draw.random(), draw.randrange(len(changed) + 1)
        if kind < 0.4 and place < len(changed):
            changed[place] ^= 1 << draw.randrange(8)
        elif kind < 0.6 and place < len(changed):
            changed[place] = draw.choice((0, 1, 127, 128, 255))
        elif kind < 0.8:
            del changed[place : place + draw.randint(1, 64)]
        else:
            changed[place:place] = draw.randbytes(draw.randint(1, 16))
    return bytes(changed)
