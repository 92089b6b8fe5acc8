"""Rows of the table with the runs behind them, epoch by epoch and dev row by dev row: what figures are drawn from."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from mtbert.errors import InputError
from mtbert.results.cells import AVERAGE_COLUMN, Cell, Column, Table, figure_of
from mtbert.results.comparable import rows_of
from mtbert.results.paper import BASELINE, paper_gains, published_logs
from mtbert.results.record import RunRecord
from mtbert.results.scoring import Labels, Scores
from mtbert.results.sentences import sentences_of
from mtbert.run import Run, load

if TYPE_CHECKING:
    from mtbert.config import TaskConfig
    from mtbert.tasks import Task


@dataclass(frozen=True)
class Curve:
    """A figure after each epoch, over seeds: their mean, lowest and highest; None where it is undefined."""

    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


@dataclass(frozen=True)
class MeasuredRow:
    """A row of the table and its finished runs, one a seed; ``cells`` by the metric of their column."""

    label: str
    experiment: str
    overrides: tuple[str, ...]
    records: tuple[RunRecord, ...]
    cells: dict[str, Cell]

    @property
    def slug(self) -> str:
        """The row's name in file names."""
        return "-".join(part.replace("/", ".") for part in (self.experiment, *self.overrides))

    @cached_property
    def runs(self) -> list[Run]:
        """As ``mtbert.load`` gives them.

        Raises:
            InputError: a directory that says it holds the same run as another, which is gone.
        """
        return [load(record.directory) for record in self.records]

    @property
    def starts(self) -> list[int]:
        """The epochs, counted from 1 over all phases, that a phase after the first starts with."""
        phases = [epoch.phase for epoch in self.records[0].epochs]
        return [number for number in range(2, len(phases) + 1) if phases[number - 1] != phases[number - 2]]

    def cell(self, column: Column) -> Cell:
        """What the table shows of the row in a column."""
        return self.cells[column.metric]

    def curve(self, column: Column) -> Curve:
        """The column's figure after each epoch that all seeds have."""
        seeds = [[figure_of(epoch.metrics, column) for epoch in record.epochs] for record in self.records]
        epochs = [[value for value in epoch if isinstance(value, float)] for epoch in zip(*seeds, strict=False)]
        whole = [values if len(values) == len(seeds) else [] for values in epochs]
        return Curve(
            mean=[statistics.fmean(values) if values else None for values in whole],
            low=[min(values, default=None) for values in whole],
            high=[max(values, default=None) for values in whole],
        )

    @cached_property
    def predictions(self) -> list[TaskPredictions]:
        """Dev predictions of each task; none of a task whose definition or files are not at hand."""
        try:
            tasks = self.runs[0].config.tasks
        except InputError:
            return []
        found = [self._predictions(name, options) for name, options in tasks.items()]
        return [predicted for predicted in found if predicted is not None]

    def _predictions(self, name: str, options: TaskConfig) -> TaskPredictions | None:
        from mtbert.tasks import find_task  # torch

        try:
            frames = [run.dev_predictions(name).assign(seed=run.record.seed) for run in self.runs]
            return TaskPredictions(name, find_task(name, options), pd.concat(frames).reset_index())
        except InputError:
            return None

    def sentences(self, task: str) -> dict[str, list[str]]:
        """The sentences of the task's dev rows by row id; see ``sentences_of``."""
        return sentences_of(self.runs[0], task)


@dataclass(frozen=True)
class TaskPredictions:
    """Dev predictions of a row's seeds below one another: ``Run.dev_predictions`` with ``id`` and ``seed``."""

    name: str
    task: Task
    frame: pd.DataFrame

    @property
    def values(self) -> Scores:
        """As ``Task.score`` gives them: the predicted class, or the score where there are no classes."""
        return self.frame["prediction" if self.task.classification else "score"].to_numpy(float)

    @property
    def labels(self) -> Labels:
        return self.frame["label"].to_numpy(float)


def measured_rows(table: Table, records: Sequence[RunRecord]) -> list[MeasuredRow]:
    """The rows of ``table``, made of ``records``, that have finished runs, in its order."""
    runs = rows_of(records)
    metrics = [column.metric for column in table.columns]
    return [
        MeasuredRow(
            label=row.label,
            experiment=row.experiment,
            overrides=row.overrides,
            records=tuple(runs[row.experiment, row.overrides]),
            cells=dict(zip(metrics, row.cells, strict=True)),
        )
        for row in (*table.rows, *table.others)
        if (row.experiment, row.overrides) in runs
    ]


@dataclass(frozen=True)
class Gain:
    """A bar of the paper's Figure 9: a measure's gain in dev average over the baseline; None where there is no run."""

    measure: str
    ours: float | None
    low: float | None  # 95 % interval, where the table has one
    high: float | None
    paper: float  # read off the figure
    published: float | None  # of the published logs, each at its best epoch


def measured_gains(rows: Sequence[MeasuredRow]) -> list[Gain]:
    """Figure 9 from our rows; the sum is there if all its parts are."""
    cells = {row.experiment: row.cell(AVERAGE_COLUMN) for row in rows if not row.overrides}
    logs = {name: max(figures["average"] for figures in log) for name, log in published_logs().items()}
    gains: list[Gain] = []
    for bar in paper_gains():
        if bar.experiment:
            cell = cells.get(bar.experiment, Cell())
            published = logs[bar.experiment] - logs[BASELINE]
            gains.append(Gain(bar.measure, cell.difference, cell.low, cell.high, bar.gain, published))
        else:
            ours, theirs = _total([gain.ours for gain in gains]), _total([gain.published for gain in gains])
            gains.append(Gain(bar.measure, ours, None, None, bar.gain, theirs))
    return gains


def _total(parts: Sequence[float | None]) -> float | None:
    defined = [part for part in parts if part is not None]
    return sum(defined) if len(defined) == len(parts) else None
