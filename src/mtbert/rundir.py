"""Run directories: who works on one, whether it is done, and runs that are the same under two names."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mtbert.errors import InputError
from mtbert.plan import Plan
from mtbert.results.archive import take_over
from mtbert.results.record import RESULT_FILE, FailedRun, RunRecord, archives

logger = logging.getLogger(__name__)


def now() -> str:
    """The time in UTC, as records state it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def command_line(overrides: Sequence[str]) -> str:
    """The command that makes a run."""
    return shlex.join(["mtbert", "train", *overrides])


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """Hold a run, so that two studies on one folder do no work twice; a process that dies lets go."""
    locks = Path(plan.config.runs_dir) / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{plan.hash}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{plan.directory.name}: another process is making this run; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def finished(plan: Plan) -> RunRecord | None:
    """The record of this run if it was ever finished, under whatever experiment name; its own name first.

    Looked for among the runs, then in the archive, ``$MTBERT_ARCHIVE``.
    """
    folders = [Path(plan.config.runs_dir), *archives()]
    paths = [(number, path) for number, folder in enumerate(folders) for path in folder.glob(_results(plan))]
    for _, path in sorted(paths, key=lambda found: (found[0], found[1].parent.name != plan.directory.name, found[1])):
        try:
            return RunRecord.from_file(path)
        except InputError as error:
            logger.warning("%s; the run is made again", error)
    return None


def _results(plan: Plan) -> str:
    return f"*-{plan.hash}/{RESULT_FILE}"


def begun(plan: Plan) -> bool:
    """Whether there is a checkpoint to go on from."""
    return (plan.directory / "checkpoints" / "last.safetensors").is_file()


def record_alias(plan: Plan, record: RunRecord, overrides: Sequence[str]) -> RunRecord:
    """Record a finished run under the plan's name too, so that each experiment has its row in the table.

    One of the archive is first copied to the plan's runs, with the run that it may be the same as.

    Args:
        overrides: what made the plan; they, not those of the run itself, say which row it is.
    """
    runs = Path(plan.config.runs_dir)
    if record.directory.parent.resolve() != runs.resolve():
        original = record.directory.parent / (record.same_as or record.directory.name)
        for run in dict.fromkeys((original, record.directory)):
            take_over(run, runs)
        record = dataclasses.replace(record, directory=runs / record.directory.name)
    if record.directory == plan.directory:
        return record
    alias = dataclasses.replace(
        record,
        experiment=plan.config.name,
        same_as=record.same_as or record.directory.name,
        command=command_line(overrides),
        overrides=list(overrides),
    )
    plan.directory.mkdir(parents=True, exist_ok=True)
    alias.write(plan.directory)
    return dataclasses.replace(alias, directory=plan.directory)


def record_failure(plan: Plan, reason: str) -> None:
    """Leave ``failed.json`` where the result would be."""
    config = plan.config
    plan.directory.mkdir(parents=True, exist_ok=True)
    FailedRun(
        experiment=config.name,
        seed=config.seed,
        hash=plan.hash,
        reason=reason,
        when=now(),
        scale=config.scale.name,
        encoder=config.encoder.name,
        recipe=config.recipe.name,
    ).write(plan.directory)
