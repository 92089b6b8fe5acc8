"""Kills two-run studies at random instants, continues them, and compares what they leave with an unbroken one.

    python -m tests.kill_harness --kills 100 --seed 0

One warm process forks every study, and a study its runs, so that none of them pays for imports or for composing a
run's config. What happens inside is counted in shared memory; the process that comes to the chosen event ends itself
or its study there, or a little later. Kills take turns: SIGKILL of the study with its run (power loss), SIGTERM of
the study, SIGINT of both (Ctrl-C in a terminal), SIGKILL of one process alone (out of memory).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gc
import json
import logging
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mtbert.callbacks
import mtbert.checkpoints
import mtbert.cli
import mtbert.hydra_app
import mtbert.paths
import mtbert.study
import mtbert.train
from mtbert.board import Board
from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.errors import Stopped, explain
from mtbert.evaluation import Evaluation
from mtbert.module import MultitaskModule
from mtbert.results.record import RunRecord

STUDY = (
    "-m",
    "experiment=smoke/tiny",
    "seed=1,2",
    "epochs=2",
    "phases.extra.epochs=2",
    "trainer.max_steps=3",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.checkpoint_every_steps=2",
    "trainer.log_every_n_steps=2",
    "scale.dev_rows.default=0.1",
    "keep=all",
)
# event -> the functions that it is made of: (where, name)
EVENTS: Mapping[str, Sequence[tuple[Any, str]]] = {
    "set-up": [(mtbert.train, "make_plan"), (MixedDataModule, "setup"), (mtbert.train, "build_module")],
    "step": [(MultitaskModule, "training_step"), (MultitaskModule, "optimizer_step")],
    "checkpoint": [
        (mtbert.checkpoints.SafetensorsIO, "save_checkpoint"),
        (mtbert.callbacks, "save_weights"),
        (mtbert.checkpoints, "save_file"),
        (mtbert.checkpoints, "read_checkpoint"),
        (mtbert.paths, "_sync_directory"),
        (Path, "replace"),
    ],
    "evaluation": [(MultitaskModule, "validation_step"), (Evaluation, "metrics")],
    "phase change": [
        (MultitaskModule, "begin"),
        (MultitaskModule, "cache_embeddings"),
        (mtbert.train, "build_trainer"),
        (mtbert.train, "load_weights"),
    ],
    "outputs": [(mtbert.train, "write_outputs"), (mtbert.train, "make_record"), (RunRecord, "write")],
}
CONFIGS: dict[str, Config] = {}  # of the runs, by seed
KINDS = ("SIGKILL of all", "SIGTERM", "SIGINT", "SIGKILL of one")
TIMING = ("seconds", "started", "progress/seconds")


class Shared:
    """What all processes of a study see: events by kind so far, the one under way, the chosen one."""

    FORMAT = struct.Struct(f"{len(EVENTS)}I3i")  # counts; under way, chosen event, chosen count (0: none left)

    def __init__(self, event: int = -1, count: int = 0) -> None:
        self.memory, self.hit = mmap.mmap(-1, self.FORMAT.size), mmap.mmap(-1, 1)
        self.write([0] * len(EVENTS), -1, event, count)

    def read(self) -> tuple[list[int], int, int, int]:
        *counts, now, event, count = self.FORMAT.unpack(self.memory[:])
        return counts, now, event, count

    def write(self, counts: Sequence[int], now: int, event: int, count: int) -> None:
        self.memory[:] = self.FORMAT.pack(*counts, now, event, count)

    def enter(self, event: int) -> tuple[int, bool]:
        """Another one begins; the one around it, and whether this is the chosen one."""
        counts, before, chosen, count = self.read()
        counts[event] += 1
        hit = chosen == event and counts[event] == count
        self.write(counts, event, chosen, 0 if hit else count)
        return before, hit

    def leave(self, before: int) -> None:
        counts, _, chosen, count = self.read()
        self.write(counts, before, chosen, count)

    @property
    def fired(self) -> bool:
        """Whether the chosen event came."""
        return self.read()[-1] == 0

    def mark(self) -> None:
        """Here it ends."""
        self.hit[0] = self.read()[1] + 2

    @property
    def marked(self) -> str:
        """The event that was under way at the end; the process can be done before it comes."""
        return ("too late", "between", *EVENTS)[self.hit[0]]


def watch(shared: Shared, end: Callable[[], None] | None, delay: float) -> None:
    """Count the events of this process and those that it forks; ``end`` at the chosen one, ``delay`` seconds later."""
    for index, functions in enumerate(EVENTS.values()):
        for owner, name in functions:
            setattr(owner, name, _watched(getattr(owner, name), shared, index, end, delay))


def _watched(function: Any, shared: Shared, index: int, end: Callable[[], None] | None, delay: float) -> Any:
    def finish() -> None:
        shared.mark()
        if end is not None:
            end()

    def watched(*arguments: Any, **options: Any) -> Any:
        before, hit = shared.enter(index)
        if hit:
            threading.Timer(delay, finish).start() if delay else finish()
        try:
            return function(*arguments, **options)
        finally:
            shared.leave(before)

    return watched


class Forked:
    """A run's process, forked instead of started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.status: int | None = None
        self.lock = threading.Lock()
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(environment)
            leave(lambda: make_run(command[4:]))  # behind `python -m mtbert train`

    def wait(self, timeout: float | None = None) -> int:
        with self.lock:
            if self.status is None:
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            return self.status

    def terminate(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGTERM)


