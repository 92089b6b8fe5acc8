"""Distillation: a run learns, beside the labels, what its teachers say about its training rows (Hinton et al. 2015).

Teachers are finished runs of any encoder and heads. Each reads the student's training rows once, before training;
their logits are kept in the cache. A task learns from the mean of the teachers that have it, so that single-task models
can teach one model all tasks (Clark et al. 2019, BAM!).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mtbert.cache import read_entry, write_entry
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.dataset import DatasetModule
from mtbert.data.table import Table
from mtbert.data.updates import TaskRows
from mtbert.errors import InputError
from mtbert.methods import DistillConfig
from mtbert.model.sources import cached_sha256
from mtbert.outputs import evaluate, watched
from mtbert.parents import TEACHERS
from mtbert.paths import cache_dir
from mtbert.plan import Plan
from mtbert.regularizers import log_probabilities
from mtbert.tasks import Task, find_task

if TYPE_CHECKING:  # pandas
    from mtbert.run import Run

ENTRY_FORMAT = 1  # raised whenever what is kept, or how it is computed, changes
Targets = Float[Tensor, "rows ..."]


class Teachers:
    """What the teachers say about each training row, by task, in the order of the run's tables.

    ``targets`` are their mean: softened probabilities of classes, scores of degrees.
    """

    def __init__(self, targets: Mapping[str, Targets], config: DistillConfig) -> None:
        self.targets, self.config = targets, config

    def mixed(
        self, task: Task, part: TaskRows, logits: Tensor, losses: Float[Tensor, " rows"], progress: float = 0.0
    ) -> Float[Tensor, " rows"]:
        """``(1 - w) loss + w distance``; ``progress`` from 0 to 1 through the phase, where w is annealed."""
        targets = self.targets[part.task][part.rows].to(logits.device)
        weight = self.config.weight * (1 - progress if self.config.annealed else 1)
        return (1 - weight) * losses + weight * distance(task, logits, targets, self.config.temperature)


def soften(task: Task, logits: Float[Tensor, "rows ..."], temperature: float) -> Targets:
    """``softmax(logits / T)``; the score where labels are degrees."""
    return task.score(logits) if task.graded else log_probabilities(task, logits.float() / temperature).exp()


def distance(task: Task, logits: Float[Tensor, "rows ..."], targets: Targets, temperature: float) -> Tensor:
    """``T^2 KL(targets || softmax(logits / T))``, whose gradients are of one size for every T; for degrees, the squared
    difference of scores."""
    if task.graded:
        return (task.score(logits) - targets).square()
    log_q = log_probabilities(task, logits.float() / temperature)
    return temperature**2 * F.kl_div(log_q, targets, reduction="none").sum(-1)


def learn_from(runs: Sequence[Run], plan: Plan, data: MixedDataModule) -> Teachers | None:
    """The teachers' outputs for the training rows of ``data``; None where there are no teachers.

    Raises:
        InputError: a teacher kept no weights, or a task of its that is not what the run has under that name.
    """
    if not runs:
        return None
    config, outputs = plan.config, dict[str, list[Tensor]]()
    for run in runs:
        for name, logits in _logits(run, plan, data).items():
            task = find_task(name, config.tasks[name])
            outputs.setdefault(name, []).append(soften(task, logits, config.methods.distill.temperature))
    means = {name: torch.stack(each).mean(0) for name, each in outputs.items()}
    return Teachers(means, config.methods.distill)


def _logits(run: Run, plan: Plan, data: MixedDataModule) -> dict[str, Tensor]:
    """A teacher's logits for all training rows of the tasks that it shares with the student."""
    own = _as_read_by(run, plan)
    tables = {name: own.tables["train", name] for name in own.tasks}
    for name, table in tables.items():  # which rows there are is for the data to say, not for who reads them
        assert table.ids.tolist() == data.tables["train", name].ids.tolist()
    entry = _entry(run, plan, tables)
    if (found := read_entry(entry)) is None:
        updates = watched(own, "train", f"teacher {run.directory.name}")
        outputs = evaluate(run.module, updates, plan.runtime.accelerator, plan.runtime.precision)
        run.__dict__.pop("module")  # its memory is the student's now
        found = {name: outputs.gathered(("train", name))[0].numpy() for name in tables}, ""
        write_entry(entry, *found)
    return {name: torch.from_numpy(array) for name, array in found[0].items()}


def _as_read_by(run: Run, plan: Plan) -> MixedDataModule:
    """The student's rows, as the teacher's encoder and heads read them."""
    config, theirs = plan.config, run.config.tasks
    shared = {name: options for name, options in config.tasks.items() if name in theirs}
    for name in shared:
        _check(name, run, config)
    tasks = {
        name: dataclasses.replace(options, definition=theirs[name].definition, head=theirs[name].head)
        for name, options in shared.items()
    }
    config = dataclasses.replace(config, encoder=run.config.encoder, tasks=tasks)
    feeding = [name for name, dataset in config.datasets.items() if dataset.task in tasks]
    data = MixedDataModule(config, [DatasetModule(name, config, plan.folder, run.encoder_files) for name in feeding])
    data.setup()
    return data


def _check(name: str, run: Run, config: Config) -> None:
    """Whether a task is to the teacher what it is to the student."""
    theirs, ours = (find_task(name, each.tasks[name]) for each in (run.config, config))
    for field in ("num_sentences", "num_outputs", "label_high", "graded"):
        found, expected = getattr(theirs, field), getattr(ours, field)
        if found != expected:
            where = f"{TEACHERS}: task '{name}' of {run.directory.name}"
            raise InputError(f"config: {where} has {field} {found}; expected {expected}")


def _entry(run: Run, plan: Plan, tables: Mapping[str, Table]) -> Path:
    """Where logits are kept: under who gives them, for which sequences, and on what they are computed."""
    runtime, digest = plan.runtime, hashlib.sha256()
    for table in tables.values():
        everything = np.arange(len(table))
        for sequences in (table.input_ids(everything), table.token_type_ids(everything)):
            digest.update(np.array([len(sequence) for sequence in sequences]).tobytes())
            digest.update(np.concatenate(sequences).tobytes())
    computed_on = [runtime.accelerator, runtime.precision, runtime.threads, plan.config.trainer.eval_tokens]
    teacher = [run.record.hash, cached_sha256(run.weights)]
    key = json.dumps([ENTRY_FORMAT, *teacher, *computed_on, list(tables), digest.hexdigest()])
    return cache_dir() / "teachers" / f"{run.record.hash}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
