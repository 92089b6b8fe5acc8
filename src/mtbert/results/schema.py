"""Parsed JSON -> dataclasses, every value checked against its type hint.

A reader is made once for each type and then called for every value: 10,000 results are to be read in seconds.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any

from mtbert.errors import InputError

Reader = Callable[[Any], Any]

NOT_STORED = {"stored": False}
_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class _Wrong(Exception):
    """What is wrong with a value, and where: the place grows while the error leaves the nested values."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.reason, self.place = reason, place

    def inside(self, outer: str) -> _Wrong:
        return _Wrong(self.reason, outer + self.place)


def build(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``: str, int, finite float, bool, ``X | None``, list, dict by text, or a dataclass.

    Fields with a default may be absent, fields marked ``metadata=NOT_STORED`` are never read; keys that the
    dataclass lacks are ignored, so that files may say more.

    Raises:
        InputError: one line that names the place within the JSON, what it holds and what is expected.
    """
    try:
        return _reader(kind)(value)
    except _Wrong as wrong:
        raise InputError(f"{wrong.place.removeprefix('.') or 'the file'} {wrong.reason}") from None


@cache
def _reader(kind: Any) -> Reader:
    if dataclasses.is_dataclass(kind):
        return _object_reader(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        stated = _reader(next(argument for argument in arguments if argument is not types.NoneType))
        return lambda value: None if value is None else stated(value)
    if origin is list:
        return _list_reader(_reader(arguments[0]))
    if origin is dict:
        return _metrics if arguments[1] == float | None else _dict_reader(_reader(arguments[1]))
    return lambda value: _require(kind, value)


def _object_reader(kind: Any) -> Reader:
    hints = typing.get_type_hints(kind)
    stored = [field for field in dataclasses.fields(kind) if field.metadata.get("stored", True)]
    readers = {field.name: _reader(hints[field.name]) for field in stored}
    required = {f.name for f in stored if f.default is f.default_factory is dataclasses.MISSING}

    def read(value: Any) -> Any:
        found = {}
        if missing := required - _require(dict, value).keys():
            raise _Wrong("is missing", f".{min(missing)}")
        for name, read_field in readers.items():
            if name in value:
                try:
                    found[name] = read_field(value[name])
                except _Wrong as wrong:
                    raise wrong.inside(f".{name}") from None
        return kind(**found)

    return read


def _list_reader(read_item: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        items: list[Any] = []
        try:
            for item in _require(list, value):
                items.append(read_item(item))
        except _Wrong as wrong:
            raise (wrong.inside(f"[{len(items)}]") if isinstance(value, list) else wrong) from None
        return items

    return read


def _dict_reader(read_item: Reader) -> Reader:
    def read(value: Any) -> dict[str, Any]:
        items = {}
        for name, item in _require(dict, value).items():
            try:
                items[name] = read_item(item)
            except _Wrong as wrong:
                raise wrong.inside(f"['{name}']") from None
        return items

    return read


def _metrics(value: Any) -> dict[str, float | None]:
    # Nearly all values of a result are metrics: no call for each.
    metrics: dict[str, float | None] = _require(dict, value)
    for name, number in metrics.items():
        if number is not None and not (type(number) in (float, int) and -1e300 < number < 1e300):
            raise _Wrong(f"is {_shown(number)}; expected a finite number or null", f"['{name}']")
    return metrics


def _require(kind: type, value: Any) -> Any:
    # A number is neither NaN, nor infinite, nor an int past all floats.
    is_number = kind is float and type(value) in (float, int) and -1e300 < value < 1e300
    if not is_number and (kind is float or type(value) is not kind):
        raise _Wrong(f"is {_shown(value)}; expected {_NAMES[kind]}")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
