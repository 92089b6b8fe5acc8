"""Training steps, side by side, each contestant in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch

from mtbert.bench.clock import Seconds, Timing, take_turns, timed
from mtbert.bench.contestants import Ours, Peer, SetUp
from mtbert.bench.figures import OURS, Figure, times
from mtbert.bench.measures import Bench
from mtbert.bench.workload import Setting, Workload
from mtbert.model.encoder import BertEncoder
from mtbert.process import keep_freed_memory

MATMUL, MATMUL_SIZE = "matmul", 1536
GPU_MATMUL_SIZE = 8192  # smaller ones do not fill it
COPY, COPY_NUMBERS = "copy", 2**28
SMALL_BATCH, ROUND_ROBIN_BATCH = 8, 88  # 88: what a step of row [10] takes of Quora, 11 batches of 8
ADAMW_BYTES = 28  # of a float32 parameter in a step: weight and both moments read and written, the gradient read
STEPS, WARM_UP = 4, 4  # steps in a row are a contestant's turn; so many turns until it has met its usual shapes


def step(bench: Bench) -> list[Figure]:
    """A training step of ready batches, and its share of what the machine's matrix products reach.

    Each contestant has a process, as in training, so that it finds only its own memory and kernels again.
    """
    workload, figures = bench.workload, []
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        pools = {who: stack.enter_context(ProcessPoolExecutor(1, context)) for who in bench.everybody}
        for who, setup in bench.everybody.items():
            pools[who].submit(_take_part, bench.setting, setup).result()
        on_gpu = workload.device.type == "cuda"
        for size in (workload.config.batch_size, SMALL_BATCH, *([ROUND_ROBIN_BATCH] if on_gpu else [])):
            for pool in pools.values():
                pool.submit(_prepare, size).result()
            work: dict[str, Callable[[int], Seconds]] = {who: partial(_turn_of, pool) for who, pool in pools.items()}
            machine = {MATMUL: matmul(workload), **({COPY: copy(workload)} if on_gpu else {})}
            timings = take_turns(
                work | {name: bench.clocked(call) for name, call in machine.items()}, bench.repeats, WARM_UP
            )
            ceilings = {name: timings.pop(name) for name in machine}
            timings = {who: timing / STEPS for who, timing in timings.items()}
            figures += times("step", f"{size} pairs", timings)
            figures += _shares(workload, size, timings[OURS], ceilings[MATMUL])
            if on_gpu:
                figures += _floor(workload, size, timings[OURS], ceilings)
    return figures


def _shares(workload: Workload, size: int, ours: Timing, product: Timing) -> list[Figure]:
    side = _matmul_size(workload)
    products = _operations(workload, size) / (2 * side**3)  # that a step comes to
    share, by_cpu = products * product.seconds / ours.seconds, products * product.cpu_seconds / ours.cpu_seconds
    speeds = [2e-9 * side**3 / seconds for seconds in (product.seconds, product.cpu_seconds)]
    return [
        Figure("step, share of matmul speed", f"{size} pairs", OURS, 100 * share, "%", None, 100 * by_cpu),
        Figure("matmul speed meanwhile", f"{side} cubed", "", speeds[0], "GFLOP/s", None, speeds[1]),
    ]


def _floor(workload: Workload, size: int, ours: Timing, ceilings: Mapping[str, Timing]) -> list[Figure]:
    """What a step would take if it were large matrix products and the optimiser's traffic, nothing else."""
    products = _operations(workload, size) / (2 * _matmul_size(workload) ** 3)
    parameters = sum(parameter.numel() for parameter in workload.encoder().parameters())
    copies = ADAMW_BYTES * parameters / (8 * COPY_NUMBERS)
    floor = products * ceilings[MATMUL].seconds + copies * ceilings[COPY].seconds
    return [
        Figure("step, floor", f"{size} pairs", "", 1e3 * floor, "ms"),
        Figure("step, times its floor", f"{size} pairs", OURS, ours.seconds / floor, "x"),
        Figure(
            "copy speed meanwhile",
            f"{4 * COPY_NUMBERS:,} bytes",
            "",
            8e-9 * COPY_NUMBERS / ceilings[COPY].seconds,
            "GB/s",
        ),
    ]


def _operations(workload: Workload, size: int) -> float:
    """6 a weight and real token that is multiplied with it: forward and backward."""
    tokens = float(np.mean([workload.train.num_tokens()[rows].sum() for rows in workload.batches(size)]))
    pooled = size * workload.train.num_sequences / len(workload.train)
    all_slots, pooled_slots = matmul_weights(workload.encoder())
    return 6 * (all_slots * tokens + pooled_slots * pooled)


def _matmul_size(workload: Workload) -> int:
    return GPU_MATMUL_SIZE if workload.device.type == "cuda" else MATMUL_SIZE


def matmul(workload: Workload) -> Callable[[int], object]:
    """A large matrix product in the workload's precision."""
    dtype = torch.bfloat16 if workload.runtime.precision == "bf16-mixed" else torch.float32
    side = _matmul_size(workload)
    a, b = torch.randn(2, side, side, device=workload.device, dtype=dtype)
    return lambda _: a @ b


def copy(workload: Workload) -> Callable[[int], object]:
    """A copy of many float32 numbers within the device's memory."""
    source = torch.randn(COPY_NUMBERS, device=workload.device)
    target = torch.empty_like(source)
    return lambda _: target.copy_(source)


def matmul_weights(encoder: BertEncoder) -> tuple[int, int]:
    """The layers' weights that every token is multiplied with, and those that first tokens alone are."""
    weights = sum(parameter.numel() for parameter in encoder.layers.parameters() if parameter.dim() == 2)
    if encoder.pooling == "mean":
        return weights, 0
    last = dict(encoder.layers[-1].named_parameters())
    after = sum(last[f"{name}.weight"].numel() for name in ("attention.output", "intermediate", "output"))
    return weights - after, after


PART: dict[str, Any] = {}  # what the process of a contestant keeps between its turns


def _take_part(setting: Setting, setup: SetUp | None) -> None:
    keep_freed_memory()  # as training does; peers get it too
    workload = setting.workload()
    PART.update(workload=workload, contestant=Ours(workload) if setup is None else Peer(workload, setup))


def _prepare(size: int) -> None:
    PART["batches"] = batches = PART["workload"].batches(size)
    PART["contestant"].prepare(batches)


def _turn_of(pool: ProcessPoolExecutor, turn: int) -> Seconds:
    return pool.submit(_steps, turn).result()


def _steps(turn: int) -> Seconds:
    numbers = [number % len(PART["batches"]) for number in range(turn * STEPS, (turn + 1) * STEPS)]
    return timed(lambda: [PART["contestant"].step(number) for number in numbers], PART["workload"].device)
