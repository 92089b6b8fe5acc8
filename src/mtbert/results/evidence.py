"""Dev figures of finished runs on resampled rows: what intervals, claims and interactions are computed from.

evidence = Evidence.of(records)
evidence.difference(("05_sst_polar", ()), ("00_baseline", ()), "dev/average").low
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int

from mtbert.errors import InputError
from mtbert.results.cells import AVERAGE_COLUMN, TASK_COLUMNS
from mtbert.results.comparable import RowKey, Rows, rows_of
from mtbert.results.predictions import Counts, DevPredictions, figures_of, read_predictions
from mtbert.results.record import RunRecord
from mtbert.results.statistics import Estimate, Figures, combine

REPLICATES = 1000
# How a run's epoch is picked: on one half of the dev rows, scored on the other, both ways and averaged; by the best
# dev average, scored on the same rows (the paper's way); the last one.
HALVES, BEST, LAST = "halves", "best", "last"
WAYS = (HALVES, BEST, LAST)
Replicates = Float[np.ndarray, " replicates"]
OfEpochs = Float[np.ndarray, "epochs replicates"]
ALL = slice(None)


@dataclass(frozen=True)
class Draw:
    """How often each dev row of a task counts: once in line 0, then as drawn; the first half's rows stand first."""

    ids: tuple[str, ...]
    counts: Counts

    @property
    def halves(self) -> tuple[slice, slice]:
        middle = len(self.ids) // 2
        return slice(0, middle), slice(middle, None)

    @classmethod
    def of(cls, ids: tuple[str, ...], replicates: int) -> Draw:
        """The same for the same rows, whatever the run; each half is drawn anew by itself."""
        draw = cls(ids, np.ones((1 + replicates, len(ids)), dtype=np.float32))
        random = np.random.default_rng(0)
        for half in draw.halves:
            for line in draw.counts[1:, half]:
                if n := len(line):
                    line[:] = np.bincount(random.integers(0, n, n), minlength=n)
        return draw


class Evidence:
    """Figures by row of the table, resampled; ``unusable`` says why a run has none."""

    def __init__(self, rows: Rows, figures: Mapping[RowKey, dict[tuple[str, str], Figures]], unusable: dict[str, str]):
        self.rows, self.unusable = rows, unusable
        self._figures = figures

    @classmethod
    def of(cls, records: Sequence[RunRecord], replicates: int = REPLICATES) -> Evidence:
        """Read the predictions of all runs and resample their rows.

        Raises:
            InputError: one seed of a row was run twice, or two runs were measured on different dev rows.
        """
        rows, unusable = rows_of(records), dict[str, str]()
        draws: dict[str, Draw] = {}
        figures = {}
        for key, runs in rows.items():
            found = [_of_run(record, draws, replicates, unusable) for record in runs]
            names = set.intersection(*(set(of_run) for of_run in found))
            figures[key] = {name: np.stack([of_run[name] for of_run in found]) for name in names}
        return cls(rows, figures, unusable)

    def figures(self, row: RowKey, metric: str, way: str = HALVES) -> Figures | None:
        """A metric of each seed of a row, as measured (column 0) and resampled; None where a run does not have it.

        Args:
            metric: as in result.json; ``dev/average`` is that of the paper's three tasks.
        """
        figures = self._figures.get(row, {}).get((way, metric))
        return None if figures is None or np.isnan(figures[:, 0]).any() else figures

    def estimate(self, weights: Mapping[RowKey, float], metric: str, way: str = HALVES) -> Estimate | None:
        """``sum of weight * mean over seeds`` over rows of the table; None where one of them does not have it.

        Paired on dev rows, and on the seeds that all rows have; where they share none, over each row's own.
        """
        shared = set.intersection(*(set(self.seeds(row)) for row in weights))
        terms = []
        for row, weight in weights.items():
            if (figures := self.figures(row, metric, way)) is None:
                return None
            chosen = [not shared or seed in shared for seed in self.seeds(row)]
            terms.append((weight, figures[chosen]))
        return combine(terms, paired=bool(shared))

    def difference(self, row: RowKey, other: RowKey, metric: str, way: str = HALVES) -> Estimate | None:
        """``row`` less ``other``; see ``estimate``."""
        return self.estimate({row: 1.0, other: -1.0}, metric, way)

    def seeds(self, row: RowKey) -> tuple[int, ...]:
        return tuple(record.seed for record in self.rows.get(row, ()))


