"""Which runs a command speaks of: the options that ``mtbert table`` and its kin share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mtbert.errors import InputError
from mtbert.results.comparable import pick, pick_experiments
from mtbert.results.folders import HOW_TO_START, Runs, find_runs, runs_dir
from mtbert.results.paper import BASELINE


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """``--runs``, ``--scale``, ``--encoder``, ``--recipe``, ``--experiments``."""
    add = parser.add_argument
    add(
        "--runs",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="folders of runs, or runs (else $MTBERT_RUNS, else ./runs)",
    )
    add("--scale", help="only runs of this scale")
    add("--encoder", help="only runs of this encoder")
    add("--recipe", help="only runs of this recipe")
    add("--experiments", metavar="NAMES", help="only runs of these, e.g. best,0,12; compared with the baseline, if any")


def chosen_runs(args: argparse.Namespace, *, beside: Sequence[str] = (BASELINE,)) -> Runs:
    """The runs that the options name; of experiments, those ``beside`` them too.

    Raises:
        InputError: a folder is not there, nothing has a wanted value, or there is no run at all.
    """
    folders = args.runs or [runs_dir()]
    runs = pick(find_runs(*folders), scale=args.scale, encoder=args.encoder, recipe=args.recipe)
    runs = pick_experiments(runs, args.experiments, beside=beside)
    if not runs.done and not runs.failed:
        raise InputError(_nothing_in(folders, runs))
    return runs


def _nothing_in(folders: Sequence[Path], runs: Runs) -> str:
    others = [f"{len(runs.unfinished)} unfinished"] * bool(runs.unfinished)
    others += [f"{run.directory.name}: {run.reason}" for run in runs.broken]
    found = f" ({'; '.join(others)})" if others else ""
    return f"{', '.join(map(str, folders))}: no finished runs{found}; {HOW_TO_START}"
