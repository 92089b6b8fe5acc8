"""Run directories: who works on one, whether it is done, and runs that are the same under two names."""

from __future__ import annotations

import dataclasses
import logging
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mtbert.errors import InputError, Taken
from mtbert.paths import LAST, PREVIOUS, made
from mtbert.plan import Plan
from mtbert.results.archive import take_over
from mtbert.results.folders import archives
from mtbert.results.record import RESULT_FILE, FailedRun, RunRecord
from mtbert.terminal import tell

logger = logging.getLogger(__name__)

IN_STUDY = "MTBERT_IN_STUDY"  # set for the runs of a study


def now() -> str:
    """The time in UTC, as records state it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def command_line(overrides: Sequence[str], arguments: Sequence[str] = ()) -> str:
    """The command that makes a run."""
    return shlex.join(["mtbert", "train", *arguments, *overrides])


def _lock(plan: Plan) -> FileLock:
    locks = made(Path(plan.config.runs_dir), "MTBERT_RUNS or runs_dir") / ".locks"
    locks.mkdir(exist_ok=True)
    return FileLock(locks / f"{plan.hash}.lock")


def is_claimed(plan: Plan) -> bool:
    """Whether a process is making this run."""
    lock = _lock(plan)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """Hold a run, so that two studies on one folder do no work twice; a process that dies lets go.

    Raises:
        Taken: somebody else holds it, and this process belongs to a study, which has other runs to make.
    """
    lock = _lock(plan)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if IN_STUDY in os.environ:
            raise Taken(f"{plan.directory.name}: another process is making this run") from None
        tell(f"{plan.directory.name}: another process is making this run; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def finished(plan: Plan) -> RunRecord | None:
    """The record of this run if it was ever finished, under whatever experiment name; its own name first.

    Looked for among the runs, then in the archive, ``$MTBERT_ARCHIVE``.
    """
    for folder in (Path(plan.config.runs_dir), *archives()):
        for directory in _directories(plan, folder):
            if (path := directory / RESULT_FILE).exists():
                try:
                    record = RunRecord.from_file(path)
                    record.original()  # is there
                    return record
                except InputError as error:
                    logger.warning("%s; the run is made again", error)
    return None


def _directories(plan: Plan, folder: Path) -> Iterator[Path]:
    """Where the run may stand, under whatever experiment name; its own first, without a look through the others."""
    yield folder / plan.directory.name
    if folder.is_dir():
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(f"-{plan.hash}"))
        yield from (folder / name for name in names if name != plan.directory.name)


def begun(plan: Plan) -> Path | None:
    """The directory with a checkpoint to go on from, under whatever experiment name; its own first."""
    for directory in _directories(plan, Path(plan.config.runs_dir)):
        if any((directory / checkpoint).exists() for checkpoint in (LAST, PREVIOUS)):
            return directory
    return None


def make_ready(plan: Plan) -> None:
    """Make the run's directory, with what an earlier process has left.

    What was begun under another name goes on under the plan's; its checkpoints move last, for who is cut off here.
    Files that a killed process was writing are removed.
    """
    source, target = begun(plan), plan.directory
    target.mkdir(parents=True, exist_ok=True)
    if source is not None and source != target:
        _move(source, target)
    for pattern in (".*.part", ".tmp*"):  # ours, and those of safetensors inside them
        for path in target.rglob(pattern):
            path.unlink()


def _move(source: Path, target: Path) -> None:
    logger.warning("%s is the same run, half made: it goes on as %s", source.name, target.name)
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name == LAST.parent.name):
        if (there := target / entry.name).is_dir():
            shutil.rmtree(there)
        entry.replace(there)
    source.rmdir()


def record_alias(plan: Plan, record: RunRecord, overrides: Sequence[str], arguments: Sequence[str] = ()) -> RunRecord:
    """Record a finished run under the plan's name too, so that each experiment has its row in the table.

    One of the archive is first copied to the plan's runs, with the run that it may be the same as.

    Args:
        overrides: what made the plan; they, not those of the run itself, say which row it is.
        arguments: of the command line beside them.
    """
    runs = Path(plan.config.runs_dir)
    if record.directory.parent.resolve() != runs.resolve():
        for run in dict.fromkeys((record.original(), record.directory)):
            take_over(run, runs)
        record = dataclasses.replace(record, directory=runs / record.directory.name)
    if record.directory == plan.directory:
        return record
    alias = dataclasses.replace(
        record,
        experiment=plan.config.name,
        same_as=record.same_as or record.directory.name,
        command=command_line(overrides, arguments),
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
