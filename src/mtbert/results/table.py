"""Figure 6 of the paper from finished runs: ours, the paper's beside it, differences to our baseline."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbert.errors import InputError, nearest
from mtbert.paths import atomic_write
from mtbert.results.cells import (
    ABSENT,
    AVERAGE_COLUMN,
    FAILED,
    MISSING,
    TASK_COLUMNS,
    UNDEFINED,
    Cell,
    Column,
    Row,
    Table,
    figure_of,
)
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.comparable import RowKey, common_overrides, require_comparable
from mtbert.results.evidence import BEST, HALVES, LAST, WAYS, Evidence
from mtbert.results.facts import facts_about, marked, remarks_on
from mtbert.results.folders import BrokenRun, Runs
from mtbert.results.paper import BASELINE, PaperRow, paper_rows, published_best
from mtbert.results.record import FailedRun, RunRecord, one_line
from mtbert.results.render import FORMATS, render_terminal
from mtbert.results.statistics import holm

TITLES = {
    HALVES: "at the epoch chosen on one half of dev, scored on the other, both ways averaged",
    BEST: "at the epoch with the best dev average",
    LAST: "after the last epoch",
}
AT_BEST = " (best epoch)"  # a column whose figures cannot be scored on halves
LEADERBOARD = "figures of the course's leaderboard; the labels are not public"


def table_of(runs: Runs, **options: Any) -> Table:
    """``build_table`` of all that ``runs`` holds; ``options`` are its others."""
    return build_table(
        runs.done, runs.failed, broken=runs.broken, unfinished=runs.unfinished, only=runs.only, **options
    )


def build_table(
    records: Sequence[RunRecord],
    failed: Sequence[FailedRun] = (),
    *,
    broken: Sequence[BrokenRun] = (),
    unfinished: Sequence[Path] = (),
    only: Collection[str] = (),
    published_log: bool = False,
    metrics: Sequence[str] = (),
    way: str | None = None,
    evidence: Evidence | None = None,
) -> Table:
    """The paper's rows, then other experiments; with intervals where all runs left their dev predictions.

    Args:
        evidence: of ``records``, where the caller has it.
        way: how a run's epoch is chosen, one of ``mtbert.results.evidence.WAYS``; None: on halves of dev where the
            runs left their predictions, else by the best dev average.
        failed, broken, unfinished: what else lies among the runs; named in the table, never just left out.
        only: the paper's rows of these experiments alone; empty: all of them.
        published_log: also show the published per-epoch log at its best epoch.
        metrics: further keys of result.json to show, e.g. ``dev/nli/accuracy``.

    Raises:
        InputError: the runs differ in more than experiment and seed, one seed of a row was run twice, no run has one
            of ``metrics``, or ``way`` needs dev predictions that are not there.
    """
    require_comparable(records)
    evidence = evidence or Evidence.of(records)
    way = way or (BEST if evidence.unusable else HALVES)
    if way == HALVES and evidence.unusable:
        raise InputError(f"epochs cannot be chosen on halves of dev: {unusable(evidence)}")
    runs = evidence.rows
    columns = (*TASK_COLUMNS, *_further_columns(metrics, evidence, way), AVERAGE_COLUMN)
    figures = _Figures(evidence, way)
    baseline = {column: figures.cell((BASELINE, ()), column, "dev").mean for column in columns}
    shown = [paper for paper in paper_rows() if not only or paper.experiment in only]
    papers = {(paper.experiment, paper.split): paper for paper in shown}
    failures = {run.experiment: [f for f in failed if f.experiment == run.experiment] for run in failed}

    def row(key: RowKey, split: str = "dev") -> Row:
        broke = [] if key[1] else failures.get(key[0], [])
        paper = None if key[1] else papers.get((key[0], split))
        return _row(key, figures, broke, paper, split, baseline)

    own = {(run.experiment, ()) for run in failed} | runs.keys()
    listed = [row((name, ()), split) for name, split in papers if split == "dev"]
    others = [row(key) for key in sorted(own) if key[1] or (key[0], "dev") not in papers]
    together = corrected([*listed, *others])
    return Table(
        title=f"Figure 6: dev figures {TITLES[way]}",
        facts=facts_about(records, common_overrides(records)),
        columns=marked(columns, records),
        rows=together[: len(listed)],
        others=together[len(listed) :],
        apart=tuple(row((name, ()), split) for name, split in papers if split != "dev"),
        notes=(
            *_on_average(records),
            *_on_intervals(evidence),
            *remarks_on(records, (BASELINE, ()) in runs, broken, unfinished),
        ),
        published_log=published_log,
        way=way,
    )


def _further_columns(metrics: Sequence[str], evidence: Evidence, way: str) -> list[Column]:
    """``metrics`` as columns; one that predictions do not give stays at the best epoch, and says so."""
    records = [record for runs in evidence.rows.values() for record in runs]
    measured = sorted({name for record in records for name in record.best.metrics}) if metrics else []
    for metric in metrics:
        if metric not in measured:
            raise InputError(f"metric {metric}: no run has it{nearest(metric, measured)}")
    other_way = {
        m for m in metrics if way == HALVES and not any(evidence.figures(row, m) is not None for row in evidence.rows)
    }
    return [Column(metric + AT_BEST * (metric in other_way), metric) for metric in dict.fromkeys(metrics)]


class _Figures:
    """What the runs of a row measured, at the epoch that ``way`` chooses."""

    def __init__(self, evidence: Evidence, way: str) -> None:
        self.evidence, self.way = evidence, way

    def runs(self, key: RowKey) -> list[RunRecord]:
        return self.evidence.rows.get(key, [])

    def cell(self, key: RowKey, column: Column, split: str, without_run: str = MISSING) -> Cell:
        """Mean and standard deviation over the seeds of a row; undefined for one seed is undefined for all."""
        best, last = (_cell(self.runs(key), column, split, way, without_run) for way in (BEST, LAST))
        chosen = last if self.way == LAST else best
        if self.way == HALVES and split == "dev" and not column.title.endswith(AT_BEST):
            halves = self.evidence.figures(key, column.metric, HALVES)
            undefined = replace(best, mean=None, sd=None, why_empty=best.why_empty or UNDEFINED)
            chosen = undefined if halves is None else _over_seeds([float(figure) for figure in halves[:, 0]])
        return replace(chosen, best=best.mean, last=last.mean)

    def against_baseline(self, key: RowKey, column: Column, cell: Cell, baseline: float | None) -> Cell:
        """``cell`` with its difference to our baseline: that of means, or with an interval on the seeds of both."""
        estimate = self.evidence.difference(key, (BASELINE, ()), column.metric, self.way)
        if estimate is None:
            return replace(cell, difference=_difference(cell.mean, baseline))
        p = estimate.p if estimate.seeds > 1 else None  # one seed says nothing about others
        return replace(cell, difference=estimate.value, low=estimate.low, high=estimate.high, p=p)


def _row(
    key: RowKey,
    figures: _Figures,
    failed: Sequence[FailedRun],
    paper: PaperRow | None,
    split: str,
    baseline: dict[Column, float | None],
) -> Row:
    without_run = ABSENT if split != "dev" else FAILED if failed else MISSING
    cells = [figures.cell(key, column, split, without_run) for column in baseline]
    if split == "dev" and key != (BASELINE, ()):
        pairs = zip(cells, baseline.items(), strict=True)
        cells = [figures.against_baseline(key, column, cell, first) for cell, (column, first) in pairs]
    if paper:
        cells = [_beside(cell, column, paper) for cell, column in zip(cells, baseline, strict=True)]
    records = figures.runs(key)
    return Row(
        label=paper.label if paper else one_line(" ".join((key[0], *key[1]))),
        experiment=key[0],
        overrides=key[1],
        seeds=tuple(record.seed for record in records),
        cells=tuple(cells),
        paper_decimals=paper.decimals if paper else 2,
        note=_note(records, failed) if split == "dev" else LEADERBOARD,
    )


def corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    """``rows`` with the p values of each column corrected for the number of rows that have one."""
    columns = list(zip(*(row.cells for row in rows), strict=True))
    replaced = [list(column) for column in columns]
    for column in replaced:
        tested = [(index, cell.p) for index, cell in enumerate(column) if cell.p is not None]
        for (index, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
            column[index] = replace(column[index], p=p)
    return tuple(replace(row, cells=cells) for row, cells in zip(rows, zip(*replaced, strict=True), strict=True))


def _cell(records: Sequence[RunRecord], column: Column, split: str, way: str, without_run: str) -> Cell:
    if not records:
        return Cell(why_empty=without_run)
    epochs = [record.epochs[-1] if way == LAST else record.best for record in records]
    figures = [figure_of(epoch.metrics, column, split) for epoch in epochs]
    defined = [figure for figure in figures if isinstance(figure, float)]
    if len(defined) < len(figures):
        return Cell(n=len(figures), why_empty=ABSENT if ABSENT in figures else UNDEFINED)
    return _over_seeds(defined)


def _over_seeds(figures: Sequence[float]) -> Cell:
    sd = statistics.stdev(figures) if len(figures) > 1 else None
    return Cell(statistics.fmean(figures), sd, len(figures))


def _beside(cell: Cell, column: Column, paper: PaperRow) -> Cell:
    """``cell`` with what the paper and its published log report for it."""
    first = paper_rows()[0]
    of_paper = paper.figures.get(column.paper)
    against = None if paper is first or paper.split != "dev" else first.figures.get(column.paper)
    log = published_best().get(paper.row, {}) if paper.split == "dev" else {}
    return replace(
        cell, paper=of_paper, paper_difference=_difference(of_paper, against), published=log.get(column.paper)
    )


def _difference(figure: float | None, baseline: float | None) -> float | None:
    return None if figure is None or baseline is None else figure - baseline


def _on_average(records: Sequence[RunRecord]) -> list[str]:
    """The average is over the paper's three tasks, whatever others a run has."""
    theirs = {column.metric for column in TASK_COLUMNS} | {AVERAGE_COLUMN.metric}
    further = any(key.startswith("dev/") and key not in theirs for record in records for key in record.best.metrics)
    return ["average: of SST, PARA and STS; a run's own, of all its tasks: mtbert runs"] if further else []