def make_run(overrides: Sequence[str]) -> int:
    """As ``mtbert train`` does, with the config that is there already."""
    mtbert.cli._stop_on_signals()
    seed = next(override for override in overrides if override.startswith("seed="))
    try:
        mtbert.train.run(dataclasses.replace(CONFIGS[seed], runs_dir=os.environ["MTBERT_RUNS"]), overrides)
        return 0
    except (Exception, Stopped) as error:
        print(line := explain(error), file=sys.stderr)
        return line[1]


def leave(work: Callable[[], int]) -> None:
    """Do this, the last thing that the process does."""
    status = 70
    try:
        status = work()
    finally:
        sys.stderr.flush()
        os._exit(status)


def study(runs: Path, shared: Shared, kind: str | None = None, delay: float = 0.0) -> int:
    """The exit status of a study in ``runs``, killed at the chosen event."""
    return ended(begin(runs, shared, kind, delay))


def ended(study: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(study, 0)[1])


def begin(runs: Path, shared: Shared, kind: str | None = None, delay: float = 0.0, jobs: int = 1) -> int:
    """The process of a study."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        log = os.open(runs.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["MTBERT_RUNS"] = str(runs)
        mtbert.study.start = Forked  # type: ignore[assignment]
        Board._draw = lambda *_: None  # type: ignore[method-assign]  # half the time of such a small run
        watch(shared, _ending(kind, os.getpid()) if kind else None, delay)
        leave(lambda: mtbert.cli.main(["train", *STUDY, f"hydra.launcher.jobs={jobs}"]))
    return pid


def _ending(kind: str, study: int) -> Callable[[], None]:
    return {
        "SIGKILL of all": lambda: os.killpg(study, signal.SIGKILL),
        "SIGTERM": lambda: os.kill(study, signal.SIGTERM),
        "SIGINT": lambda: os.killpg(study, signal.SIGINT),
        "SIGKILL of one": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }[kind]


def differences(ours: Path, theirs: Path) -> list[str]:
    """In which files two folders of runs differ, times aside."""
    left, right = (_content(folder) for folder in (ours, theirs))
    return [name for name in sorted(left.keys() | right.keys()) if not _same(left.get(name), right.get(name))]


def _content(runs: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(runs.rglob("*")):
        name = str(path.relative_to(runs))
        if path.is_dir() or path.suffix == ".lock" or path.name in ("run.log", "hparams.yaml", "multirun.yaml"):
            continue
        if path.name == "result.json":
            found[name] = _without_times(json.loads(path.read_text()))
        elif path.suffix == ".safetensors":
            found[name] = load_file(path)
        elif path.name == "metrics.csv":
            with path.open(newline="") as file:
                found[name] = [_without_times(row) for row in csv.DictReader(file)]
        elif path.name.startswith("events."):
            found[str(path.parent.relative_to(runs))] = _scalars(path.parent)
        else:
            found[name] = path.read_bytes().replace(str(runs).encode(), b"")
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if key not in TIMING}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: (step, value) by tag."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in TIMING]
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    return shown | {tag: [(event.step, 0.0) for event in events.Images(tag)] for tag in events.Tags()["images"]}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict) and any(isinstance(v, np.ndarray) for v in one.values()):
        return one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)
    return one == other


def side_by_side(runs: Path, unbroken: Path) -> list[str]:
    """What differs where two studies make two runs at a time in one folder; a run made twice counts as well."""
    both = [begin(runs, Shared(), jobs=2) for _ in range(2)]
    found = [f"exit status {status}" for status in map(ended, both) if status]
    for log in runs.glob("*/run.log"):
        same = (unbroken / log.parent.name / "run.log").read_text().count(" INFO ")
        found += [f"{log}: trained twice"] if log.read_text().count(" INFO ") != same else []
    return found + differences(runs, unbroken)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of what was logged twice and is shown once
    folder = Path(tempfile.mkdtemp(prefix="mtbert-kills-"))
    os.environ.setdefault("MTBERT_CACHE", str(folder / "cache"))
    CONFIGS.update({seed: compose([*STUDY[1:2], seed, *STUDY[3:]]) for seed in ("seed=1", "seed=2")})
    gc.freeze()  # what is here is not looked through again in every fork
    unbroken = folder / "unbroken"
    for runs in (folder / "first", unbroken):  # the first one fills the cache, which is an event for every file
        shared, started = Shared(), time.perf_counter()
        if study(runs, shared) != 0:
            raise SystemExit(runs.with_suffix(".log").read_text())
    counts, seconds = shared.read()[0], time.perf_counter() - started
    print(f"an unbroken study: {seconds:.1f} s, {dict(zip(EVENTS, counts, strict=True))}", flush=True)
    together = side_by_side(folder / "together", unbroken)
    print(f"two studies at once, two runs at a time: {', '.join(together) or 'no difference'}", flush=True)
    bad = bool(together) + kill_all(folder, unbroken, counts, arguments.kills, random.Random(arguments.seed))
    print(f"{time.perf_counter() - started:.0f} s")
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad else 0


def kill_all(folder: Path, unbroken: Path, counts: Sequence[int], kills: int, draw: random.Random) -> int:
    """Make the kills, print what each hit and what it changed; how many of them changed anything."""
    hits, bad = Counter[tuple[str, str]](), 0
    for number in range(kills):
        kind, event = KINDS[number % len(KINDS)], draw.randrange(len(EVENTS))
        shared = Shared(event, draw.randint(1, counts[event]))
        delay = draw.choice([0.0, draw.uniform(0.0, 0.03)])
        runs = folder / f"kill-{number}"
        status = study(runs, shared, kind, delay)
        hit = shared.marked
        hits[kind, hit] += 1
        expected = {"SIGKILL of all": (-9,), "SIGTERM": (143,), "SIGINT": (130,), "SIGKILL of one": (0, -9)}[kind]
        found = [] if shared.fired else ["the event did not come"]
        found += [] if status in expected or (status == 0 and delay) else [f"exit status {status}"]
        again = study(runs, Shared())
        found += [f"exit status {again} when continued"] if again else []
        found += differences(runs, unbroken)
        bad += bool(found)
        print(f"{number + 1}/{kills}: {kind} in {hit}: {', '.join(found) or 'no difference'}", flush=True)
        if not found:
            shutil.rmtree(runs)
    for name in ("too late", "between", *EVENTS):
        print(f"{name:>12}: " + ", ".join(f"{kind} {hits[kind, name]}" for kind in KINDS))
    print(f"{kills} kills: {bad} with a difference")
    return bad


if __name__ == "__main__":
    raise SystemExit(main())
