"""Schedules: which batches of which tasks make up each optimiser step of an epoch.

A schedule of one's own is a class with a ``steps`` method like those here, named by its import path:
``schedule._target_=my_package.MySchedule``; its constructor's arguments are the config's other keys. Two of them the
run gives where the constructor takes them: ``seed``, for all that the schedule draws, and ``epochs``, of its phase.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from mtbert.errors import InputError, nearest
from mtbert.imports import import_path
from mtbert.seeding import generator

Batch = Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class Draw:
    """Batches of one task in one optimiser step: the task's loss is ``weight`` times the sum of theirs.

    A step has at most one of each task.
    """

    task: str
    batches: list[Batch]
    weight: float = 1.0


Step = list[Draw]


@dataclass(frozen=True)
class TaskBatches:
    """A task's training rows as an epoch may draw them.

    ``order(n)`` gives the rows in the order of the epoch's ``n``-th shuffle; ``limit`` ends each shuffle after so
    many batches.
    """

    num_rows: int
    batch_size: int
    order: Callable[[int], Int[np.ndarray, " rows"]]
    limit: int | None = None

    def __len__(self) -> int:
        whole = math.ceil(self.num_rows / self.batch_size)
        return whole if self.limit is None else min(whole, self.limit)

    @property
    def rows_drawn(self) -> int:
        """Rows of one shuffle."""
        return min(self.num_rows, len(self) * self.batch_size)

    def shuffle(self, number: int = 0) -> list[Batch]:
        """All batches of one shuffle; the last one may be short."""
        rows = self.order(number)
        return [rows[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]


@runtime_checkable
class Schedule(Protocol):
    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        """The optimiser steps of an epoch (counted from 0 within its phase), in order."""
        ...


@dataclass(frozen=True)
class Sequential:
    """Task after task, one batch a step (row [0])."""

    tasks: Sequence[str] | None = None  # which, in which order; None: all

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        return [
            [Draw(task, [batch])] for task in _chosen(self.tasks, "tasks", tasks) for batch in tasks[task].shuffle()
        ]


@dataclass(frozen=True)
class OneTaskPerEpoch:
    """Epoch ``n`` trains the ``n``-th task, round and round (the extra phase of row [12])."""

    tasks: Sequence[str] | None = None

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        chosen = _chosen(self.tasks, "tasks", tasks)
        return Sequential([chosen[epoch % len(chosen)]]).steps(epoch, tasks)


@dataclass(frozen=True)
class RoundRobin:
    """Every step takes batches of every task, in proportion to their number (rows [10] and [11]).

    An epoch has as many steps as the smallest of the ``pace`` tasks has batches; each step takes
    ``ceil(batches / steps)`` batches of each task. ``normalize`` divides a task's summed losses by their number.
    A task whose rows are used up goes on with a new shuffle, so every row comes up at least once; with
    ``early_restart``, as in the published code, it does so before a step that would run past its end, and its last
    rows may go unseen.
    """

    normalize: bool = False
    pace: Sequence[str] | None = None  # None: all tasks
    early_restart: bool = False

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        num_steps = min(len(tasks[task]) for task in _chosen(self.pace, "pace", tasks))
        draws = {task: self._draws(batches, num_steps) for task, batches in tasks.items()}
        return [
            [Draw(task, taken := next(draws[task]), 1 / len(taken) if self.normalize else 1.0) for task in tasks]
            for _ in range(num_steps)
        ]

    def _draws(self, batches: TaskBatches, num_steps: int) -> Iterator[list[Batch]]:
        """The batches of one task, step after step."""
        each = math.ceil(len(batches) / num_steps)
        number, left = 0, deque(batches.shuffle(0))
        while True:
            taken: list[Batch] = []
            if self.early_restart and len(left) < each:
                left.clear()
            while len(taken) < each:
                if not left:
                    number += 1
                    left.extend(batches.shuffle(number))
                taken.append(left.popleft())
            yield taken


@dataclass(frozen=True)
class Sampled:
    """Every step takes a batch of one task, drawn with probability ``rows^a / sum of all tasks' rows^a``.

    ``a`` goes in equal steps from ``alpha`` in the first to ``last_alpha`` in the last epoch (Stickland & Murray 2019:
    1 to 0.2); a phase of one epoch stays at ``alpha``. An epoch has ``share`` of all tasks' batches as its number of
    steps; a task whose rows are used up goes on with a new shuffle.
    """

    alpha: float
    last_alpha: float | None = None  # None: as the first
    share: float = 1.0
    seed: int = 0
    epochs: int = 1

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise InputError(f"config: schedule.share={self.share}; expected a number above 0")
        for name, alpha in (("alpha", self.alpha), ("last_alpha", self.last_alpha)):
            if alpha is not None and not 0 <= alpha <= 10:
                raise InputError(f"config: schedule.{name}={alpha}; expected a number from 0 to 10")

    def probabilities(self, epoch: int, num_rows: Sequence[int]) -> np.ndarray:
        last = self.alpha if self.last_alpha is None else self.last_alpha
        exponent = self.alpha + (last - self.alpha) * epoch / max(1, self.epochs - 1)
        weights = np.array(num_rows, dtype=np.float64) ** exponent
        return weights / weights.sum()

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        names = list(tasks)
        num_steps = max(1, round(self.share * sum(len(batches) for batches in tasks.values())))
        odds = self.probabilities(epoch, [batches.rows_drawn for batches in tasks.values()])
        drawn = generator(self.seed, epoch).choice(len(names), size=num_steps, p=odds)
        sources = {name: _endless(batches) for name, batches in tasks.items()}
        return [[Draw(names[index], [next(sources[names[index]])])] for index in drawn]


def _endless(batches: TaskBatches) -> Iterator[Batch]:
    """Shuffle after shuffle."""
    for number in count():
        yield from batches.shuffle(number)


def takes_epochs(spec: Mapping[str, Any]) -> bool:
    """Whether a schedule's steps may depend on how many epochs its phase has."""
    found = import_path(str(spec["_target_"]), "schedule._target_")
    return "epochs" in inspect.signature(found).parameters


