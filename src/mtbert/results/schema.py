"""Parsed JSON -> dataclasses, every value checked against its type hint."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any

from mtbert.errors import InputError

NOT_STORED = {"stored": False}
_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def build(kind: Any, value: Any, place: str = "") -> Any:
    """``value`` as ``kind``: str, int, float (finite), bool, ``X | None``, list, dict with text keys, or a dataclass.

    Fields with a default may be absent, fields marked ``metadata=NOT_STORED`` are never read; keys that the dataclass
    lacks are ignored, so that files may say more.

    Raises:
        InputError: one line that names the place within the JSON, what it holds and what is expected.
    """
    if dataclasses.is_dataclass(kind):
        return _build_fields(kind, value, place)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        stated = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else build(stated, value, place)
    if origin is list:
        _require(list, value, place)
        return [build(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        _require(dict, value, place)
        if arguments[1] == float | None:  # metrics: nearly all values of a file, so no call for each
            return _metrics(value, place)
        return {name: build(arguments[1], item, f"{place}['{name}']") for name, item in value.items()}
    _require(kind, value, place)
    return value


def _build_fields(kind: Any, value: Any, place: str) -> Any:
    _require(dict, value, place)
    found = {}
    for name, hint, required in _fields(kind):
        if name in value:
            found[name] = build(hint, value[name], f"{place}.{name}" if place else name)
        elif required:
            raise InputError(f"field '{place}.{name}' is missing" if place else f"field '{name}' is missing")
    return kind(**found)


@cache
def _fields(kind: Any) -> list[tuple[str, Any, bool]]:
    hints = typing.get_type_hints(kind)
    stored = [f for f in dataclasses.fields(kind) if f.metadata.get("stored", True)]
    return [(f.name, hints[f.name], f.default is f.default_factory is dataclasses.MISSING) for f in stored]


def _metrics(value: dict[str, Any], place: str) -> dict[str, float | None]:
    for name, number in value.items():
        if number is not None and (not _is_number(number)):
            raise InputError(f"{place}['{name}'] is {_shown(number)}; expected a finite number or null")
    return value


def _require(kind: type, value: Any, place: str) -> None:
    if not (_is_number(value) if kind is float else type(value) is kind):
        raise InputError(f"{place or 'the file'} is {_shown(value)}; expected {_NAMES[kind]}")


def _is_number(value: Any) -> bool:
    # Neither NaN, nor infinite, nor an int past all floats.
    return type(value) in (int, float) and -1e300 < value < 1e300


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
