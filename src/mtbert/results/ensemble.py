"""``mtbert ensemble``: what finished runs predict together for the dev rows, held against each of them alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from mtbert.ensemble import Ensemble, averaged
from mtbert.errors import InputError
from mtbert.results.cells import AVERAGE_COLUMN, UNDEFINED
from mtbert.results.chosen import add_run_arguments, chosen_runs
from mtbert.results.comparable import own_overrides
from mtbert.results.evidence import REPLICATES, Draw
from mtbert.results.listing import Listing, Value, add_output_arguments, put
from mtbert.results.predictions import METRICS, TOLERANCE, DevPredictions, as_measured, figures_of
from mtbert.results.statistics import Figures, combine
from mtbert.run import Run, load

NOTES = (
    "each run at its epoch with the best dev average, the only one whose probabilities it keeps; the epochs were "
    "chosen on these same dev rows, as was the best run",
    "intervals of 95 % over dev rows: they hold for these trained weights, other seeds may differ by more",
)


def measure(ensemble: Ensemble, replicates: int = REPLICATES) -> dict[str, Figures]:
    """Every dev metric that result.json has: a line for each run and, last, one for all together; as measured
    (column 0), then on dev rows drawn anew.

    Raises:
        InputError: the runs were not measured on the same rows, or predictions do not give the figures in result.json.
    """
    keys = [key.split("/") for key in ensemble.runs[0].metrics if key.count("/") == 2]
    found = {
        f"dev/{task}/{metric}": _figures(ensemble, task, metric, replicates)
        for _, task, metric in keys
        if metric in METRICS
    }
    if not found:
        raise InputError(f"{ensemble.runs[0].directory}: has no metric that is known here ({', '.join(METRICS)})")
    return {**found, AVERAGE_COLUMN.metric: np.mean(list(found.values()), axis=0)}


def _figures(ensemble: Ensemble, task: str, metric: str, replicates: int) -> Figures:
    frames = ensemble.each_dev_predictions(task)
    scores = np.stack([f["prediction"].to_numpy(np.float64) for f in (*frames, averaged(frames))], axis=1)
    recipe = asdict(ensemble.runs[0].config.recipe)
    labels, scores = as_measured(metric, frames[0]["label"].to_numpy(np.float64), scores, recipe)
    ids = tuple(frames[0].index)
    counts = Draw.of(ids, replicates).counts
    figures = figures_of(DevPredictions(metric, ids, labels, scores), counts).T.astype(np.float64)
    for run, figure in zip(ensemble.runs, figures[:, 0], strict=False):
        _check(run, f"dev/{task}/{metric}", figure)
    return np.where(np.isnan(figures), figures[:, :1], figures)


def _check(run: Run, key: str, figure: float) -> None:
    stated = run.metrics[key]
    if stated is not None and not abs(stated - figure) <= TOLERANCE:
        raise InputError(f"{run.directory}: predictions give {key} {figure:.4f}; result.json says {stated:.4f}")


def listings(ensemble: Ensemble, figures: dict[str, Figures]) -> tuple[Listing, Listing]:
    """Figures of the runs, of their mean and of the ensemble; and what it gains over the best run and the mean."""
    own = own_overrides([run.record for run in ensemble.runs])
    runs = [" ".join((run.directory.name, *words)) for run, words in zip(ensemble.runs, own, strict=True)]
    average = figures[AVERAGE_COLUMN.metric][:-1, 0]
    best = int(np.where(np.isnan(average), -np.inf, average).argmax())
    names = [key.removeprefix("dev/").replace("/", " ") for key in figures]
    lines = {name: slice(index, index + 1) for index, name in enumerate(runs)}
    lines |= {"mean of the runs": slice(0, -1), "ensemble": slice(-1, None)}
    rows: list[tuple[Value, ...]] = [
        (name, *(_shown(float(each[which, 0].mean())) for each in figures.values())) for name, which in lines.items()
    ]
    first = Listing(f"Dev figures of {len(runs)} runs, alone and averaged", ("run", *names), rows, signed=False)
    others = {f"the best run, {runs[best]}": slice(best, best + 1), "the mean of the runs": slice(0, -1)}
    gains = [
        (name, figure, *_gain(each[-1:], each[which].mean(0, keepdims=True)))
        for name, which in others.items()
        for figure, each in zip(names, figures.values(), strict=True)
    ]
    header = ("the ensemble less", "figure", "difference", "low", "high")
    return first, Listing("What averaging gains", header, gains, NOTES, merged=1)


def _gain(ensemble: Figures, other: Figures) -> tuple[Value, Value, Value]:
    if np.isnan(ensemble[0, 0] - other[0, 0]):
        return UNDEFINED, None, None
    estimate = combine([(1.0, ensemble), (-1.0, other)], paired=True)
    return estimate.value, estimate.low, estimate.high


def _shown(figure: float) -> Value:
    return UNDEFINED if np.isnan(figure) else figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert ensemble``."""
    parser.add_argument("names", metavar="RUN", nargs="*", help="directories of finished runs, or their names")
    add_run_arguments(parser)
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """``mtbert ensemble``: figures of runs averaged. Needs their dev predictions; no weights."""
    if bool(args.names) == bool(args.experiments):
        raise InputError("expected either runs, or --experiments with their names (`mtbert runs` lists what is there)")
    if args.names and any((args.runs, args.scale, args.encoder, args.recipe)):
        raise InputError("--runs, --scale, --encoder and --recipe go with --experiments, not with runs by name")
    ensemble = Ensemble([load(name) for name in args.names] or _of_experiments(args))
    put(listings(ensemble, measure(ensemble)), args)
    return 0


def _of_experiments(args: argparse.Namespace) -> Sequence[Run]:
    return [load(record.directory) for record in chosen_runs(args, beside=()).done]
