"""A study: the runs of a multirun, one process each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mtbert.errors import InputError
from mtbert.plan import Plan
from mtbert.results.record import FAILED_FILE
from mtbert.rundir import begun, finished, record_alias, record_failure
from mtbert.terminal import clock

LABEL = "MTBERT_LABEL"  # what a run's progress lines open with
PLAIN = "MTBERT_PLAIN"  # set where several runs write to one terminal: lines, no bars


@dataclass(frozen=True)
class Job:
    """One run of a study, and the command line that makes it."""

    plan: Plan
    overrides: tuple[str, ...]


def run_study(jobs: Sequence[Job], parallel: int, arguments: Sequence[str] = ()) -> dict[str, str]:
    """Make every run that is not done yet; a failing one does not stop the others.

    Args:
        parallel: how many at a time.
        arguments: further command-line arguments that every run gets (``--config-dir ...``).

    Returns:
        Directory name -> reason, for each run that failed.
    """
    distinct = {job.plan.hash: job for job in reversed(jobs)}
    missing = [job for job in jobs if distinct[job.plan.hash] is job and finished(job.plan) is None]
    _announce(jobs, missing)
    failures: dict[str, str] = {}
    started = time.perf_counter()

    def make(numbered: tuple[int, Job]) -> None:
        number, job = numbered
        reason = _run_process(job, f"[{number}/{len(missing)}]", parallel, arguments)
        if reason is not None:
            failures[job.plan.directory.name] = reason
            print(f"FAILED {job.plan.directory.name}: {reason}", file=sys.stderr, flush=True)
        elif number < len(missing) and parallel == 1:
            left = (time.perf_counter() - started) / number * (len(missing) - number)
            print(f"study: {number} of {len(missing)} runs done, about {clock(left)} left", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(max_workers=parallel) as pool:
        list(pool.map(make, enumerate(missing, start=1)))
    for job in jobs:
        if (record := finished(job.plan)) is not None:
            record_alias(job.plan, record)
    return failures


def _announce(jobs: Sequence[Job], missing: Sequence[Job]) -> None:
    half = sum(begun(job.plan) for job in missing)
    same = len(jobs) - len({job.plan.hash for job in jobs})
    parts = [f"{len(jobs) - same - len(missing)} done", f"{len(missing) - half} to make", f"{half} to continue"]
    if same:
        parts.append(f"{same} the same as another")
    print(f"study: {len(jobs)} runs: {', '.join(parts)}", file=sys.stderr, flush=True)


def _run_process(job: Job, number: str, parallel: int, arguments: Sequence[str]) -> str | None:
    """Run one job in a process of its own; the reason if it failed."""
    environment = os.environ | {LABEL: f"{number} {job.plan.config.name} s{job.plan.config.seed}"}
    if parallel > 1:
        environment[PLAIN] = "1"
    command = [sys.executable, "-m", "mtbert", "train", *arguments, *job.overrides]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the run has got the signal too: let it close its files
        process.wait(timeout=60)
        raise
    return None if status == 0 else _reason(job, status)


def _reason(job: Job, status: int) -> str:
    if status == 130:
        raise KeyboardInterrupt
    try:
        return str(json.loads((job.plan.directory / FAILED_FILE).read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError):
        reason = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        if status == -9:
            reason += " (out of memory?)"
        record_failure(job.plan, reason)
        return reason


def forwarded(config_dirs: Sequence[Path]) -> list[str]:
    """Command-line arguments that hand the user's config folders on to every run."""
    return [part for folder in config_dirs for part in ("--config-dir", str(folder))]


class StudyFailed(InputError):
    """Some runs of a study failed; the others are done."""
