"""``mtbert reproduce``: the paper's experiments as one study, then their table."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtbert.compose import compose
from mtbert.config import Config
from mtbert.errors import InputError
from mtbert.results.paper import BASELINE, experiment_names, paper_rows
from mtbert.rundir import finished
from mtbert.runtime import shared_out
from mtbert.terminal import clock, tell

if TYPE_CHECKING:
    from mtbert.plan import Plan

SCALES = ("sample", "quick", "paper")
PAPER_SEED = 11711
OWN_OPTIONS = {"scale": "--scale", "seed": "--seeds", "experiment": "--experiments"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert reproduce``."""
    add = parser.add_argument
    add("--scale", choices=SCALES, help="paper: all of it; quick: cut to half an hour; sample: embedded rows")
    add("--seeds", default=str(PAPER_SEED), help="one or several, e.g. 0,1,2 (default: the paper's, %(default)s)")
    add("--experiments", help="which, e.g. 0,12,final (default: the paper's thirteen rows and final)")
    add("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    add("overrides", nargs="*", help="Hydra overrides for every run, e.g. encoder=minilm-l6")


def main(args: argparse.Namespace) -> int:
    """Pick a scale, say what will be done and how long it takes, make what is missing, print the table.

    Raises:
        InputError: a name or value that is not known; or some runs failed (after the table).
    """
    experiments = _experiments(args.experiments)
    seeds = [_seed(text) for text in args.seeds.split(",")]
    for override in args.overrides:
        if (name := override.lstrip("+~").partition("=")[0]) in OWN_OPTIONS:
            raise InputError(f"{override}: expected {OWN_OPTIONS[name]} instead")
    if args.jobs < 1:
        raise InputError(f"--jobs {args.jobs}: expected a number above 0")
    scale, why = (args.scale, "asked for") if args.scale else pick_scale()
    tell(f"scale: {scale} ({why})")
    devices = compose([f"scale={scale}", *args.overrides]).trainer.devices
    shared = [f"scale={scale}", *shared_out(args.jobs, devices), *args.overrides]
    plans = [_plan(["experiment=" + name, f"seed={seed}", *shared]) for seed in seeds for name in experiments]
    _announce(plans, args.jobs)
    study = ["-m", f"experiment={','.join(experiments)}", f"seed={','.join(map(str, seeds))}", *shared]
    tell(f"study: mtbert train {shlex.join(study)}")
    failure = _run(study, args.jobs)
    if BASELINE not in experiments:  # differences are to it
        beside = [_plan([f"experiment={BASELINE}", f"seed={seed}", *shared]) for seed in seeds]
        plans += [plan for plan in beside if finished(plan) is not None]
    _print_table(plans, all_rows=args.experiments is None)
    if failure:
        raise failure
    return 0


def pick_scale() -> tuple[str, str]:
    """The scale that suits this machine, and why."""
    import torch

    config = compose(["scale=quick", "experiment=final"])  # the one with all five datasets
    folder = Path(config.data.folder or "data")
    splits = [dataset.files.get(split, []) for dataset in config.datasets.values() for split in ("train", "dev")]
    wanted = [name for names in splits for name in names]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        where = "$MTBERT_DATA" if os.environ.get("MTBERT_DATA") else "./data, and MTBERT_DATA is not set"
        return "sample", f"no real rows: {missing[0]} is not in {where}; `make data` downloads them"
    if torch.cuda.is_available():
        return "paper", f"real rows and {torch.cuda.get_device_name()} found"
    return "quick", "real rows found, no CUDA GPU"


def _experiments(text: str | None) -> list[str]:
    known = list(dict.fromkeys(row.experiment for row in paper_rows()))
    if text is None:
        return known
    if not (chosen := experiment_names(text)):
        raise InputError(f"--experiments is empty; expected some of {', '.join(known)}")
    for name in chosen:
        if name.isdigit():  # Hydra takes it for a number and says so
            raise InputError(f"--experiments {name}: the paper has no such row; expected 0 to 12, or names")
    return chosen


def _seed(text: str) -> int:
    if not text.strip().isdigit():
        raise InputError(f"--seeds: '{text}' is no seed; expected whole numbers with commas between, e.g. 0,1,2")
    return int(text)


def _plan(overrides: Sequence[str]) -> Plan:
    from mtbert.plan import make_plan
    from mtbert.runtime import find_runtime

    config: Config = compose(overrides)
    return make_plan(config, find_runtime(config.trainer))


def _announce(plans: Sequence[Plan], jobs: int) -> None:
    """One line: what machine, how many runs are left, how long they should take."""
    from mtbert.estimate import estimate_seconds

    missing = list({plan.hash: plan for plan in plans if finished(plan) is None}.values())
    if not missing:
        return
    first = missing[0]
    what = f"{first.config.encoder.name} in {first.runtime.precision} on {first.runtime.device}"
    logging.getLogger("mtbert.data").setLevel(logging.ERROR)  # each run will say which rows it drops
    seconds = estimate_seconds(missing, jobs)
    about = f"about {clock(seconds)} (h:mm:ss)" if seconds >= 3600 else f"about {clock(seconds)} (m:ss)"
    together = f", {jobs} at a time" if jobs > 1 else ""
    tell(f"expected: {about} for {len(missing)} runs of {what}{together}")


def _run(study: Sequence[str], jobs: int) -> InputError | None:
    from mtbert import hydra_app
    from mtbert.study import StudyFailed

    try:
        hydra_app.main([*study, f"hydra.launcher.jobs={jobs}"])
    except StudyFailed as error:
        return error
    return None


def _print_table(plans: Sequence[Plan], all_rows: bool) -> None:
    """The table of what there is of ``plans``; ``all_rows``: with those of the paper's rows that are not among them."""
    from mtbert.results.folders import find_runs
    from mtbert.results.render import render_terminal
    from mtbert.results.table import table_of

    runs = find_runs(*dict.fromkeys(plan.directory for plan in plans if plan.directory.is_dir()))
    if runs.done or runs.failed:
        only = () if all_rows else tuple(plan.config.name for plan in plans)
        render_terminal(table_of(replace(runs, only=only)))
