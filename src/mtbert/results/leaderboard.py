"""Predictions in the format of the course's leaderboard (CS224N default project, minBERT).

A header line ``id \\t NAME \\n``, then ``ID , PREDICTION \\n`` for each row; the spaces belong to the format,
and so does the spelling of the STS header.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mtbert.errors import InputError
from mtbert.paths import atomic_write


@dataclass(frozen=True)
class Format:
    header: str
    number: Callable[[float], float]


FORMATS = {
    "sst": Format("Predicted_Sentiment", int),
    "para": Format("Predicted_Is_Paraphrase", float),
    "sts": Format("Predicted_Similiary", float),
}
OTHER = Format("Prediction", float)  # for tasks that the course does not have


def leaderboard_name(task: str, split: str) -> str:
    """As the leaderboard expects it, e.g. ``sst-dev-output.csv``."""
    return f"{task}-{split}-output.csv"


def write_leaderboard(path: Path, task: str, ids: Iterable[str], predictions: Iterable[float]) -> None:
    """Write ``path`` whole or not at all, rows in the order given.

    Args:
        predictions: SST: the class 0 to 4; PARA: 0 or 1; STS: any number that grows with similarity.

    Raises:
        InputError: an id cannot be written in this format.
        ValueError: predictions and ids differ in number, or one is not finite or, for a class, not whole.
    """
    text = leaderboard_text(task, ids, predictions, path.name)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def leaderboard_text(task: str, ids: Iterable[str], predictions: Iterable[float], name: str) -> str:
    """What ``write_leaderboard`` writes; ``name`` is the file's, for errors."""
    form = FORMATS.get(task, OTHER)
    pairs = zip(ids, predictions, strict=True)
    lines = [f"{_id(id_, name)} , {_number(value, form)} \n" for id_, value in pairs]
    return f"id \t {form.header} \n" + "".join(lines)


def _id(id_: str, name: str) -> str:
    if "," in id_ or not id_.isprintable():
        raise InputError(f"{name}: id {str(id_)!r} has a comma or a line break; the leaderboard's format has neither")
    return id_


def _number(value: float, form: Format) -> float:
    shortest = float(str(value))  # a float32 keeps the few digits that it has
    number = form.number(shortest) if math.isfinite(shortest) else math.nan
    if number != shortest:
        raise ValueError(f"{form.header}: {value} is not a prediction")
    return number
