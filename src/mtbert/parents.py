"""The finished runs that a run is made from: its teachers, ``methods.distill.runs``, or those that it averages,
``methods.soup``. No torch here, plans need their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtbert.errors import InputError
from mtbert.model.sources import resolve
from mtbert.results.comparable import differences
from mtbert.results.record import RESULT_FILE

if TYPE_CHECKING:
    from mtbert.config import Config
    from mtbert.run import Run

TEACHERS, SOUP = "methods.distill.runs", "methods.soup"
KNOWN: dict[tuple[Path, int], Run] = {}  # with their configs, which a study reads for each of its runs otherwise


def find_teachers(config: Config) -> list[Run]:
    """The teachers, each once, in an order that does not depend on how they are named.

    Raises:
        InputError: no such run; one that shares no task with ``config``, or a task that none has.
    """
    runs = _load(config, TEACHERS, config.methods.distill.runs)
    for run in runs:
        if not set(run.tasks) & set(config.tasks):
            raise InputError(
                f"config: {TEACHERS}: {run.directory.name} has none of the tasks {', '.join(config.tasks)}"
            )
    for task in config.tasks if runs else ():
        if not any(task in run.tasks for run in runs):
            raise InputError(f"config: {TEACHERS}: no teacher has task '{task}'; expected one or more for each task")
    return runs


def find_ingredients(config: Config) -> list[Run]:
    """The runs whose weights are averaged, as ``find_teachers`` gives runs.

    Raises:
        InputError: no such run; a single one; one whose weights mean another thing than those of ``config``'s model.
    """
    runs = _load(config, SOUP, config.methods.soup or ())
    if len(runs) == 1:
        raise InputError(f"config: {SOUP} has one run; expected two different ones or more")
    models = [("this run", _model(config, resolve(config.encoder).weights_sha256))]
    models += [(run.directory.name, _model(run.config, run.record.encoder.sha256)) for run in runs]
    if found := differences(models):
        raise InputError(f"config: {SOUP}: weights of different models cannot be averaged, these differ in {found}")
    return runs


def _model(config: Config, weights_sha256: str | None) -> dict[str, str]:
    """What tells models apart whose weights may have the same shapes."""
    tasks = {
        f"task {name}": f"{task.definition or name}, head {task.head or 'as defined'}"
        for name, task in config.tasks.items()
    }
    return {
        "tasks": ", ".join(config.tasks),
        **tasks,
        "encoder weights": (weights_sha256 or "unknown")[:8],
        "encoder.pooling": config.encoder.pooling,
        "heads.share_layers": str(config.heads.share_layers),
    }


def _load(config: Config, key: str, names: Sequence[str]) -> list[Run]:
    """Runs by their directories or names, each once, by their hashes."""
    runs = [_found(config, key, name) for name in names]
    return sorted({run.record.hash: run for run in runs}.values(), key=lambda run: run.record.hash)


def _found(config: Config, key: str, name: str) -> Run:
    from mtbert.run import load  # pandas

    inside = Path(config.runs_dir) / name
    try:
        run = load(inside if inside.is_dir() else name)
    except InputError as error:
        raise InputError(f"config: {key}: {error}") from None
    return KNOWN.setdefault((run.directory.resolve(), (run.directory / RESULT_FILE).stat().st_mtime_ns), run)
