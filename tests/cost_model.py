"""What a study of many runs costs beside its training: time for each run, each command, and files.

    python -m tests.cost_model --runs 10000

Results are made up (``synthetic_runs``), but stand where those of a real study would: the runs are planned as
``mtbert train -m`` does it. Then the same command skips them all, and ``mtbert table``, ``runs`` and ``claims`` read
them. What a run costs beside its steps is that of one with a single step of the smallest encoder.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mtbert.study
from mtbert.cli import main as mtbert_main
from mtbert.provenance import git_state
from mtbert.runtime import available_cores, processor
from mtbert.study import Job

sys.path.insert(0, str(Path(__file__).parent))  # where pytest has it too
from synthetic_runs import measured, record, store

EXPERIMENTS = 15  # of experiment=glob(*)
ONE_STEP = ("experiment=smoke/tiny", "phases.extra=null", "epochs=1", "trainer.max_steps=1", "trainer.threads=1")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--with-predictions", type=int, default=1000, help="so many for a table with intervals")
    arguments = parser.parse_args(argv)
    commit, dirty = git_state()
    print(f"{processor()}, {available_cores()} cores; commit {commit}{' and changes' if dirty else ''}\n")
    print("| what | runs | seconds | CPU seconds | CPU ms a run |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="mtbert-cost-") as folder:
        one_run(Path(folder) / "one")
        whole_study(Path(folder) / "many", arguments.runs)
        for number in range(arguments.with_predictions):
            name = f"made/{number % 100}" if number % 100 else "00_baseline"
            measured(Path(folder) / "predicted", name, seed=number // 100, rows=300)
        for command in ("table", "claims"):
            timed(f"{command}, dev predictions kept", arguments.with_predictions, Path(folder) / "predicted", command)
    return 0


def whole_study(runs: Path, number: int) -> None:
    """Plan, skip, read."""
    os.environ["MTBERT_RUNS"] = str(runs)
    study = ["train", "-m", "experiment=glob(*)", f"seed=range({-(-number // EXPERIMENTS)})", "trainer.threads=1"]
    jobs: list[Job] = []
    run_study: Any = mtbert.study.run_study
    mtbert.study.run_study = lambda planned, *_: jobs.extend(planned) or {}  # type: ignore[func-returns-value]
    measure("plan, nothing done", number, lambda: mtbert_main(study))
    for job in jobs:
        config = job.plan.config
        made = record(config.name, config.seed, hash=job.plan.hash, overrides=list(job.overrides))
        store(runs, made)
    mtbert.study.run_study = run_study
    measure("plan and skip, all done", len(jobs), lambda: mtbert_main(study))
    for command in ("table", "claims", "runs"):
        timed(command, len(jobs), runs, command)


def one_run(runs: Path) -> None:
    """A run of one step, the same once more, and what they leave."""
    for keep in ("best", "none"):
        overrides = (*ONE_STEP, f"keep={keep}", f"runs_dir={runs / keep}")
        for what in ("a run of one step", "the same, done already"):
            timed(f"{what}, keep={keep}", 1, runs / keep, "train", *overrides)
        files = [path for path in (runs / keep).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        print(f"| files: {len(files)}, {size / 1000:,.0f} kB, keep={keep} | 1 | | | |")


def timed(what: str, number: int, runs: Path, command: str, *rest: str) -> None:
    """A command in a process of its own."""
    line = [sys.executable, "-m", "mtbert", command, *rest]
    line += [] if rest else [str(runs)] if command == "runs" else ["--runs", str(runs)]
    measure(what, number, lambda: subprocess.run(line, check=True, capture_output=True))


def measure(what: str, number: int, work: Callable[[], object]) -> None:
    """A line of the table."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    work()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    print(f"| {what} | {number} | {wall:.1f} | {cpu:.1f} | {1000 * cpu / number:.1f} |", flush=True)


def _cpu_seconds() -> float:
    """Of this process and those that it waited for, user and system."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    raise SystemExit(main())
