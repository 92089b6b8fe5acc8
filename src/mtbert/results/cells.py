"""The table of results as plain data, before it is drawn anywhere."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from mtbert.results.record import Metrics

# What a cell without a figure shows.
MISSING = "missing"  # no run of this row is done
FAILED = "failed"  # every run of this row broke
UNDEFINED = "undef."  # the metric has no value, as the Pearson correlation of a constant
ABSENT = "n/a"  # the runs of this row do not measure it


@dataclass(frozen=True)
class Column:
    title: str
    metric: str  # key in result.json
    paper: str = ""  # column of the paper's figures, where it has one


TASK_COLUMNS = (
    Column("SST acc", "dev/sst/accuracy", "sst_acc"),
    Column("PARA acc", "dev/para/accuracy", "para_acc"),
    Column("STS Pearson", "dev/sts/pearson", "sts_pearson"),
)
AVERAGE_COLUMN = Column("average", "dev/average", "average")


def figure_of(metrics: Metrics, column: Column, split: str = "dev") -> float | str:
    """A column's figure among an epoch's metrics, or the word for why there is none.

    The average is that of the table's three tasks, so that it means the same for a run with tasks of its own.
    """
    if column is AVERAGE_COLUMN:
        parts = [figure_of(metrics, part, split) for part in TASK_COLUMNS]
        words = [part for part in parts if isinstance(part, str)]
        return words[0] if words else statistics.fmean(part for part in parts if isinstance(part, float))
    metric = column.metric if split == "dev" else column.metric.replace("dev/", f"{split}/", 1)
    if metric not in metrics:
        return ABSENT
    value = metrics[metric]
    return UNDEFINED if value is None else float(value)


@dataclass(frozen=True)
class Cell:
    """One metric of one row: the mean over seeds of our figures, with what it is compared to."""

    mean: float | None = None
    sd: float | None = None  # over seeds, n - 1 in the denominator; None for a single seed
    n: int = 0
    why_empty: str = ""  # one of the words above where mean is None
    difference: float | None = None  # of means, to our baseline
    low: float | None = None  # 95 % interval of the difference, where the runs left dev predictions
    high: float | None = None
    p: float | None = None  # of no difference, over seeds, corrected for all rows that are compared (Holm)
    best: float | None = None  # mean at the epoch with the best dev average, the paper's way of choosing
    last: float | None = None  # mean after the last epoch
    paper: float | None = None
    paper_difference: float | None = None  # to the paper's baseline
    published: float | None = None  # the published log at its best epoch


@dataclass(frozen=True)
class Row:
    label: str
    experiment: str
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    cells: tuple[Cell, ...] = ()
    paper_decimals: int = 2
    note: str = ""  # what failed, or which other run it is the same as


@dataclass(frozen=True)
class Table:
    """``rows`` are the paper's, ``others`` our own experiments, ``apart`` the figures that are not of dev."""

    title: str
    facts: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    apart: tuple[Row, ...]
    notes: tuple[str, ...]
    published_log: bool = False
    way: str = "best"  # how the epoch of the figures was chosen, see mtbert.results.evidence

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows + self.others + self.apart

    @property
    def all_notes(self) -> tuple[str, ...]:
        return tuple(f"{row.label}: {row.note}" for row in self.all_rows if row.note) + self.notes
