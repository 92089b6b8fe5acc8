"""What the parts of the config's schema share: fields that came later, and checks of single values."""

from __future__ import annotations

import math
from dataclasses import field, fields, is_dataclass
from typing import Any

from mtbert.errors import InputError, nearest


def added(default: Any) -> Any:
    """A field that came after the first results: at its default it is left out of a run's identity, which stays."""
    return field(default=default, metadata={"added": True})


def changed(node: Any) -> dict[str, Any]:
    """The fields of a config node that are not at their default, by name: ``smart.weight`` within another node."""
    default, found = type(node)(), dict[str, Any]()
    for name in (f.name for f in fields(node)):
        if is_dataclass(value := getattr(node, name)):
            found |= {f"{name}.{inner}": each for inner, each in changed(value).items()}
        elif value != getattr(default, name):
            found[name] = value
    return found


def one_of(key: str, value: str, options: Any) -> None:
    if value not in options:
        raise InputError(f"config: {key}={value} is not known{nearest(value, options)}")


def positive(key: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"config: {key}={value}; expected a number above 0")


def not_negative(key: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise InputError(f"config: {key}={value}; expected a number from 0 up")


def within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"config: {key}={value}; expected a number from {low:g} to {high:g}")
