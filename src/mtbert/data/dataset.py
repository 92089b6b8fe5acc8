"""A Lightning data module for each dataset: its files read, checked, rescaled and tokenised."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from mtbert.config import Config
from mtbert.data.subset import some_rows
from mtbert.data.table import SpecialTokens, Table
from mtbert.data.tokens import Prepared, prepare
from mtbert.data.updates import Update
from mtbert.errors import InputError, nearest
from mtbert.model.sources import EncoderFiles, resolve
from mtbert.plan import data_folder, row_factor
from mtbert.tasks import find_task

if TYPE_CHECKING:
    from mtbert.data.datamodule import MixedDataModule

logger = logging.getLogger(__name__)


class DatasetModule(LightningDataModule):
    """One dataset: loads, checks, rescales and tokenises its files, and serves them on its own.

    After ``setup``, ``tables[split]`` holds the rows and ``report[split]`` says how many there were, how many are
    used and how many were dropped, by reason. A split without files is in neither.

    Args:
        folder: of the files; default: where the config says.
        files: of the encoder, whose tokenizer is used; default: the config's.

    Raises:
        InputError: no dataset of this name, or one that does not fit its task.
    """

    name: str

    def __init__(
        self, name: str, config: Config, folder: Path | None = None, files: EncoderFiles | None = None
    ) -> None:
        super().__init__()
        if name not in config.datasets:
            raise InputError(f"config: no dataset '{name}'{nearest(name, config.datasets)}")
        self.name, self.config = name, config
        self.dataset = config.datasets[name]
        self.task = find_task(self.dataset.task, config.tasks[self.dataset.task])
        if self.task.num_sentences != len(self.dataset.sentences):
            raise InputError(
                f"config: datasets.{name}.sentences={self.dataset.sentences}; task '{self.dataset.task}' takes "
                f"{self.task.num_sentences} column{'s' if self.task.num_sentences > 1 else ''}"
            )
        self.folder = data_folder(config) if folder is None else folder
        self.files = resolve(config.encoder) if files is None else files
        self.tables: dict[str, Table] = {}
        self.report: dict[str, dict[str, Any]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read all splits, from the cache where it has them; a test file that is not there is left out."""
        if self.tables:
            return
        for split, names in self.dataset.files.items():
            if split == "dev" and self.config.data.holdout is not None:
                continue
            paths = [self.folder / name for name in names]
            if split == "test":
                paths = [path for path in paths if path.is_file()]
            if paths:
                self._read(split, paths)
        if "dev" in self.dataset.files and self.config.data.holdout is not None:
            self._hold_out(self.config.data.holdout)
        if (dev := self.tables.get("dev")) is not None:
            check_ids(dev, f"datasets.{self.name}")

    def _hold_out(self, share: float) -> None:
        """Let a fixed share of the training rows play dev."""
        if (train := self.tables.get("train")) is None:
            raise InputError(f"config: data.holdout, but datasets.{self.name} has no files.train to hold rows out of")
        chosen = some_rows(len(train), round(share * len(train)), self.config, self.name, "holdout")
        if len(chosen) in (0, len(train)):
            found = f"{len(chosen)} of the {len(train)} training rows of {self.name}"
            raise InputError(f"config: data.holdout={share} comes to {found}; expected some for either")
        self.tables |= {"train": train.take(np.setdiff1d(np.arange(len(train)), chosen)), "dev": train.take(chosen)}
        for split in ("train", "dev"):
            self.report[split] = self.report["train"] | {"used": len(self.tables[split])}

    def _read(self, split: str, paths: Sequence[Path]) -> None:
        parts = [self._prepared(path, split) for path in paths]
        table = Table.concatenate([self._table(part) for part in parts])
        kept = some_rows(len(table), self._share(split, len(table)), self.config, self.name, split)
        self.tables[split] = table.take(kept)
        dropped = Counter[str]()
        for part in parts:
            dropped.update(part.dropped)
        available = sum(part.available for part in parts)
        self.report[split] = {"available": available, "used": len(kept), "dropped": dict(dropped)}

    def _share(self, split: str, rows: int) -> int:
        """How many rows the scale keeps."""
        scale = self.config.scale
        return round(rows * row_factor({"train": scale.train_rows, "dev": scale.dev_rows}.get(split, {}), self.name))

    def _prepared(self, path: Path, split: str) -> Prepared:
        prepared = prepare(path, self.dataset, split != "test", self.files)
        if prepared.dropped:
            counts = ", ".join(f"{count} {reason}" for reason, count in prepared.dropped.items())
            total = sum(prepared.dropped.values())
            logger.warning("%s: %d of %d rows dropped: %s", path, total, prepared.available, counts)
        self._check_labels(path, prepared)
        return prepared

    def _check_labels(self, path: Path, prepared: Prepared) -> None:
        """Whether what the config makes of the labels are labels of the task."""
        if prepared.labels is None:
            return
        task, labels = self.task, prepared.labels
        wrong = ~((labels >= 0) & (labels <= task.label_high))  # true for NaN
        wrong |= task.classification & (labels != labels.round())
        if wrong.any():
            row, kind = int(wrong.argmax()), "whole numbers" if task.classification else "numbers"
            raise InputError(
                f"{path}: datasets.{self.name}.label makes {labels[row]:g} of the label of {prepared.ids[row]}; task "
                f"'{self.dataset.task}' takes {kind} from 0 to {task.label_high:g}"
            )

    def _table(self, part: Prepared) -> Table:
        special = special_tokens(self.files, self.config)
        return Table.build(part.ids, part.labels, part.sentences, self.task.reads, special)

    def train_dataloader(self) -> DataLoader[Update]:
        """This dataset alone, in batches of the config's size, shuffled anew each epoch."""
        return self._alone().train_dataloader()

    def val_dataloader(self) -> DataLoader[Update]:
        return self._alone().val_dataloader()

    def test_dataloader(self) -> DataLoader[Update]:
        return self._alone().test_dataloader()

    @cached_property
    def _mixed(self) -> MixedDataModule:
        from mtbert.data.datamodule import MixedDataModule

        return MixedDataModule(self.config, [self])

    def _alone(self) -> MixedDataModule:
        self._mixed.trainer = self.trainer
        self._mixed.setup()
        return self._mixed


def check_ids(dev: Table, where: str) -> None:
    """Predictions are told apart by ids: InputError where two rows have the same."""
    if len(set(dev.ids)) < len(dev):
        twice, count = Counter(dev.ids).most_common(1)[0]
        raise InputError(f"{where}: {count} dev rows have the id {twice}; expected ids that differ")


def special_tokens(files: EncoderFiles, config: Config) -> SpecialTokens:
    return SpecialTokens(files.cls_id, files.sep_id, config.encoder.max_length)
