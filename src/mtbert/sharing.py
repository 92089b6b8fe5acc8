"""Work that runs of a study share: rows [1] and [12] begin with exactly [0]'s epochs, which are trained once.

A beginning is known by content: the digest of everything that decides the weights after so many epochs of a phase.
Whoever ends where others go on keeps its last checkpoint for them; they take it up as if it were their own, and
end with the numbers they would have had alone.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtbert.data.schedules import takes_epochs
from mtbert.errors import InputError
from mtbert.paths import BEST, LAST, PREVIOUS, atomic_write
from mtbert.plan import Plan, digest_of
from mtbert.results.record import RESULT_FILE, RunRecord

KEEP = "MTBERT_KEEP_LAST"  # set by a study for runs whose end is the beginning of others

logger = logging.getLogger(__name__)


def end(plan: Plan) -> str | None:
    """The digest of where a run ends; None where its epochs depend on how many there will be."""
    return _digest(plan, len(plan.phases) - 1, plan.phases[-1].epochs) if _open_ended(plan) else None


def beginnings(plan: Plan) -> Iterator[str]:
    """Digests of where a run stands after each of its epochs but the last, the latest first."""
    if not _open_ended(plan):
        return
    for index in reversed(range(len(plan.phases))):
        last = index == len(plan.phases) - 1
        for epochs in range(plan.phases[index].epochs - last, 0, -1):
            yield _digest(plan, index, epochs)


def _open_ended(plan: Plan) -> bool:
    """Whether no step depends on how many there will be."""
    optimizer, distill = plan.config.optimizer, plan.config.methods.distill
    constant = optimizer.lr_schedule == "constant" and optimizer.warmup == 0 and not distill.annealed
    return bool(plan.phases) and constant and not any(takes_epochs(phase.schedule) for phase in plan.phases)


def _digest(plan: Plan, index: int, epochs: int) -> str:
    """Of everything that decides the weights after ``epochs`` of phase ``index``: as the run's hash, cut off there."""
    phases = [*plan.identity["phases"][:index], {**plan.identity["phases"][index], "epochs": epochs}]
    return digest_of({**plan.identity, "phases": phases}, digits=20)


def _entry(plan: Plan, digest: str) -> Path:
    """The file that names the directory of the run which ends there."""
    return Path(plan.config.runs_dir) / ".shared" / digest


def leave(plan: Plan) -> None:
    """Say where this finished run, whose last checkpoint is kept, ended."""
    if (digest := end(plan)) is not None:
        with atomic_write(_entry(plan, digest)) as temporary:
            temporary.write_text(plan.directory.name)


def asked_to_keep() -> bool:
    """Whether the study that this process belongs to has runs that go on where this one ends."""
    return os.environ.get(KEEP) == "1"


def successions(plans: Sequence[Plan]) -> dict[str, str]:
    """Of the plans that can go on where another of them ends: hash -> hash of the longest such beginning."""
    ends = {end(plan): plan.hash for plan in plans}
    found = {plan.hash: next((ends[digest] for digest in beginnings(plan) if digest in ends), None) for plan in plans}
    return {one: other for one, other in found.items() if other is not None}


def take_up(plan: Plan) -> str | None:
    """Put the longest beginning that another run left where this run's own last checkpoint would be.

    Returns:
        The name of that run's directory; None if there is none, or this run has a checkpoint of its own.
    """
    if any((plan.directory / path).is_file() for path in (LAST, PREVIOUS)):
        return None
    for digest in beginnings(plan):
        if (found := _left(plan, digest)) is not None:
            try:
                _copy(found, plan.directory)
            except FileNotFoundError:  # another study has just tidied it away
                continue
            logger.info("goes on from the last epoch of %s", found.directory.name)
            return found.directory.name
    return None


def _left(plan: Plan, digest: str) -> RunRecord | None:
    """The run that ended there, if all that is needed of it is still in place."""
    try:
        directory = Path(plan.config.runs_dir) / _entry(plan, digest).read_text()
        record = RunRecord.from_file(directory / RESULT_FILE)
    except (OSError, InputError):
        return None
    kept = all((directory / path).is_file() for path in (LAST, BEST))
    return record if kept else None


def _copy(found: RunRecord, directory: Path) -> None:
    """Checkpoint and logs of one run into another's directory; the checkpoint last, it makes the rest count."""
    source = found.directory
    (directory / LAST.parent).mkdir(parents=True, exist_ok=True)
    best = LAST.with_name(f"best-{found.best.index}.safetensors")
    for path, target in ((BEST, best), (Path("metrics.csv"), Path("metrics.csv"))):
        if (source / path).is_file():
            shutil.copyfile(source / path, directory / target)
    if (source / "tensorboard").is_dir():
        shutil.copytree(source / "tensorboard", directory / "tensorboard", dirs_exist_ok=True)
    with atomic_write(directory / LAST) as temporary:
        shutil.copyfile(source / LAST, temporary)


def forget(plan: Plan) -> None:
    """Remove what ``leave`` left, and the checkpoints that the run's config does not keep."""
    if (digest := end(plan)) is None or not _entry(plan, digest).is_file():
        return
    _entry(plan, digest).unlink()
    dropped = {"none": (LAST, BEST), "best": (LAST,), "all": ()}[plan.config.keep]
    for path in dropped:
        (plan.directory / path).unlink(missing_ok=True)
