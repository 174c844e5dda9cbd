"""ONNX files as bytes: their metadata, their hash, and whether they are whole.

Read here without the `onnx` package, which is no dependency, and before ONNX Runtime sees a file:
one that keeps tensors in other files could make it read any file of the machine, and a damaged one
could run and answer nonsense. The format is Protocol Buffers; the numbers of the fields are those
of onnx.proto.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from picosam2.errors import WeightsError
from picosam2.runtimes.metadata import METADATA_KEY, parse_document

HASH_KEY: Final = "graph_sha256"
"""The member of the metadata that holds the hash of the rest of the file."""

_MAX_FIELDS: Final = 500_000  # of the whole file; ours have a few thousand
_METADATA_FIELD: Final = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Where tensors are: for each kind of message, the fields that lead to others.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_MODEL_GRAPH, _GRAPH_NODE, _NODE_OPERATOR = 7, 1, 4


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """What the bytes of an ONNX file say."""

    metadata: str | None
    """The JSON text of the key `picosam2`; None if it is not there."""
    sha256: str
    """Of all but the metadata, in hexadecimal."""


def read_onnx(data: bytes) -> OnnxFile:
    """Read and check the bytes of an ONNX file.

    Raises:
        WeightsError: it is no ONNX file, or keeps tensors in other files.
    """
    metadata: str | None = None
    digest = hashlib.sha256()
    reader = _Reader(data)
    for number, kind, start, value, end in reader.fields(0, len(data)):
        if number == _METADATA_FIELD and kind == _BYTES:
            key, text = reader.entry(value, end)
            if key == METADATA_KEY.encode():
                metadata = text.decode("utf-8", "replace")
            continue
        digest.update(data[start:end])
        child = _CHILDREN["model"].get(number)
        if child is not None and kind == _BYTES:
            reader.refuse_external(child, value, end)
    return OnnxFile(metadata, digest.hexdigest())


def with_metadata(data: bytes, document: Mapping[str, Any]) -> bytes:
    """The bytes of an ONNX file with `document` and the graph's hash as its metadata."""
    reader = _Reader(data)
    parts = []
    for number, kind, start, value, end in reader.fields(0, len(data)):
        ours = number == _METADATA_FIELD and kind == _BYTES
        if not (ours and reader.entry(value, end)[0] == METADATA_KEY.encode()):
            parts.append(data[start:end])
    described = {**document, HASH_KEY: read_onnx(b"".join(parts)).sha256}
    text = json.dumps(described, sort_keys=True, allow_nan=False).encode()
    entry = _field(1, METADATA_KEY.encode()) + _field(2, text)
    return b"".join([*parts, _field(_METADATA_FIELD, entry)])


def seal_onnx(data: bytes) -> bytes:
    """The bytes of an ONNX file whose metadata also holds the hash of its graph."""
    metadata = read_metadata(data)
    if metadata is None:
        raise WeightsError("it holds no metadata of ours: write that first")
    return with_metadata(data, parse_document(metadata))


def read_metadata(data: bytes) -> str | None:
    """The metadata of an ONNX file, whatever hash it holds."""
    reader = _Reader(data)
    metadata = None
    for number, kind, _, value, end in reader.fields(0, len(data)):
        if number == _METADATA_FIELD and kind == _BYTES:
            key, text = reader.entry(value, end)
            if key == METADATA_KEY.encode():
                metadata = text.decode("utf-8", "replace")
    return metadata


def operators(data: bytes) -> frozenset[str]:
    """The kinds of nodes in the main graph of an ONNX file, such as `Conv`.

    Raises:
        WeightsError: it is no ONNX file.
    """
    reader = _Reader(data)
    names = set()
    for graph in reader.messages(_MODEL_GRAPH, 0, len(data)):
        for node in reader.messages(_GRAPH_NODE, *graph):
            for start, stop in reader.messages(_NODE_OPERATOR, *node):
                names.add(data[start:stop].decode("utf-8", "replace"))
    return frozenset(names)


class _Reader:
    """Walks the fields of Protocol Buffers in `data`, and gives up on what has too many."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _MAX_FIELDS

    def fields(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
        """The fields of a message: number, wire type, where it, its value and its end are."""
        data = self._data
        position = start
        while position < stop:
            self._left -= 1
            if self._left < 0:
                raise WeightsError(f"it has more than {_MAX_FIELDS:,} parts")
            begin = position
            # Most tags and lengths have one byte, and there are thousands of them.
            tag, position = data[begin], begin + 1
            if tag > 127:
                tag, position = self._varint(begin, stop)
            number, kind = tag >> 3, tag & 7
            value = position
            if kind == _BYTES:
                if position < stop and data[position] < 128:
                    length, value = data[position], position + 1
                else:
                    length, value = self._varint(position, stop)
                position = value + length
            elif kind == _VARINT:
                if position < stop and data[position] < 128:
                    position += 1
                else:
                    _, position = self._varint(position, stop)
            elif kind in (_FIXED32, _FIXED64):
                position += 4 if kind == _FIXED32 else 8
            else:
                raise WeightsError("it is no ONNX file")
            if position > stop or not number:
                raise WeightsError("it is no ONNX file, or cut short")
            yield number, kind, begin, value, position

    def messages(self, wanted: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Where the values of one field of a message begin and end."""
        for number, kind, _, value, end in self.fields(start, stop):
            if number == wanted and kind == _BYTES:
                yield value, end

    def entry(self, start: int, stop: int) -> tuple[bytes, bytes]:
        """The key and the value of an entry of the metadata."""
        parts = {1: b"", 2: b""}
        for number, kind, _, value, end in self.fields(start, stop):
            if kind == _BYTES:
                parts[number] = self._data[value:end]
        return parts[1], parts[2]

    def refuse_external(self, message: str, start: int, stop: int) -> None:
        """Raise `WeightsError` if a tensor in a message keeps its numbers in another file."""
        waiting = [(message, start, stop)]  # a list, not recursion: a stranger's file may be deep
        while waiting:
            message, start, stop = waiting.pop()
            children = _CHILDREN[message]
            for number, kind, _, value, end in self.fields(start, stop):
                if message == "tensor" and (
                    number == _EXTERNAL_DATA
                    or (number == _DATA_LOCATION and self._data[value:end] != b"\0")
                ):
                    raise WeightsError(
                        "it keeps tensors in other files, which could be any file: save it as one "
                        "file"
                    )
                if kind == _BYTES and number in children:
                    waiting.append((children[number], value, end))

    def _varint(self, position: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while position < stop and shift < 70:
            byte = self._data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
        raise WeightsError("it is no ONNX file, or cut short")


def _field(number: int, data: bytes) -> bytes:
    return _encode(number << 3 | _BYTES) + _encode(len(data)) + data


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
