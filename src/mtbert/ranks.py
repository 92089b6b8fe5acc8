"""The processes of one run: rank 0 is the run's own, and starts the others.

Only rank 0 claims the run, writes and says anything. The others (``mtbert.follow``) read the run's ``config.yaml``, go
through the same phases, and end with it, however it ends. Nothing is told them on a command line of the user's: a run
of a multirun, a notebook or a test starts them just the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import torch.distributed as dist
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtbert.data.updates import Share
from mtbert.distributed import world_size
from mtbert.errors import LOST, OUT_OF_MEMORY, InputError, explain, lost_connection, out_of_memory
from mtbert.plan import Plan
from mtbert.rundir import record_failure
from mtbert.runtime import Runtime
from mtbert.terminal import tell

GRACE = 10.0  # seconds for a process to end by itself


@contextmanager
def started(plan: Plan) -> Iterator[Callable[[], None]]:
    """Start the run's other processes, if it has any; they are ended with the block.

    What is given waits until they are ready and joins them.

    Raises:
        Exception: what ended one of them, where that ended the block too.
    """
    if plan.runtime.devices == 1:
        yield lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="mtbert-") as folder:
        others = [_Other(plan, rank, folder) for rank in range(1, plan.runtime.devices)]
        over = threading.Event()
        threading.Thread(target=_watch, args=[plan, others, folder, over], daemon=True).start()
        try:
            yield partial(_join_others, plan.runtime, others, folder)
        except Exception as error:
            if (reason := _theirs(others, error)) is not None:
                raise reason from None
            raise
        finally:
            over.set()
            for other in others:
                other.end()
            if dist.is_initialized():
                dist.destroy_process_group()


def _join_others(runtime: Runtime, others: list[_Other], folder: str) -> None:
    for other in others:
        other.wait_until_ready()
    join(runtime, 0, folder)


def join(runtime: Runtime, rank: int, folder: str) -> None:
    """Come together with the run's other processes, which know one another by a file in ``folder``."""
    store = dist.FileStore(str(Path(folder) / "store"), runtime.devices)
    if runtime.accelerator != "cuda":  # they are all on this machine: nobody else is to reach them
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = loopback
    dist.init_process_group(_backend(runtime), store=store, rank=rank, world_size=runtime.devices)


def _backend(runtime: Runtime) -> str:
    return "nccl" if runtime.accelerator == "cuda" else "gloo"


def share(plan: Plan) -> Share | None:
    """This process's share of the rows; None where it is alone.

    Raises:
        InputError: the run is to have several processes, which nobody has started.
    """
    if plan.runtime.devices == 1:
        return None
    if not dist.is_initialized():
        raise InputError(f"config: trainer.devices={plan.runtime.devices}; this command trains in one process")
    return Share(dist.get_rank(), plan.runtime.devices)


def wait_for_all() -> None:
    """Go on when all processes are here: what rank 0 has written by now is there for the others."""
    if world_size() > 1:
        dist.barrier()


class _Other:
    """A process of rank 1 or up. It ends when its standard input does: with this process."""

    def __init__(self, plan: Plan, rank: int, folder: str) -> None:
        self.name = f"process {rank + 1} of {plan.runtime.devices}"
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtbert.follow", str(plan.directory), str(rank), folder],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        if not self.process.stdout.read(1):
            self.process.wait()
            raise self.reason()

    def reason(self) -> Exception:
        """Why it ended, as this process's own error of that kind."""
        status = self.process.returncode
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        said = f"{self.name}: {lines[-1] if lines else 'ended without a reason'}"
        if status in (-signal.SIGKILL, OUT_OF_MEMORY):
            return MemoryError(said if status > 0 else f"{self.name} was killed")
        return InputError(said if status > 0 else f"{self.name} was ended by signal {-status}")

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


def _theirs(others: list[_Other], error: Exception) -> Exception | None:
    """The reason of the one that failed, where ``error`` is but what is seen of it from here: a lost connection."""
    if not lost_connection(error) or out_of_memory(error):
        return None
    for other in others:
        try:
            other.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return None  # it waits for this process
    first = _first(others)
    return None if first is None else first.reason()


def _first(others: list[_Other]) -> _Other | None:
    """The one that failed by itself; where there is none, one that has lost the others."""
    failed = [other for other in others if other.process.poll()]
    return min(failed, key=lambda other: other.process.returncode == LOST, default=None)


def _watch(plan: Plan, others: list[_Other], folder: str, over: threading.Event) -> None:
    """End this process where one of the others has failed and it does not notice, waiting for it in NCCL or for it to
    join; what is on disk is whole at any moment."""
    while not over.wait(1):
        if _first(others) is None:
            continue
        if over.wait(GRACE):
            return
        first = _first(others)
        assert first is not None
        line, status = explain(first.reason())
        record_failure(plan, line)
        tell(f"mtbert: {line}")
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(status)


class Environment(LightningEnvironment):
    """Tells Lightning which of the run's processes this is, and that they are all there."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self.rank

    def teardown(self) -> None:
        """The processes stay together: a run has several phases."""


class Strategy(DDPStrategy):
    """DDP among processes that have joined already, of which rank 0 alone writes checkpoints, whenever it likes."""

    def __init__(self, runtime: Runtime, rank: int) -> None:
        super().__init__(
            cluster_environment=Environment(rank),
            process_group_backend=_backend(runtime),
            find_unused_parameters=True,  # of tasks that take no part in a step
            gradient_as_bucket_view=True,
        )

    def _configure_launcher(self) -> None:
        """None, so that the run's number of threads stays."""

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        wrapped = super()._setup_model(model)
        wrapped.require_backward_grad_sync = getattr(model, "surgery", None) is None  # it averages gradients itself
        return wrapped

    def barrier(self, name: str | None = None) -> None:
        if name != "Trainer.save_checkpoint":
            super().barrier(name)
