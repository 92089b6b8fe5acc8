"""How long runs should take, from their tokens and this machine's speed; nothing is trained for it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from mtbert.data.datamodule import MixedDataModule
from mtbert.model.sources import read_json, resolve
from mtbert.plan import Phase, Plan
from mtbert.runtime import available_cores

STARTUP = 9.0  # seconds from a process's start to its first step, and from its last to its end
STEP = 0.015  # seconds of a training step beside its arithmetic: dropout, norms, optimiser, loop
FLOAT32 = 2.0  # times bfloat16, a pass on a CPU
EFFICIENCY = 0.5  # of the speed of large matrix products, what training and evaluation reach


def estimate_seconds(plans: Sequence[Plan], jobs: int = 1) -> float:
    """Seconds for all runs, ``jobs`` at a time where cores allow.

    Right to within a factor of about 1.5 on a CPU; on a GPU up to several times too high.
    """
    speed = EFFICIENCY * matmul_speed(plans[0])
    seconds = 0.0
    for plan in plans:
        data = loaded(plan)
        seconds += STARTUP + STEP * num_steps(plan, data) + operations(plan, data) / (speed * plan.runtime.devices)
    cores = plans[0].runtime.threads * plans[0].runtime.devices
    return seconds / max(1, min(jobs, len(plans), available_cores() // cores))


def loaded(plan: Plan) -> MixedDataModule:
    """The rows of a run."""
    data = MixedDataModule.from_plan(plan)
    data.setup()
    return data


def num_steps(plan: Plan, data: MixedDataModule) -> int:
    """Optimiser steps of a run."""
    steps = 0
    for phase in plan.phases:
        data.begin(phase)
        steps += data.num_steps()
    return steps


def operations(plan: Plan, data: MixedDataModule) -> float:
    """Floating point operations of a run: 6 for each encoder weight and token trained, 2 for each evaluated.

    Teachers count as encoders of the run's own size, read once.
    """
    parameters, methods = encoder_parameters(plan), plan.config.methods
    passes = 1 + (methods.r_drop > 0) + (methods.smart.weight > 0) * _smart_passes(plan)
    train, dev = (_tokens(data, split) for split in ("train", "dev"))
    trained = sum(_trained_tokens(data, phase) for phase in plan.phases)
    evaluated = sum(dev * (1 if phase.cached else phase.epochs) for phase in plan.phases if phase.trains_tasks)
    evaluated += train * len(methods.distill.runs) + dev * (not plan.phases)
    return parameters * (6.0 * passes * trained + 2.0 * evaluated)


def _smart_passes(plan: Plan) -> float:
    """What SMART adds to a step, in passes of the run's own precision: its own are float32."""
    ascents = plan.config.methods.smart.ascents
    return 1 + ascents if plan.runtime.precision == "32-true" else FLOAT32 * (2 + ascents)


def _tokens(data: MixedDataModule, split: str) -> int:
    return sum(int(table.num_tokens().sum()) for (each, _), table in data.tables.items() if each == split)


def _trained_tokens(data: MixedDataModule, phase: Phase) -> float:
    """Tokens that the encoder sees in training; a fixed one without dropout sees every row once, forward only."""
    data.begin(phase)
    tokens = {task: table.num_tokens() for task, table in data.training_tables().items()}
    if phase.cached:
        return sum(float(each.sum()) for each in tokens.values()) / 3
    steps = data.steps(0)
    drawn = sum(int(tokens[draw.task][np.concatenate(draw.batches)].sum()) for step in steps for draw in step)
    return float(drawn * phase.epochs)


def encoder_parameters(plan: Plan) -> float:
    """Weights in the encoder's matrix products."""
    config = read_json(resolve(plan.config.encoder).config)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return float(config["num_hidden_layers"] * (4 * hidden * hidden + 2 * hidden * inner))


def matmul_speed(plan: Plan, size: int = 768, seconds: float = 0.3) -> float:
    """Floating point operations a second of matrix products in the run's precision, in one process of it."""
    device = torch.device(plan.runtime.accelerator)
    dtype = torch.bfloat16 if plan.runtime.precision == "bf16-mixed" else torch.float32
    torch.set_num_threads(plan.runtime.threads)
    a = torch.randn(size, size, device=device, dtype=dtype)
    (a @ a).sum().item()  # warm
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        (a @ a)[0, 0].item()
        count += 1
    return 2.0 * size**3 * count / (time.perf_counter() - started)
