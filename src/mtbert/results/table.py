"""Figure 6 of the paper from finished runs: ours, the paper's beside it, differences to our baseline."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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
)
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.comparable import RowKey, common_overrides, require_comparable, rows_of
from mtbert.results.facts import facts_about, marked, remarks_on
from mtbert.results.paper import BASELINE, PaperRow, paper_rows, published_best
from mtbert.results.record import BrokenRun, FailedRun, RunRecord, one_line
from mtbert.results.render import FORMATS, render_terminal

LEADERBOARD = "figures of the course's leaderboard; the labels are not public"


def build_table(
    records: Sequence[RunRecord],
    failed: Sequence[FailedRun] = (),
    *,
    broken: Sequence[BrokenRun] = (),
    unfinished: Sequence[Path] = (),
    published_log: bool = False,
    metrics: Sequence[str] = (),
) -> Table:
    """The paper's rows, then other experiments; figures of each run's best epoch by dev average.

    Args:
        failed, broken, unfinished: what else lies among the runs; named in the table, never just left out.
        published_log: also show the published per-epoch log at its best epoch.
        metrics: further keys of result.json to show, e.g. ``dev/nli/accuracy``.

    Raises:
        InputError: the runs differ in more than experiment and seed, one seed of a row was run twice, or
            no run has one of ``metrics``.
    """
    require_comparable(records)
    runs = rows_of(records)
    columns = (*TASK_COLUMNS, *_further_columns(metrics, records), AVERAGE_COLUMN)
    baseline = {column: _cell(runs.get((BASELINE, ()), []), column, "dev").mean for column in columns}
    papers = {(paper.experiment, paper.split): paper for paper in paper_rows()}
    failures = {run.experiment: [f for f in failed if f.experiment == run.experiment] for run in failed}

    def row(key: RowKey, split: str = "dev") -> Row:
        broke = [] if key[1] else failures.get(key[0], [])
        paper = None if key[1] else papers.get((key[0], split))
        return _row(key, runs.get(key, []), broke, paper, split, baseline)

    own = {(run.experiment, ()) for run in failed} | runs.keys()
    return Table(
        title="Figure 6: dev figures at the epoch with the best dev average",
        facts=facts_about(records, common_overrides(records)),
        columns=marked(columns, records),
        rows=tuple(row((name, ()), split) for name, split in papers if split == "dev"),
        others=tuple(row(key) for key in sorted(own) if key[1] or (key[0], "dev") not in papers),
        apart=tuple(row((name, ()), split) for name, split in papers if split != "dev"),
        notes=remarks_on(records, (BASELINE, ()) in runs, broken, unfinished),
        published_log=published_log,
    )


def _further_columns(metrics: Sequence[str], records: Sequence[RunRecord]) -> list[Column]:
    measured = sorted({name for record in records for name in record.best.metrics}) if metrics else []
    for metric in metrics:
        if metric not in measured:
            raise InputError(f"metric {metric}: no run has it{nearest(metric, measured)}")
    return [Column(metric, metric) for metric in dict.fromkeys(metrics)]


def _row(
    key: RowKey,
    records: Sequence[RunRecord],
    failed: Sequence[FailedRun],
    paper: PaperRow | None,
    split: str,
    baseline: dict[Column, float | None],
) -> Row:
    without_run = ABSENT if split != "dev" else FAILED if failed else MISSING
    cells = [_cell(records, column, split, without_run) for column in baseline]
    if split == "dev" and key != (BASELINE, ()):
        pairs = zip(cells, baseline.values(), strict=True)
        cells = [replace(cell, difference=_difference(cell.mean, first)) for cell, first in pairs]
    if paper:
        cells = [_beside(cell, column, paper) for cell, column in zip(cells, baseline, strict=True)]
    return Row(
        label=paper.label if paper else one_line(" ".join((key[0], *key[1]))),
        experiment=key[0],
        overrides=key[1],
        seeds=tuple(record.seed for record in records),
        cells=tuple(cells),
        paper_decimals=paper.decimals if paper else 2,
        note=_note(records, failed) if split == "dev" else LEADERBOARD,
    )


def _cell(records: Sequence[RunRecord], column: Column, split: str, without_run: str = MISSING) -> Cell:
    """Mean and standard deviation over the seeds of a row; undefined for one seed is undefined for all."""
    if not records:
        return Cell(why_empty=without_run)
    figures = [_figure(record, column, split) for record in records]
    defined = [figure for figure in figures if isinstance(figure, float)]
    if len(defined) < len(figures):
        return Cell(n=len(figures), why_empty=ABSENT if ABSENT in figures else UNDEFINED)
    sd = statistics.stdev(defined) if len(defined) > 1 else None
    return Cell(statistics.fmean(defined), sd, len(defined))


def _figure(record: RunRecord, column: Column, split: str) -> float | str:
    """The run's figure, or the word for why it has none.

    The average is that of the table's three tasks, so that it means the same for a run with tasks of its own.
    """
    if column is AVERAGE_COLUMN:
        parts = [_figure(record, part, split) for part in TASK_COLUMNS]
        words = [part for part in parts if isinstance(part, str)]
        return words[0] if words else statistics.fmean(part for part in parts if isinstance(part, float))
    metric = column.metric if split == "dev" else column.metric.replace("dev/", f"{split}/", 1)
    if metric not in record.best.metrics:
        return ABSENT
    value = record.best.metrics[metric]
    return UNDEFINED if value is None else float(value)


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
    add("--published-log", action="store_true", help="also show the published log at its best epoch")
    add("--format", choices=sorted(FORMATS), default="terminal")
    add("--output", type=Path, metavar="FILE", help="write there instead of printing")


def main(args: argparse.Namespace) -> int:
    """``mtbert table``: print the table or write it to a file.

    Raises:
        InputError: there are no runs, or they do not belong in one table.
    """
    runs = chosen_runs(args)
    table = build_table(
        runs.done,
        runs.failed,
        broken=runs.broken,
        unfinished=runs.unfinished,
        published_log=args.published_log,
        metrics=args.metric,
    )
    if args.output:
        with atomic_write(args.output) as temporary:
            temporary.write_text(FORMATS[args.format](table), encoding="utf-8")
    elif args.format == "terminal":
        render_terminal(table)
    else:
        print(FORMATS[args.format](table), end="")
    return 0
