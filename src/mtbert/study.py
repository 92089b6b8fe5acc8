"""A study: the runs of a multirun, one process each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mtbert.errors import InputError, Stopped
from mtbert.plan import Plan
from mtbert.results.record import FAILED_FILE, FailedRun
from mtbert.rundir import begun, finished, record_alias, record_failure
from mtbert.terminal import clock

LABEL = "MTBERT_LABEL"  # what a run's progress lines open with
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit statuses of a run that was told to stop: no failure
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
    failures = _Study(missing, parallel, arguments).run()
    for job in jobs:
        if (record := finished(job.plan)) is not None:
            record_alias(job.plan, record, job.overrides)
    return failures


class _Study:
    """Runs being made, so many processes at a time; stopped together."""

    def __init__(self, jobs: Sequence[Job], parallel: int, arguments: Sequence[str]) -> None:
        self.jobs, self.parallel, self.arguments = jobs, parallel, arguments
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.failures: dict[str, str] = {}
        self.started = time.perf_counter()
        self.stopping = threading.Event()
        self.lock = threading.Lock()  # no process is started once stopping is set

    def run(self) -> dict[str, str]:
        pool = ThreadPoolExecutor(max_workers=self.parallel)
        try:
            for future in [pool.submit(self._make, number, job) for number, job in enumerate(self.jobs, start=1)]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._stop()
            raise
        pool.shutdown()
        return self.failures

    def _make(self, number: int, job: Job) -> None:
        """One run, in a process of its own."""
        total = len(self.jobs)
        environment = os.environ | {LABEL: f"[{number}/{total}] {job.plan.config.name} s{job.plan.config.seed}"}
        if self.parallel > 1:
            environment[PLAIN] = "1"
        command = [sys.executable, "-m", "mtbert", "train", *self.arguments, *job.overrides]
        with self.lock:
            if self.stopping.is_set():
                return
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
            self.processes.add(process)
        status = process.wait()
        self.processes.discard(process)
        if status in STOPPED:
            raise Stopped(status - 128)
        if self.stopping.is_set():  # however it ended, it was told to
            return
        if status:
            name, reason = job.plan.directory.name, _reason(job, status)
            self.failures[name] = reason
            print(f"FAILED {name}: {reason}", file=sys.stderr, flush=True)
        elif number < total and self.parallel == 1:
            left = (time.perf_counter() - self.started) / number * (total - number)
            print(f"study: {number} of {total} runs done, about {clock(left)} left", file=sys.stderr, flush=True)

    def _stop(self) -> None:
        """End what is running, in order where it lets itself be ended."""
        with self.lock:
            self.stopping.set()
            running = list(self.processes)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def _announce(jobs: Sequence[Job], missing: Sequence[Job]) -> None:
    half = sum(begun(job.plan) for job in missing)
    same = len(jobs) - len({job.plan.hash for job in jobs})
    parts = [f"{len(jobs) - same - len(missing)} done", f"{len(missing) - half} to make", f"{half} to continue"]
    if same:
        parts.append(f"{same} the same as another")
    print(f"study: {len(jobs)} runs: {', '.join(parts)}", file=sys.stderr, flush=True)


def _reason(job: Job, status: int) -> str:
    """Why a run's process ended with ``status``: what it recorded itself, else what can be seen from here."""
    try:
        return FailedRun.from_file(job.plan.directory / FAILED_FILE).reason
    except InputError:
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
