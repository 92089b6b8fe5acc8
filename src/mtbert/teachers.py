"""The finished runs that a run is to learn from: ``methods.distill.runs``. No torch here, plans need their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtbert.errors import InputError
from mtbert.results.record import RESULT_FILE

if TYPE_CHECKING:
    from mtbert.config import Config
    from mtbert.run import Run

KEY = "methods.distill.runs"
KNOWN: dict[tuple[Path, int], Run] = {}  # with their configs, which a study reads for each of its runs otherwise


def find_teachers(config: Config) -> list[Run]:
    """The teachers, each once, in an order that does not depend on how they are named.

    Raises:
        InputError: no such run; one that shares no task with ``config``, or a task that none has.
    """
    if not config.methods.distill.runs:
        return []
    runs = {run.record.hash: run for run in (_load(config, name) for name in config.methods.distill.runs)}
    for run in runs.values():
        if not set(run.tasks) & set(config.tasks):
            raise InputError(f"config: {KEY}: {run.directory.name} has none of the tasks {', '.join(config.tasks)}")
    for task in config.tasks:
        if not any(task in run.tasks for run in runs.values()):
            raise InputError(f"config: {KEY}: no teacher has task '{task}'; expected one or more for each task")
    return [runs[number] for number in sorted(runs)]


def _load(config: Config, name: str) -> Run:
    from mtbert.run import load  # pandas

    inside = Path(config.runs_dir) / name
    try:
        run = load(inside if inside.is_dir() else name)
    except InputError as error:
        raise InputError(f"config: {KEY}: {error}") from None
    return KNOWN.setdefault((run.directory.resolve(), (run.directory / RESULT_FILE).stat().st_mtime_ns), run)
