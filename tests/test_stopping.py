"""Signals in training: a checkpoint and the end, or in a cluster's job a checkpoint and whatever the cluster does."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_run_of_ones_own_stops(number: signal.Signals) -> None:
    saves = Saves()
    with pytest.raises(Stopped) as stopped, deferred_signals() as stop:
        callback = Checkpoints(cast(Any, saves), TrainerConfig(), stop)
        signal.raise_signal(number)
        callback.on_validation_batch_end(cast(Any, None))
    assert (saves.count, stopped.value.number) == (1, number)


IN_A_TERMINAL = """
import fcntl, sys, termios, time
from mtbert.callbacks import Recorder
from mtbert.cli import main
evaluated = Recorder._running
def slowly(self, module):  # between the last look at what was asked for and the epoch's line
    time.sleep(0.5)
    return evaluated(self, module)
Recorder._running = slowly
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def run_in_a_terminal(sighup: None, tiny_cache: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run of many epochs that has begun, and the other end of its terminal."""
    mine, its = pty.openpty()
    settings = ["experiment=smoke/tiny", "epochs=500", f"runs_dir={tmp_path}", "trainer.checkpoint_every_minutes=60"]
    run = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, "train", *settings],
        stdin=its, stdout=its, stderr=its, start_new_session=True, env={**os.environ, "MTBERT_CACHE": str(tiny_cache)},
    )  # fmt: skip
    os.close(its)
    shown = b""
    while b"epoch 2/" not in shown:
        shown += os.read(mine, 4096)
    yield run, mine
    run.kill()
    run.wait()


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.4])
def test_a_run_whose_terminal_is_closed_leaves_a_checkpoint(
    run_in_a_terminal: tuple[subprocess.Popen[bytes], int], tmp_path: Path, delay: float
) -> None:
    run, terminal = run_in_a_terminal
    time.sleep(delay)
    os.close(terminal)
    assert run.wait(timeout=120) == 128 + signal.SIGHUP
    assert list(tmp_path.glob("smoke.tiny-*/checkpoints/last.safetensors"))
    assert not list(tmp_path.glob("smoke.tiny-*/failed.json"))


def test_what_nohup_ignores_stays_ignored() -> None:
    asked = "import signal; from mtbert.cli import main; main(['--version']); signal.raise_signal(signal.SIGHUP)"
    done = subprocess.run(["nohup", sys.executable, "-c", asked], capture_output=True, text=True)
    assert (done.returncode, done.stdout.startswith("mtbert ")) == (0, True)
