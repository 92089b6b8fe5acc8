"""Schedules: which batches of which tasks make up each optimiser step of an epoch.

A schedule of one's own is a class with a ``steps`` method like those here, named by its import path:
``schedule._target_=my_package.MySchedule``; its constructor's arguments are the config's other keys.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Int

from mtbert.errors import InputError, nearest

Batch = Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class Draw:
    """Batches of one task in one optimiser step: the task's loss is ``weight`` times the sum of theirs."""

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

    def shuffle(self, number: int = 0) -> list[Batch]:
        """All batches of one shuffle; the last one may be short."""
        rows = self.order(number)
        return [rows[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]


class Schedule(Protocol):
    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        """The optimiser steps of an epoch (counted from 0 within its phase), in order."""
        ...


@dataclass(frozen=True)
class Sequential:
    """Task after task, one batch a step (row [0])."""

    tasks: Sequence[str] | None = None  # which, in which order; None: all

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        chosen = list(tasks) if self.tasks is None else list(self.tasks)
        return [[Draw(task, [batch])] for task in chosen for batch in _known(task, tasks).shuffle()]


@dataclass(frozen=True)
class OneTaskPerEpoch:
    """Epoch ``n`` trains the ``n``-th task, round and round (the extra phase of row [12])."""

    tasks: Sequence[str] | None = None

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        chosen = list(tasks) if self.tasks is None else list(self.tasks)
        return Sequential([chosen[epoch % len(chosen)]]).steps(epoch, tasks)


@dataclass(frozen=True)
class RoundRobin:
    """Every step takes batches of every task, in proportion to their number (rows [10] and [11]).

    An epoch has as many steps as the smallest of the ``pace`` tasks has batches; each step takes
    ``ceil(batches / steps)`` batches of each task. ``normalize`` divides a task's summed losses by their number.
    A task whose rows are used up goes on with a new shuffle; with ``early_restart``, as in the published code, it
    does so before a step that would run past its end, and its last rows go unseen.
    """

    normalize: bool = False
    pace: Sequence[str] | None = None  # None: all tasks
    early_restart: bool = False

    def steps(self, epoch: int, tasks: Mapping[str, TaskBatches]) -> list[Step]:
        pace = list(tasks) if self.pace is None else list(self.pace)
        num_steps = min(len(_known(task, tasks)) for task in pace)
        draws = {task: self._draws(batches, num_steps) for task, batches in tasks.items()}
        return [
            [Draw(task, taken := next(draws[task]), 1 / len(taken) if self.normalize else 1.0) for task in tasks]
            for _ in range(num_steps)
        ]

    def _draws(self, batches: TaskBatches, num_steps: int) -> Iterator[list[Batch]]:
        each = math.ceil(len(batches) / num_steps)
        number, left = 0, deque(batches.shuffle(0))
        while True:
            taken: list[Batch] = []
            if self.early_restart and len(left) < each:
                number, left = number + 1, deque(batches.shuffle(number + 1))
            while len(taken) < each:
                if not left:
                    number, left = number + 1, deque(batches.shuffle(number + 1))
                taken.append(left.popleft())
            yield taken


def _known(task: str, tasks: Mapping[str, TaskBatches]) -> TaskBatches:
    if task not in tasks:
        raise InputError(f"config: schedule names task '{task}'{nearest(task, tasks)}")
    return tasks[task]
