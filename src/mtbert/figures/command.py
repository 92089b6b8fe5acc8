"""``mtbert figures``: the paper's figures from finished runs, learning curves, and what was predicted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mtbert.errors import InputError
from mtbert.figures.canvas import save
from mtbert.figures.errors import MOST, errors_figure
from mtbert.figures.palette import GREY
from mtbert.figures.predictions import figures_of
from mtbert.figures.study import figure_7, figure_8, figure_9, learning_curves
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.folders import runs_dir
from mtbert.results.measured import MeasuredRow, TaskPredictions, measured_gains, measured_rows
from mtbert.results.paper import experiment_names, paper_rows
from mtbert.results.scoring import worst_errors
from mtbert.results.table import build_table
from mtbert.terminal import tell

Named = tuple[str, Figure]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert figures``."""
    add_run_arguments(parser)
    add = parser.add_argument
    add("--out", type=Path, metavar="FOLDER", help="where to (default: ./figures)")
    add("--without-sentences", action="store_true", help="no worst errors: Quora's and SICK's rows stay private")
    add("--tensorboard", action="store_true", help="instead: the paper's curves beside the runs, for TensorBoard")


def main(args: argparse.Namespace) -> int:
    """``mtbert figures``: a PNG and an SVG of each figure.

    Raises:
        InputError: there are no runs, they do not belong in one table, or none is of a wanted experiment.
    """
    if args.tensorboard and args.out:
        raise InputError("--out does not go with --tensorboard, which writes beside the runs")
    folder = args.out or Path("figures")
    runs = chosen_runs(args)
    rows = measured_rows(build_table(runs.done, runs.failed), runs.done)
    if args.tensorboard:
        from mtbert.figures.reference import write_reference_runs

        runs_folder = (args.runs or [runs_dir()])[0]
        written = write_reference_runs(rows, runs_folder)
        print(f"{written}: the paper's curves; `tensorboard --logdir {runs_folder}` shows them")
        return 0
    if not rows:
        raise InputError("all runs failed: there is nothing to draw")
    wanted = rows
    if args.experiments is not None:  # without the baseline that they are compared with, unless it is one of them
        names = experiment_names(args.experiments)
        if not (wanted := [row for row in rows if row.experiment in names]):
            raise InputError(f"--experiments {args.experiments}: no run of these is finished: there is nothing to draw")
    count = 0
    about = _about(rows)
    for name, figure in _figures(rows, wanted, sentences=not args.without_sentences):
        figure.text(0.995, 0.003, about, ha="right", va="bottom", fontsize=6.5, color=GREY, parse_math=False)
        count += len(save(figure, folder / name))
    print(f"{folder}: {count} files")
    return 0


def _about(rows: Sequence[MeasuredRow]) -> str:
    """What ours were measured with, so that a picture on its own claims no more."""
    first, counts = rows[0].records[0], [len(row.records) for row in rows]
    low, high = min(counts), max(counts)
    seeds = f"{low} seed{'s' * (low > 1)}" if low == high else f"{low} to {high} seeds a row"
    return f"ours: scale {first.scale}, {first.encoder.name}, {seeds}"


def _figures(rows: Sequence[MeasuredRow], wanted: Sequence[MeasuredRow], sentences: bool) -> Iterator[Named]:
    papers = {paper.experiment: paper for paper in paper_rows() if paper.split == "dev"}
    plain = {row.experiment: row for row in rows if not row.overrides}
    yield "figure-7", figure_7(plain, papers["00_baseline"], papers["final"])
    yield "figure-8", figure_8(plain, (papers["10_round_robin"], papers["11_round_robin_normalized"]))
    yield "figure-9", figure_9(measured_gains(rows))
    for row in wanted:
        paper = papers.get(row.experiment) if not row.overrides else None
        yield f"{row.slug}/learning-curves", learning_curves(row, paper)
        for predicted in row.predictions:
            yield from _of_predictions(row, predicted, sentences)


def _of_predictions(row: MeasuredRow, predicted: TaskPredictions, sentences: bool) -> Iterator[Named]:
    """A task's predictions, those of all seeds together."""
    name, task = predicted.name, predicted.task
    title = f"{name.upper()} dev, {row.label}"
    for kind, figure in figures_of(name, task, predicted.values, predicted.labels, title):
        yield f"{row.slug}/{name}-{kind.replace('_', '-')}", figure
    if not sentences:
        return
    try:
        texts = row.sentences(name)
    except InputError as error:
        tell(f"no worst errors of {name} ({row.slug}): {error}")
        return
    errors = worst_errors(predicted.frame, MOST)
    if len(errors):
        yield f"{row.slug}/{name}-worst-errors", errors_figure(name, errors, texts, task.label_high)
