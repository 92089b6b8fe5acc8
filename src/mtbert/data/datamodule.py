"""Lightning data modules: one for each dataset, and one that mixes what an experiment asks for."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from mtbert.config import Config, DatasetConfig
from mtbert.data.rows import read_rows
from mtbert.data.schedules import Schedule, Sequential, Step, TaskBatches
from mtbert.data.table import SpecialTokens, Table
from mtbert.data.tokens import tokenize
from mtbert.data.updates import EvaluationUpdates, Reduction, TrainingUpdates, Update
from mtbert.errors import InputError, nearest
from mtbert.model.pretrained import EncoderFiles, load_tokenizer, resolve
from mtbert.plan import Phase, Plan, max_rows, row_factor
from mtbert.seeding import derive, generator
from mtbert.tasks import find_task, import_path

logger = logging.getLogger(__name__)


class DatasetModule(LightningDataModule):
    """One dataset: loads, checks, rescales and tokenises its files.

    After ``setup``, ``tables[split]`` holds the rows and ``report[split]`` says how many there were, how many are
    used and how many were dropped, by reason.
    """

    def __init__(self, name: str, config: Config, folder: Path, files: EncoderFiles) -> None:
        super().__init__()
        self.name, self.config, self.folder, self.files = name, config, folder, files
        self.dataset: DatasetConfig = config.datasets[name]
        self.tables: dict[str, Table] = {}
        self.report: dict[str, dict[str, Any]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read all splits (tokens come from the cache where it has them); a missing test file is left out."""
        tokenizer = load_tokenizer(self.files)
        special = SpecialTokens(self.files.cls_id, self.files.sep_id, self.config.encoder.max_length)
        for split, names in self.dataset.files.items():
            paths = [self.folder / name for name in names]
            if split == "test":
                paths = [path for path in paths if path.is_file()]
            if paths:
                self._read(split, paths, tokenizer, special)

    def _read(self, split: str, paths: Sequence[Path], tokenizer: Any, special: SpecialTokens) -> None:
        tables, dropped, available = [], {}, 0
        for path in paths:
            rows = read_rows(path, self.dataset, labelled=split != "test")
            sentences = tokenize(path, self.dataset, rows.sentences, tokenizer, self.files.tokenizer_sha256)
            table = Table(np.array(rows.ids, dtype=object), rows.labels, tuple(sentences), special)
            tables.append(table.take(np.flatnonzero(rows.used)))
            available += len(rows.used)
            for reason, count in rows.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        if dropped:
            counts = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            logger.warning("%s %s: rows dropped: %s", self.name, split, counts)
        table = self._subset(split, Table.concatenate(tables))
        self.tables[split] = table
        self.report[split] = {"available": available, "used": len(table), "dropped": dropped}

    def _subset(self, split: str, table: Table) -> Table:
        """The share of rows that the scale keeps, drawn once and for all, in file order."""
        scale = self.config.scale
        factor = row_factor({"train": scale.train_rows, "dev": scale.dev_rows}.get(split, {}), self.name)
        return take_some(table, round(factor * len(table)), self.config, self.name, split)

    def train_dataloader(self) -> DataLoader[Update]:
        """This dataset alone, in batches of the config's size, shuffled anew each epoch."""
        return self._mixed().train_dataloader()

    def val_dataloader(self) -> DataLoader[Update]:
        return self._mixed().val_dataloader()

    def _mixed(self) -> MixedDataModule:
        mixed = MixedDataModule(self.config, self.folder, self.files, only=[self])
        mixed.trainer = self.trainer
        mixed.setup()
        return mixed