def _on_intervals(evidence: Evidence) -> list[str]:
    """What the intervals do not cover, and why there are none."""
    if evidence.unusable:
        return [f"without intervals: {unusable(evidence)}"]
    seeds = {evidence.seeds(row) for row in evidence.rows}
    notes = ["differences are taken on the seeds that a row and the baseline share"] * (len(seeds) > 1)
    if any(len(of_row) == 1 for of_row in seeds):
        notes.append("rows of one seed: intervals over dev rows alone; another seed may differ by more (SEEDS=0,1,2)")
    return notes


def unusable(evidence: Evidence) -> str:
    """One line on the runs that have no dev predictions to resample."""
    (name, reason), count = next(iter(evidence.unusable.items())), len(evidence.unusable)
    return f"{count} run{'s' * (count > 1)} without usable dev predictions, e.g. {name}: {reason}"


def _note(records: Sequence[RunRecord], failed: Sequence[FailedRun]) -> str:
    done = {record.seed for record in records}
    notes = [f"seed {run.seed} failed: {run.reason}" for run in failed if run.seed not in done]
    notes += [f"seed {r.seed} is the same run as {r.same_as}" for r in records if r.same_as]
    return "; ".join(notes)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert table``."""
    add_run_arguments(parser)
    add = parser.add_argument
    add("--metric", action="append", default=[], metavar="KEY", help="one more, e.g. dev/nli/accuracy")
    add(
        "--epoch", choices=WAYS, help="how a run's epoch is chosen (default: halves of dev, where predictions are kept)"
    )
    add("--published-log", action="store_true", help="also show the published log at its best epoch")
    add("--format", choices=sorted(FORMATS), default="terminal")
    add("--output", type=Path, metavar="FILE", help="write there instead of printing")


def main(args: argparse.Namespace) -> int:
    """``mtbert table``: print the table or write it to a file.

    Raises:
        InputError: there are no runs, or they do not belong in one table.
    """
    table = table_of(chosen_runs(args), published_log=args.published_log, metrics=args.metric, way=args.epoch)
    if args.output:
        with atomic_write(args.output) as temporary:
            temporary.write_text(FORMATS[args.format](table), encoding="utf-8")
    elif args.format == "terminal":
        render_terminal(table)
    else:
        print(FORMATS[args.format](table), end="")
    return 0