def _of_run(
    record: RunRecord, draws: dict[str, Draw], replicates: int, unusable: dict[str, str]
) -> dict[tuple[str, str], Replicates]:
    try:
        predictions = read_predictions(record)
    except InputError as error:
        unusable[record.directory.name] = str(error)
        return {}
    for task, found in predictions.items():
        found = predictions[task] = _in_order(found)
        if task not in draws:
            draws[task] = Draw.of(found.ids, replicates)
        if draws[task].ids != found.ids:
            raise InputError(f"{record.directory}: dev rows of {task} are not those of the other runs")
    best = record.evaluated.index(record.best.index)
    return _with_average(_figures(predictions, best, draws)) if predictions else {}


def _in_order(found: DevPredictions) -> DevPredictions:
    """Rows by the checksum of their id: which half a row is in depends on nothing else."""
    ids, order = _order(found.ids)
    return DevPredictions(found.metric, ids, found.labels[order], found.scores[order])


@cache  # nearly all runs have the same rows
def _order(ids: tuple[str, ...]) -> tuple[tuple[str, ...], list[int]]:
    order = sorted(range(len(ids)), key=lambda row: (zlib.crc32(ids[row].encode()), ids[row]))
    return tuple(ids[row] for row in order), order


def _figures(
    predictions: Mapping[str, DevPredictions], best: int, draws: Mapping[str, Draw]
) -> dict[tuple[str, str], Replicates]:
    """A run's figures by way and metric; on halves, every draw of the dev rows picks its own epoch."""
    figures: dict[tuple[str, str], Replicates] = {}
    first = {task: _resampled(whole, ALL, draws[task], draws[task].halves[0]) for task, whole in predictions.items()}
    second = {task: _resampled(whole, ALL, draws[task], draws[task].halves[1]) for task, whole in predictions.items()}
    by_first, by_second = _best_epochs(first), _best_epochs(second)
    for task, whole in predictions.items():
        name = f"dev/{task}/{whole.metric}"
        figures[HALVES, name] = (_picked(first[task], by_second) + _picked(second[task], by_first)) / 2
        figures[BEST, name], figures[LAST, name] = _resampled(whole, [best, -1], draws[task], ALL)
    return figures


def _best_epochs(figures: Mapping[str, OfEpochs]) -> Int[np.ndarray, " replicates"]:
    """The first epoch with the highest average over tasks, on each draw of the rows."""
    average = np.mean(list(figures.values()), axis=0)
    return np.where(np.isnan(average), -np.inf, average).argmax(axis=0)


def _picked(figures: OfEpochs, epochs: Int[np.ndarray, " replicates"]) -> Replicates:
    return figures[epochs, np.arange(figures.shape[1])]


def _resampled(whole: DevPredictions, epochs: slice | Sequence[int], draw: Draw, rows: slice) -> OfEpochs:
    """The metric after some epochs, on some of the rows; a draw on which it is undefined takes the measured figure."""
    part = DevPredictions(whole.metric, whole.ids[rows], whole.labels[rows], whole.scores[rows][:, epochs])
    figures = figures_of(part, draw.counts[:, rows]).T.astype(np.float64)
    return np.where(np.isnan(figures), figures[:, :1], figures)


def _with_average(figures: dict[tuple[str, str], Replicates]) -> dict[tuple[str, str], Replicates]:
    for way in WAYS:
        parts = [figures.get((way, column.metric)) for column in TASK_COLUMNS]
        present = [part for part in parts if part is not None]
        if len(present) == len(parts):
            figures[way, AVERAGE_COLUMN.metric] = np.mean(present, axis=0)
    return figures
