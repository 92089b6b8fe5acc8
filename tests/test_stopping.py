"""Signals in training: a checkpoint and the end, or in a cluster's job a checkpoint and whatever the cluster does."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mtbert.checkpoints import Checkpoints
from mtbert.config import TrainerConfig
from mtbert.errors import Stopped
from mtbert.stopping import deferred_signals


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Signals that the cluster's handlers got, as those of submitit in a Slurm job."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    earlier = {number: signal.signal(number, lambda n, frame: received.append(n)) for number in numbers}
    yield received
    for number, handler in earlier.items():
        signal.signal(number, handler)


class Saves:
    """A recorder that counts its checkpoints."""

    count = 0

    def save(self, trainer: Any) -> None:
        self.count += 1


def test_the_warning_of_a_cluster_is_handed_on_after_the_checkpoint(heard: list[int]) -> None:
    saves = Saves()
    with pytest.raises(Stopped), deferred_signals() as stop:
        callback = Checkpoints(cast(Any, saves), TrainerConfig(), stop)
        signal.raise_signal(signal.SIGUSR2)
        assert heard == []
        callback.on_validation_batch_end(cast(Any, None))
    assert (saves.count, heard) == (1, [signal.SIGUSR2])


def test_a_job_that_is_about_to_be_killed_goes_on_after_a_checkpoint(heard: list[int]) -> None:
    saves = Saves()
    with deferred_signals() as stop:
        callback = Checkpoints(cast(Any, saves), TrainerConfig(), stop)
        signal.raise_signal(signal.SIGTERM)
        for _ in range(3):
            callback.on_validation_batch_end(cast(Any, None))
    assert (saves.count, heard) == (1, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_run_of_ones_own_stops(number: signal.Signals) -> None:
    saves = Saves()
    with pytest.raises(Stopped) as stopped, deferred_signals() as stop:
        callback = Checkpoints(cast(Any, saves), TrainerConfig(), stop)
        signal.raise_signal(number)
        callback.on_validation_batch_end(cast(Any, None))
    assert (saves.count, stopped.value.number) == (1, number)
