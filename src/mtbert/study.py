"""A study: the runs of a multirun, one process each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue

from mtbert import sharing
from mtbert.errors import OUT_OF_MEMORY, TAKEN, InputError, Stopped
from mtbert.plan import Plan
from mtbert.process import import_torchmetrics
from mtbert.results.record import FAILED_FILE, FailedRun
from mtbert.rundir import IN_STUDY, begun, finished, is_claimed, record_alias, record_failure
from mtbert.terminal import clock, tell

LABEL = "MTBERT_LABEL"  # what a run's progress lines open with
# Exit statuses of a run that was told to stop: no failure.
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP)
KILLED_FOR_MEMORY = (-signal.SIGKILL, OUT_OF_MEMORY)  # what the system does, and what a run itself says
PLAIN = "MTBERT_PLAIN"  # set where several runs write to one terminal: lines, no bars
Place = Mapping[str, str]  # environment variables of the runs that are made there


@dataclass(frozen=True)
class Job:
    """One run of a study, and the command line that makes it."""

    plan: Plan
    overrides: tuple[str, ...]


def places(jobs: int, gpus: Sequence[str], runs_per_gpu: int = 1, devices: int = 1) -> Sequence[Place]:
    """Where ``jobs`` runs at a time are made: each on ``devices`` GPUs of its own as far as there are any, in turn."""
    if not gpus:
        return [{}] * jobs
    groups = [",".join(gpus[i : i + devices]) for i in range(0, len(gpus) - devices + 1, devices)]
    return [{"CUDA_VISIBLE_DEVICES": group} for _ in range(runs_per_gpu) for group in groups][:jobs]


def run_study(jobs: Sequence[Job], where: Sequence[Place], arguments: Sequence[str] = ()) -> dict[str, str]:
    """Make every run that is not done yet; a failing one does not stop the others.

    Args:
        where: see ``places``; as many runs are made at a time.
        arguments: further command-line arguments that every run gets (``--config-dir ...``).

    Returns:
        Directory name -> reason, for each run that failed.

    Raises:
        InputError: a head, loss or schedule of one cannot be had; none is made then.
    """
    distinct = {job.plan.hash: job for job in reversed(jobs)}
    missing = [job for job in jobs if distinct[job.plan.hash] is job and finished(job.plan) is None]
    if missing:
        _check(missing)
    _announce(jobs, missing)
    failures = _Study(missing, where, arguments).run()
    for job in jobs:
        sharing.forget(job.plan)
        if (record := finished(job.plan)) is not None:
            record_alias(job.plan, record, job.overrides, arguments)
    return failures


def _check(jobs: Sequence[Job]) -> None:
    """What is wrong in one run is said before any starts; torch, which that takes, is loaded for runs to make alone."""
    import_torchmetrics()
    from mtbert.parts import check_parents, check_parts

    for job in jobs:
        check_parts(job.plan)
        check_parents(job.plan)


def start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """The process of a run."""
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)


class _Study:
    """Runs being made, one process each at every place; stopped together."""

    def __init__(self, jobs: Sequence[Job], where: Sequence[Place], arguments: Sequence[str]) -> None:
        self.left, self.where, self.arguments = deque(jobs), where, arguments
        self.unfinished = {job.plan.hash for job in jobs}
        self.after = sharing.successions([job.plan for job in jobs])
        self.total, self.begun, self.ended = len(jobs), 0, 0
        self.again: SimpleQueue[Job] = SimpleQueue()  # killed for memory
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.failures: dict[str, str] = {}
        self.started = time.perf_counter()
        self.stopping = threading.Event()
        self.lock = threading.Lock()  # no process is started once stopping is set
        self.waited = False

    def run(self) -> dict[str, str]:
        pool = ThreadPoolExecutor(max_workers=len(self.where))
        try:
            threads = [pool.submit(self._work, place) for place in self.where]
            for future in wait(threads, return_when=FIRST_EXCEPTION).done:
                future.result()
            while not self.again.empty():
                self._make(self.again.get(), self.where[0], alone=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._stop()
            raise
        pool.shutdown()
        return self.failures

    def _work(self, place: Place) -> None:
        """Make runs, one after another, until none is left."""
        while not self.stopping.is_set() and self.left:
            if (job := self._next()) is None:
                self.stopping.wait(1)
            elif finished(job.plan) is None:
                self._make(job, place)
            else:
                self._count(job)

    def _next(self) -> Job | None:
        """A run that nobody is making and that waits for none to begin with; None where there is no such run."""
        with self.lock:
            ready = [job for job in self.left if self.after.get(job.plan.hash) not in self.unfinished]
            for job in ready:
                if not is_claimed(job.plan):  # looked at one by one: it takes a file
                    self.left.remove(job)
                    return job
            if ready and len(ready) == len(self.left) and not self.waited:
                self.waited = True
                names = ", ".join(job.plan.directory.name for job in self.left)
                tell(f"study: waiting for what another process is making: {names}")
            return None

    def _make(self, job: Job, place: Place, alone: bool = False) -> None:
        """One run; ``alone``: once more, with nothing beside it."""
        status = self._process(job, place, alone)
        if status in STOPPED:
            raise Stopped(status - 128)
        if self.stopping.is_set():  # however it ended, it was told to
            return
        if status == TAKEN:  # by another study, meanwhile
            with self.lock:
                self.left.append(job)
                self.begun -= 1
        elif status in KILLED_FOR_MEMORY and not alone:
            self.again.put(job)
            self.unfinished.discard(job.plan.hash)  # nobody waits for it
            text = "killed, for memory it seems; it will be tried once more, alone"
            tell(f"{job.plan.directory.name}: {text}")
        else:
            self._ended(job, status)

    def _process(self, job: Job, place: Place, alone: bool) -> int:
        """A run in a process of its own; its exit status."""
        less = ["trainer.num_workers=0"] if alone and job.plan.config.trainer.num_workers else []
        command = [sys.executable, "-m", "mtbert", "train", *self.arguments, *job.overrides, *less]
        with self.lock:
            if self.stopping.is_set():
                return 0
            self.begun += not alone
            label = f"[{self.begun}/{self.total}] {job.plan.config.name} s{job.plan.config.seed}"
            environment = {**os.environ, **place, LABEL: label}
            environment |= {PLAIN: "1"} if len(self.where) > 1 else {}
            environment |= {} if alone else {IN_STUDY: "1"}
            environment |= {sharing.KEEP: "1"} if job.plan.hash in self.after.values() else {}
            process = start(command, environment)
            self.processes.add(process)
        status = process.wait()
        self.processes.discard(process)
        return status

    def _ended(self, job: Job, status: int) -> None:
        self._count(job)
        if status:
            name, reason = job.plan.directory.name, _reason(job, status)
            self.failures[name] = reason
            tell(f"FAILED {name}: {reason}")
        elif self.ended < self.total:
            left = (time.perf_counter() - self.started) / self.ended * (self.total - self.ended)
            text = f"{self.ended} of {self.total} runs done, about {clock(left)} left"
            tell(f"study: {text}")

    def _count(self, job: Job) -> None:
        with self.lock:
            self.ended += 1
            self.unfinished.discard(job.plan.hash)

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
    half = sum(begun(job.plan) is not None for job in missing)
    same = len(jobs) - len({job.plan.hash for job in jobs})
    parts = [f"{len(jobs) - same - len(missing)} done", f"{len(missing) - half} to make", f"{half} to continue"]
    if same:
        parts.append(f"{same} the same as another")
    tell(f"study: {len(jobs)} runs: {', '.join(parts)}")


def _reason(job: Job, status: int) -> str:
    """Why a run's process ended with ``status``: what it recorded itself, else what can be seen from here."""
    try:
        return FailedRun.from_file(job.plan.directory / FAILED_FILE).reason
    except InputError:
        reason = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        if status in KILLED_FOR_MEMORY:
            reason += " (out of memory?)"
        record_failure(job.plan, reason)
        return reason


class StudyFailed(InputError):
    """Some runs of a study failed; the others are done. A line for each below the first."""

    def __init__(self, failures: Mapping[str, str], total: int) -> None:
        super().__init__("")
        self.failures = failures  # run -> reason
        lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
        self.args = (f"{len(failures)} of {total} runs failed:{lines}",)
