"""Runs in folders: where they are kept, and all that stand in one, finished or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mtbert.errors import InputError
from mtbert.results.record import FAILED_FILE, RESULT_FILE, RUN_NAME, FailedRun, RunRecord

HOW_TO_START = "start one with 'mtbert train' or all with 'make reproduce-table'"


@dataclass(frozen=True)
class BrokenRun:
    """A run whose files cannot be used, and why."""

    directory: Path
    reason: str


@dataclass
class Runs:
    """Everything in a folder of runs, or those of it that are of ``only`` these experiments. ``unfinished`` directories
    hold neither a result nor a failure."""

    done: list[RunRecord] = field(default_factory=list)
    failed: list[FailedRun] = field(default_factory=list)
    broken: list[BrokenRun] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    only: tuple[str, ...] = ()  # empty: all


def runs_dir() -> Path:
    """Where runs are kept unless told otherwise: ``$MTBERT_RUNS``, else ``./runs``."""
    return Path(os.environ.get("MTBERT_RUNS") or "runs")


def archives() -> list[Path]:
    """Where finished runs of others may stand, see ``mtbert archive``: the folder ``$MTBERT_ARCHIVE``, if set.

    Raises:
        InputError: there is no such folder.
    """
    folder = os.environ.get("MTBERT_ARCHIVE")
    if folder and not Path(folder).is_dir():
        raise InputError(f"MTBERT_ARCHIVE={folder}: no such folder of runs")
    return [Path(folder)] if folder else []


def find_runs(*folders: Path) -> Runs:
    """All runs below ``folders`` (each a folder of runs, or a run itself), in order of their names.

    Raises:
        InputError: a folder does not exist.
    """
    runs = Runs()
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of runs; {HOW_TO_START}")
        for directory in _run_directories(folder):
            _sort_in(directory, runs)
    return runs


def _run_directories(folder: Path) -> Iterator[Path]:
    named = RUN_NAME.fullmatch(folder.name) is not None
    if named or (folder / RESULT_FILE).exists() or (folder / FAILED_FILE).exists():
        yield folder
        return
    with os.scandir(folder) as entries:
        inside = [entry.name for entry in entries if _may_hold_runs(entry)]
    for name in sorted(inside):
        yield from _run_directories(folder / name)


def _may_hold_runs(entry: os.DirEntry[str]) -> bool:
    # Links are followed to runs only: one that leads to a folder above would never end.
    named = RUN_NAME.fullmatch(entry.name) is not None
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=named)


def _sort_in(directory: Path, runs: Runs) -> None:
    try:
        if (path := directory / RESULT_FILE).exists():
            runs.done.append(RunRecord.from_file(path))
        elif (path := directory / FAILED_FILE).exists():
            runs.failed.append(FailedRun.from_file(path))
        else:
            runs.unfinished.append(directory)
    except InputError as error:
        runs.broken.append(BrokenRun(directory, str(error).removeprefix(f"{directory}{os.sep}")))
    except OSError as error:
        runs.broken.append(BrokenRun(directory, f"cannot be read: {error.strerror}"))
