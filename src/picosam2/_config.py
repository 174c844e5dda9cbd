"""Configuration dataclasses from tables of settings (TOML, JSON): every key and type is checked."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from picosam2.errors import ConfigError

T = TypeVar("T")

FORMER_NAME = "former_name"
"""Key of a field's `metadata`: what the field was called in files of earlier versions."""


def from_table(kind: type[T], table: Any, *, where: str) -> T:
    """A configuration dataclass from a table, with every key and type checked.

    Raises:
        ConfigError: an unknown key or a value of the wrong type; the message names it and `where`.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: expected a table of settings, not {table!r}")
    hints = typing.get_type_hints(kind)
    table = current_names(kind, table)
    if unknown := [key for key in table if key not in hints]:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(hints)}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    return kind(**values)


def current_names(kind: Any, table: Mapping[str, Any]) -> dict[str, Any]:
    """A table of settings of the dataclass `kind`, with former names of fields replaced."""
    renamed = {
        field.metadata[FORMER_NAME]: field.name
        for field in dataclasses.fields(kind)
        if FORMER_NAME in field.metadata
    }
    return {renamed.get(key, key): value for key, value in table.items()}


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_table(typing.cast(type[Any], hint), value, where=where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        variadic = arguments[-1] is Ellipsis
        if variadic or len(value) == len(arguments):
            items = [arguments[0]] * len(value) if variadic else arguments
            return tuple(_value(i, v, where) for i, v in zip(items, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return {str(k): _value(arguments[1], v, where) for k, v in value.items()}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and is_number and not math.isnan(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    expected = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ConfigError(f"{where} must be {expected}, not {value!r}")