class MixedDataModule(LightningDataModule):
    """The datasets of an experiment, joined by task, served as the updates that the current phase's schedule draws."""

    def __init__(
        self, config: Config, folder: Path, files: EncoderFiles, only: Sequence[DatasetModule] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        every = [DatasetModule(name, config, folder, files) for name in config.datasets] if only is None else only
        self.datasets = {dataset.name: dataset for dataset in every}
        self.tasks = [t for t in config.tasks if any(d.dataset.task == t for d in self.datasets.values())]
        self.tables: dict[tuple[str, str], Table] = {}
        default = {"_target_": f"{Sequential.__module__}.{Sequential.__name__}"}
        self.phase = Phase("main", default, config.epochs, config.batch_size, config.lr, (), "last", True)

    @classmethod
    def from_plan(cls, plan: Plan) -> MixedDataModule:
        return cls(plan.config, plan.folder, resolve(plan.config.encoder))

    def setup(self, stage: str | None = None) -> None:
        if self.tables:
            return
        for dataset in self.datasets.values():
            if not dataset.tables:
                dataset.setup(stage)
        first = 0
        for split in ("train", "dev", "test"):
            for task in self.tasks:
                parts = [d.tables[split] for d in self._front_to_back() if d.dataset.task == task and split in d.tables]
                if parts:
                    table = self._cut(task, split, Table.concatenate(parts))
                    self.tables[split, task] = table.numbered(first)
                    first += table.num_sequences
                elif split != "test":
                    raise InputError(
                        f"config: task '{task}' has no {split} rows; expected a dataset with {split} files"
                    )

    def _front_to_back(self) -> list[DatasetModule]:
        """Additional datasets come before the provided ones, as in the published code."""
        return list(reversed(self.datasets.values()))

    def _cut(self, task: str, split: str, table: Table) -> Table:
        """The fixed choice of ``tasks.<task>.max_rows`` training rows, unless the recipe cuts each epoch afresh."""
        limit = max_rows(self.config).get(task)
        if split != "train" or limit is None or self.config.recipe.fresh_cut:
            return table
        return take_some(table, limit, self.config, task, "cut")

    @property
    def report(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Rows available, used and dropped: dataset -> split -> counts. Rows used are those the run may draw."""
        report = {
            name: {split: dict(counts) for split, counts in d.report.items()} for name, d in self.datasets.items()
        }
        for task, limit in max_rows(self.config).items():
            for name, dataset in self.datasets.items():
                if dataset.dataset.task == task:
                    report[name]["train"]["max_rows_of_task"] = limit
        return report

    def begin(self, phase: Phase) -> None:
        """Serve this phase from now on."""
        self.phase = phase

    def train_dataloader(self) -> DataLoader[Update]:
        """The current epoch's updates, in order. Reload it every epoch."""
        return self._loader(self.training_updates(self.trainer.current_epoch if self.trainer else 0))

    def training_updates(self, epoch: int) -> TrainingUpdates:
        """The updates of one epoch (from 0) of the current phase."""
        phase, config = self.phase, self.config
        steps = self.steps(epoch)
        divided = config.recipe.loss_division
        classification = {task: find_task(task, config.tasks[task]).classification for task in self.tasks}
        return TrainingUpdates(
            tables={task: self.tables["train", task] for task in self.tasks},
            steps=steps,
            reductions={t: Reduction(phase.batch_size, divided, classification[t]) for t in self.tasks},
            weights={task: config.tasks[task].weight for task in self.tasks},
            seeds=[derive(config.seed, phase.name, epoch, step) for step in range(len(steps))],
            packed=not phase.cached,
        )

    def steps(self, epoch: int) -> list[Step]:
        """What the phase's schedule draws in an epoch."""
        batches = {task: self._batches(task, epoch) for task in self.tasks}
        return build_schedule(self.phase.schedule).steps(epoch, batches)[: self.config.trainer.max_steps]

    def _batches(self, task: str, epoch: int) -> TaskBatches:
        phase, config, num_rows = self.phase, self.config, len(self.tables["train", task])

        def order(shuffle: int) -> np.ndarray:
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
        return self._loader(self.evaluation_updates(splits, packed=not self.phase.cached))

    def test_dataloader(self) -> DataLoader[Update]:
        return self._loader(self.evaluation_updates(("test",)))

    def evaluation_updates(self, splits: Sequence[str], packed: bool = True) -> EvaluationUpdates:
        """Every row of these splits once."""
        tables = {key: table for key, table in self.tables.items() if key[0] in splits}
        return EvaluationUpdates(tables, self.config.trainer.eval_tokens, packed)

    def _loader(self, updates: Any) -> DataLoader[Update]:
        return DataLoader(updates, batch_size=None, num_workers=self.config.trainer.num_workers)


def take_some(table: Table, count: int, config: Config, *key: str) -> Table:
    """A fixed choice of ``count`` rows (at least one), the same for every experiment and seed, in file order."""
    if count >= len(table):
        return table
    chosen = generator(config.data.subset_seed, "subset", *key).permutation(len(table))[: max(1, count)]
    return table.take(np.sort(chosen))


def build_schedule(spec: dict[str, Any]) -> Schedule:
    """The schedule that a config names.

    Raises:
        InputError: no such class, or an argument that its constructor does not take.
    """
    arguments = dict(spec)
    target = arguments.pop("_target_", None)
    if target is None:
        raise InputError("config: schedule has no _target_; expected the import path of a schedule class")
    schedule = import_path(target, "schedule._target_")
    known = inspect.signature(schedule).parameters
    for name in arguments:
        if name not in known:
            raise InputError(f"config: schedule.{name} is no argument of {target}{nearest(name, known)}")
    return schedule(**arguments)