def build_schedule(spec: Mapping[str, Any], **given: int) -> Schedule:
    """The schedule that a config names; ``given`` are arguments for a constructor that takes them.

    Raises:
        InputError: no such class, arguments that its constructor does not take, or something that is no schedule.
    """
    arguments = dict(spec)
    target = arguments.pop("_target_", None)
    if not isinstance(target, str):
        raise InputError("config: schedule has no _target_; expected the import path of a schedule class")
    found = import_path(target, "schedule._target_")
    if not (isinstance(found, type) and hasattr(found, "steps")):  # nothing else that a path leads to is called
        raise InputError(f"config: schedule._target_={target} has no method 'steps'; expected a schedule class")
    known: Mapping[str, Any] = {}
    try:
        known = inspect.signature(found).parameters
        arguments |= {name: value for name, value in given.items() if name in known and name not in arguments}
        inspect.signature(found).bind(**arguments)
    except (TypeError, ValueError) as error:
        unknown = [name for name in arguments if name not in known]
        hint = nearest(unknown[0], known) if unknown else ""
        raise InputError(f"config: schedule {target}: {error}{hint}") from None
    schedule: Schedule = found(**arguments)
    return schedule


def checked_steps(steps: Iterable[Step], tasks: Collection[str], where: str) -> list[Step]:
    """The steps, all of them; what a schedule of one's own may get wrong is refused.

    Raises:
        InputError: no steps, one that is no list of Draws or empty, an unknown task, or one that is drawn twice or
            without rows.
    """
    if not isinstance(steps, Iterable):
        raise InputError(f"{where}: steps() gave {type(steps).__name__}; expected a list of steps")
    steps = list(steps)
    if not steps:
        raise InputError(f"{where}: no steps; expected one at least")
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, Sequence) or not all(isinstance(draw, Draw) for draw in step):
            raise InputError(f"{where}: step {number} is no list of Draws; expected such as [Draw('sst', [rows])]")
        drawn = [draw.task for draw in step]
        if not drawn:
            raise InputError(f"{where}: step {number} draws nothing; expected a Draw of one task at least")
        for draw in step:
            if draw.task not in tasks:
                raise InputError(f"{where}: step {number} draws task '{draw.task}'{nearest(draw.task, tasks)}")
            if drawn.count(draw.task) > 1:
                raise InputError(
                    f"{where}: step {number} has two Draws of '{draw.task}'; expected one with all batches"
                )
            if not any(map(len, draw.batches)):
                raise InputError(f"{where}: step {number} draws no rows of '{draw.task}'; expected some")
    return steps


def _chosen(names: Sequence[str] | None, key: str, tasks: Mapping[str, TaskBatches]) -> list[str]:
    """The tasks that a schedule names, all if it names none."""
    if names is None:
        return list(tasks)
    if not names:
        raise InputError(f"config: schedule.{key} is empty; expected tasks, or null for all")
    for task in names:
        if task not in tasks:
            raise InputError(f"config: schedule.{key} names task '{task}'{nearest(task, tasks)}")
    return list(names)
