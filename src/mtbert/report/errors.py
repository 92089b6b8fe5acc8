"""The dev rows that runs get wrong, to be searched in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mtbert.errors import InputError
from mtbert.results.measured import MeasuredRow
from mtbert.results.record import one_line
from mtbert.results.scoring import worst_errors

MOST = 50  # of a row and task
Found = tuple[str, float, float, float]  # dev row, label, predicted, share of seeds that are wrong
WITHHELD = "left out on request"


@dataclass(frozen=True)
class TaskErrors:
    """``rows`` by label of the table's row; ``sentences`` of all dev rows among them, or why there are none."""

    rows: dict[str, list[Found]] = field(default_factory=dict)
    sentences: dict[str, list[str]] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True)
class Errors:
    tasks: dict[str, TaskErrors]
    most: int = MOST


def searchable_errors(rows: Sequence[MeasuredRow], with_sentences: bool = True) -> Errors:
    """Each row's worst errors in each task, with their sentences where the data files are at hand."""
    found: dict[str, dict[str, list[Found]]] = {}
    for row in rows:
        for predicted in row.predictions:
            errors = worst_errors(predicted.frame, MOST)[["id", "label", "value", "wrong"]].round(3)
            found.setdefault(predicted.name, {})[row.label] = [tuple(line) for line in errors.to_numpy().tolist()]
    return Errors({name: _task(name, rows, of_rows, with_sentences) for name, of_rows in found.items()})


def _task(name: str, rows: Sequence[MeasuredRow], found: dict[str, list[Found]], with_sentences: bool) -> TaskErrors:
    if not with_sentences:
        return TaskErrors(found, {}, WITHHELD)
    first = next(row for row in rows if row.label in found)
    try:
        sentences = first.sentences(name)
    except InputError as error:
        return TaskErrors(found, {}, one_line(str(error)))
    wanted = {line[0] for lines in found.values() for line in lines}
    return TaskErrors(found, {identity: sentences[identity] for identity in wanted if identity in sentences})
