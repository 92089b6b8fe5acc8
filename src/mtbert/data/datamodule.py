"""The Lightning data module that mixes the datasets of an experiment as its schedule asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from mtbert.config import Config
from mtbert.data.dataset import DatasetModule, check_ids, special_tokens
from mtbert.data.loader import updates_loader
from mtbert.data.masking import TEXT, MaskedUpdates, text_table
from mtbert.data.packing import LITTLE_FILLER, row_shapes
from mtbert.data.schedules import Sequential, Step, TaskBatches, build_schedule, checked_steps
from mtbert.data.subset import some_rows
from mtbert.data.table import Table
from mtbert.data.updates import EvaluationUpdates, Reduction, Share, TrainingUpdates, Update
from mtbert.errors import InputError
from mtbert.model.sources import resolve
from mtbert.plan import Phase, Plan, max_rows
from mtbert.seeding import derive, generator
from mtbert.tasks import find_task


class MixedDataModule(LightningDataModule):
    """Datasets joined by task, served as the updates that the current phase's schedule draws.

    After ``setup``, ``tables[split, task]`` holds the rows and ``report`` says what became of each dataset's.
    """

    def __init__(self, config: Config, datasets: Sequence[DatasetModule]) -> None:
        super().__init__()
        self.config = config
        self.datasets = {dataset.name: dataset for dataset in datasets}
        self.files = datasets[0].files
        fed = {dataset.dataset.task for dataset in datasets}
        self.tasks = [task for task in config.tasks if task in fed]
        self.tables: dict[tuple[str, str], Table] = {}
        self.report: dict[str, dict[str, dict[str, Any]]] = {}
        self.phase = Phase(
            name="main",
            schedule={"_target_": f"{Sequential.__module__}.{Sequential.__name__}"},
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            freeze=(),
            start_from="last",
            encoder_dropout=True,
        )
        self.first = (0, 0)  # epoch, step
        self.share: Share | None = None  # of this process, where there are several
        self.row_shapes = LITTLE_FILLER  # of training updates

    @classmethod
    def from_plan(cls, plan: Plan) -> MixedDataModule:
        """All datasets of a run.

        Raises:
            InputError: a task has no training or no dev rows.
        """
        _check_splits(plan.config)
        files = resolve(plan.config.encoder)
        mixed = cls(
            plan.config, [DatasetModule(name, plan.config, plan.folder, files) for name in plan.config.datasets]
        )
        if plan.phases:
            mixed.begin(plan.phases[0])
        mixed.row_shapes = row_shapes(plan.runtime.accelerator)
        return mixed

    def setup(self, stage: str | None = None) -> None:
        if self.tables:
            return
        datasets = self.datasets.values()
        for dataset in datasets:
            dataset.setup(stage)
        self.report = {d.name: {split: dict(counts) for split, counts in d.report.items()} for d in datasets}
        first = 0
        for split in ("train", "dev", "test"):
            for task in self.tasks:
                if (table := self._join(split, task)) is not None:
                    if split == "dev":
                        check_ids(table, f"task '{task}'")
                    self.tables[split, task] = table.numbered(first)
                    first += table.num_sequences

    def _join(self, split: str, task: str) -> Table | None:
        """A task's rows; those of additional datasets come before the provided ones, as in the published code."""
        datasets = [d for d in reversed(self.datasets.values()) if d.dataset.task == task and split in d.tables]
        if not datasets:
            return None
        table = Table.concatenate([dataset.tables[split] for dataset in datasets])
        limit = max_rows(self.config).get(task)
        if split != "train" or limit is None or self.config.recipe.fresh_cut:
            return table
        rows = some_rows(len(table), limit, self.config, task, "cut")
        source = np.repeat(np.arange(len(datasets)), [len(dataset.tables[split]) for dataset in datasets])
        for dataset, used in zip(datasets, np.bincount(source[rows], minlength=len(datasets)), strict=True):
            self.report[dataset.name][split]["used"] = int(used)
        return table.take(rows)

    def begin(self, phase: Phase, epoch: int = 0, step: int = 0) -> None:
        """Serve this phase from now on; its ``epoch`` from ``step`` on, all others in full."""
        self.phase, self.first = phase, (epoch, step)

    def _reduction(self, task: str) -> Reduction:
        recipe = self.config.recipe
        if find_task(task, self.config.tasks[task]).classification:
            return Reduction(self.phase.batch_size, configured=recipe.configured_batch_size)
        return Reduction(self.phase.batch_size, divided=recipe.loss_division)

    def train_dataloader(self) -> DataLoader[Update]:
        """The current epoch's updates, in order. Reload it every epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        first_epoch, first_step = self.first
        first = first_step if epoch == first_epoch else 0
        return updates_loader(self.training_updates(epoch), self.config.trainer.num_workers, first)

    def training_updates(self, epoch: int) -> TrainingUpdates | MaskedUpdates:
        """The updates of one epoch (from 0) of the current phase; update ``i`` does not depend on those before it."""
        phase, config = self.phase, self.config
        steps, tables = self.steps(epoch), self.training_tables()
        seeds = [derive(config.seed, phase.name, epoch, step) for step in range(len(steps))]
        if not phase.trains_tasks:
            return MaskedUpdates(self.texts, steps, seeds, self.files, self.share)
        return TrainingUpdates(
            tables=tables,
            steps=steps,
            reductions={task: self._reduction(task) for task in tables},
            weights={task: config.tasks[task].weight for task in tables},
            seeds=seeds,
            packed=not phase.cached,
            share=self.share,
            shapes=self.row_shapes,
        )

    def steps(self, epoch: int) -> list[Step]:
        """What the phase's schedule draws in an epoch."""
        phase, batches = self.phase, {task: self._batches(task, epoch) for task in self.training_tables()}
        seed = derive(self.config.seed, phase.name, "schedule")
        schedule = build_schedule(phase.schedule, seed=seed, epochs=phase.epochs)
        where = f"schedule {phase.schedule['_target_']}: epoch {epoch + 1} of phase '{phase.name}'"
        return checked_steps(schedule.steps(epoch, batches), batches, where)[: self.config.trainer.max_steps]

    def num_steps(self) -> int:
        """Optimiser steps of the current phase, over all its epochs."""
        return sum(len(self.steps(epoch)) for epoch in range(self.phase.epochs))

    def training_tables(self) -> dict[str, Table]:
        """What the phase's schedule draws from, by task."""
        if not self.phase.trains_tasks:
            return {TEXT: self.texts}
        return {task: self.tables["train", task] for task in self.tasks if ("train", task) in self.tables}

    @cached_property
    def texts(self) -> Table:
        """The sentences that masked-LM training reads."""
        return text_table(self.tables, special_tokens(self.files, self.config))

    def _batches(self, task: str, epoch: int) -> TaskBatches:
        phase, config, num_rows = self.phase, self.config, len(self.training_tables()[task])

        def order(shuffle: int) -> Int[np.ndarray, " rows"]:
            if not config.data.shuffle:
                return np.arange(num_rows)
            return generator(config.seed, phase.name, epoch, task, shuffle).permutation(num_rows)

        limit = max_rows(config).get(task)
        if limit is not None and config.recipe.fresh_cut:  # the published code stops after this many batches
            return TaskBatches(num_rows, phase.batch_size, order, limit // phase.batch_size + 1)
        return TaskBatches(num_rows, phase.batch_size, order)

    def val_dataloader(self) -> DataLoader[Update]:
        """Dev rows, and train rows too where their metrics are taken after each epoch."""
        splits = ("dev", "train") if self.config.train_metrics == "epoch" else ("dev",)
        updates = self.evaluation_updates(splits, not self.phase.cached, self.share)
        return updates_loader(updates, self.config.trainer.num_workers)

    def transfer_batch_to_device(self, batch: Update, device: torch.device, dataloader_idx: int) -> Update:
        """To a GPU from pinned memory, so that the host goes on meanwhile."""
        return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)

    def test_dataloader(self) -> DataLoader[Update]:
        return updates_loader(self.evaluation_updates(("test",)), self.config.trainer.num_workers)

    def evaluation_updates(
        self, splits: Sequence[str], packed: bool = True, share: Share | None = None
    ) -> EvaluationUpdates:
        """Every row of these splits once."""
        tables = {key: table for key, table in self.tables.items() if key[0] in splits}
        return EvaluationUpdates(tables, self.config.trainer.eval_tokens, packed, share)


def _check_splits(config: Config) -> None:
    for task in config.tasks:
        for split in ("train", "dev"):
            if not any(dataset.task == task and dataset.files.get(split) for dataset in config.datasets.values()):
                raise InputError(f"config: task '{task}' has no {split} rows; expected a dataset with files.{split}")
