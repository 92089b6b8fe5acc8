"""The report's section on each row of the table: its purpose, config, runs and epochs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtbert.config import Config
from mtbert.errors import InputError
from mtbert.figures.study import COLUMNS
from mtbert.paths import conf_dir
from mtbert.results.measured import MeasuredRow
from mtbert.results.paper import BASELINE
from mtbert.results.record import RunRecord, one_line
from mtbert.run import Run

# Where a run was made, and what it was called: no difference between two experiments.
NO_DIFFERENCE = re.compile(
    r"name|seed|runs_dir|data\.folder|loggers.*|keep|test_predictions|scale\..*|trainer\.(threads|num_workers|cuda_graphs|log_.*|checkpoint_.*)"
)
ABSENT = "(none)"


@dataclass(frozen=True)
class Difference:
    """A key of the config, in the baseline and in this row; ``ABSENT`` where a config lacks it."""

    key: str
    baseline: str
    own: str


@dataclass(frozen=True)
class EpochLine:
    """Means over seeds; ``best`` counts the seeds whose best epoch this is."""

    number: int
    phase: str
    figures: list[float | None]
    best: int


@dataclass(frozen=True)
class Section:
    """``without_diff`` says why there are no ``differences`` to show, where that is no finding."""

    row: MeasuredRow
    purpose: str
    differences: list[Difference]
    without_diff: str
    records: tuple[RunRecord, ...]
    epochs: list[EpochLine]


def row_sections(rows: Sequence[MeasuredRow]) -> list[Section]:
    """A section for each row, in order."""
    baseline = next((row for row in rows if (row.experiment, row.overrides) == (BASELINE, ())), None)
    return [_section(row, baseline) for row in rows]


def config_differences(baseline: Config, own: Config) -> list[Difference]:
    """Keys whose values differ, in order of their names."""
    before, after = _flat(dataclasses.asdict(baseline)), _flat(dataclasses.asdict(own))
    keys = sorted(key for key in before.keys() | after.keys() if not NO_DIFFERENCE.fullmatch(key))
    pairs = ((key, before.get(key, ABSENT), after.get(key, ABSENT)) for key in keys)
    return [Difference(key, old, new) for key, old, new in pairs if old != new]


def _section(row: MeasuredRow, baseline: MeasuredRow | None) -> Section:
    differences, why = [], ""
    if baseline is None:
        why = "there is no finished run of the baseline to compare with"
    elif row is baseline:
        why = "this is the baseline"
    else:
        try:
            differences = config_differences(_config(baseline), _config(row))
        except InputError as error:
            why = one_line(str(error))
    return Section(row, _purpose(row.experiment), differences, why, row.records, _epochs(row))


def _config(row: MeasuredRow) -> Config:
    run: Run = row.runs[0]
    return run.config


def _purpose(experiment: str) -> str:
    """The comment that the experiment's file opens with; empty for one that is not shipped."""
    path = conf_dir() / "experiment" / f"{experiment}.yaml"
    if not path.is_file():
        return ""
    comments = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            comments.append(line.removeprefix("#").strip())
    return " ".join(comments)


def _epochs(row: MeasuredRow) -> list[EpochLine]:
    curves = [row.curve(column).mean for column in COLUMNS]
    best = [record.best.index for record in row.records]
    return [
        EpochLine(index + 1, epoch.phase, [curve[index] for curve in curves], best.count(index))
        for index, epoch in enumerate(row.records[0].epochs[: len(curves[0])])
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted keys to values as YAML would write them; a list is one value."""
    if isinstance(value, Mapping) and value:
        parts = ((f"{prefix}.{key}" if prefix else str(key), part) for key, part in value.items())
        return {name: text for key, part in parts for name, text in _flat(part, key).items()}
    return {prefix: "null" if value is None else str(value)}
