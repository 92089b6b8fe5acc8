"""What needs a process of its own: start-up time, peak memory, and what a whole ``Trainer.fit`` adds to its steps."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback

from mtbert.bench.clock import Timing
from mtbert.bench.contestants import Contestant, Ours, Peer, SetUp
from mtbert.bench.figures import OURS, Figure, times
from mtbert.bench.measures import Bench
from mtbert.bench.workload import Setting, Workload
from mtbert.callbacks import Recorder
from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.model.encoder import BertConfig, BertEncoder
from mtbert.module import MultitaskModule, build_module
from mtbert.plan import make_plan
from mtbert.process import keep_freed_memory
from mtbert.runtime import find_runtime

MEMORY_STEPS = 3
STARTUP_REPEATS = 3
FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
from mtbert.cli import main
sys.exit(main(["train", *sys.argv[1:]]) or 1)
"""


def startup(bench: Bench) -> list[Figure]:
    """From the start of ``mtbert train`` over all rows, tokens cached, to its first optimiser step."""
    overrides, timing = bench.setting.composition(), Timing()
    config = compose(overrides)
    MixedDataModule.from_plan(make_plan(config, find_runtime(config.trainer))).setup()  # fills the cache
    for _ in range(min(bench.repeats, STARTUP_REPEATS)):
        with tempfile.TemporaryDirectory() as runs:
            command, before = [sys.executable, "-c", FIRST_STEP, *overrides, f"runs_dir={runs}"], os.times()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = os.times()
        timing.wall.append(after.elapsed - before.elapsed)
        timing.cpu.append(sum(after[2:4]) - sum(before[2:4]))  # of children, user and system
    return times("start-up to the first step", "all rows", {OURS: timing})


def memory(bench: Bench) -> list[Figure]:
    """Peak memory of training steps: what a process grows by from before the model is there."""
    size, found = bench.workload.config.batch_size, {}
    for who, setup in bench.everybody.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found[who] = pool.submit(_peak_bytes, bench.setting, setup).result()
    return [
        Figure("peak memory of a step", f"{size} pairs", who, peak / 2**20, "MiB", against=_ratio(who, peak, found))
        for who, peak in found.items()
    ]


def _ratio(who: str, peak: int, found: dict[str, int]) -> float | None:
    return None if who == OURS else peak / found[OURS]


def _peak_bytes(setting: Setting, setup: SetUp | None) -> int:
    if setup is None:
        keep_freed_memory()  # as training does
    workload = setting.workload()
    batches = workload.batches(workload.config.batch_size)[:MEMORY_STEPS]
    before = 0 if workload.device.type == "cuda" else _resident_bytes()
    contestant: Contestant = Ours(workload) if setup is None else Peer(workload, setup)
    contestant.prepare(batches)
    for batch in range(len(batches)):
        contestant.step(batch)
    if workload.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return _peak_resident_bytes() - before


def _peak_resident_bytes() -> int:
    """Memory that this process held at most. Linux counts that of the one which started it too, but in this file."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident_bytes() -> int:
    """Memory that this process holds; Linux only, elsewhere what it held at most."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.is_file() else _peak_resident_bytes()


class StepClock(Callback):
    """When each step began, by the clock and in processor time."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.times.append((time.perf_counter(), time.process_time()))


def overhead(bench: Bench) -> list[Figure]:
    """What Lightning, our callbacks and the packing of batches add to a step.

    Measured with next to no encoder, where it is most of the time, and held against a step of the real one.
    """
    workload, every = bench.workload, bench.workload.config.trainer.log_every_n_steps
    timings = {"Trainer.fit": Timing(), "steps alone": Timing()}
    for _ in range(2):
        for who, seconds in (("Trainer.fit", _fitted(workload)), ("steps alone", _alone(workload))):
            for block in range(0, len(seconds) - every, every):  # each with one logged step
                wall, cpu = (statistics.fmean(column) for column in zip(*seconds[block : block + every], strict=True))
                timings[who].wall.append(wall)
                timings[who].cpu.append(cpu)
    ours, batches = Ours(workload), workload.batches(workload.config.batch_size)[: bench.repeats]
    ours.prepare(batches)
    real = bench.turns({OURS: lambda turn: ours.step(turn % len(batches))})[OURS]
    added = timings["Trainer.fit"].seconds - timings["steps alone"].seconds
    added_cpu = timings["Trainer.fit"].cpu_seconds - timings["steps alone"].cpu_seconds
    setting = f"{workload.config.batch_size} pairs"
    share = Figure("overhead, share of a step", setting, OURS, 100 * added / real.seconds, "%", None,
                   100 * added_cpu / real.cpu_seconds)  # fmt: skip
    return [Figure("overhead of a step", setting, OURS, 1e3 * added, "ms", None, 1e3 * added_cpu), share]


def _small(workload: Workload) -> MultitaskModule:
    shape = BertConfig(workload.encoder().config.vocab_size, 32, 1, 1, 32)
    return build_module(workload.config, BertEncoder(shape, workload.config.encoder.pooling)).to(workload.device)


def _fitted(workload: Workload) -> list[tuple[float, float]]:
    """Times of the steps of an epoch as ``mtbert train`` does it."""
    from mtbert.board import Board
    from mtbert.progress import Progress
    from mtbert.train import fit

    clock = StepClock()
    with tempfile.TemporaryDirectory() as runs:
        plan = make_plan(replace(workload.config, runs_dir=runs, epochs=1), workload.runtime)
        recorder = Recorder(plan.directory)
        with redirect_stderr(StringIO()):
            fit(
                plan,
                workload.data,
                _small(workload),
                recorder,
                [Progress(recorder, plan), Board(plan, recorder), clock],
            )
    return _intervals(clock.times)


def _alone(workload: Workload) -> list[tuple[float, float]]:
    """Times of the same steps with nothing around them, on batches that are ready."""
    ours, moments = Ours(workload, _small(workload)), []
    ours.prepare(workload.batches(workload.config.batch_size))
    for batch in range(len(ours.updates)):
        moments.append((time.perf_counter(), time.process_time()))
        ours.step(batch)
    return _intervals(moments)


def _intervals(moments: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(moments)]
