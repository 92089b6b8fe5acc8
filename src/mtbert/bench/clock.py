"""Timings that bear comparison: contestants take turns, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

Seconds = tuple[float, float]  # by the clock; of processor time over all threads


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated work: by the clock, and of processor time over all threads."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __truediv__(self, parts: int) -> Timing:
        return Timing([seconds / parts for seconds in self.wall], [seconds / parts for seconds in self.cpu])

    @property
    def seconds(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(self.cpu)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the wall times; with a single one, that one twice."""
        if len(self.wall) == 1:
            return self.wall[0], self.wall[0]
        low, _, high = statistics.quantiles(self.wall, n=4, method="inclusive")
        return low, high


def take_turns(work: Mapping[str, Callable[[int], Seconds]], repeats: int, warm_up: int) -> dict[str, Timing]:
    """Let every contestant work ``repeats`` times, each round in another order, after ``warm_up`` rounds that do not
    count.

    A contestant is called with the number of the round, below 0 while warming up, so that all of them get the same
    input in a round; it returns its seconds.
    """
    timings = {name: Timing() for name in work}
    for turn in range(-warm_up, repeats):
        for name in _order(list(work), turn):
            wall, cpu = work[name](turn)
            if turn >= 0:
                timings[name].wall.append(wall)
                timings[name].cpu.append(cpu)
    return timings


def _order(names: Sequence[str], turn: int) -> list[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def timed(call: Callable[[], object], device: torch.device) -> Seconds:
    """How long a call takes, what it started on the device included."""
    _synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    _synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
