"""Datasets alone, and of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.dataset import DatasetModule
from mtbert.data.updates import Update
from mtbert.errors import InputError
from mtbert.plan import make_plan
from toy_data import RUNTIME, WORDS, encoder_files, toy_config, write_csv

MINE = """
task: {task}
files: {{train: [mine-train.csv], dev: [mine-dev.csv]}}
id: key
sentences: {sentences}
text: {text}
label: {label}
"""


def test_a_dataset_works_alone(place: Path) -> None:
    alone = DatasetModule("sts", toy_config(place))
    alone.setup()
    assert {split: len(table) for split, table in alone.tables.items()} == {"train": 7, "dev": 6}
    batches = list(alone.train_dataloader())
    assert [len(update.tasks[0].rows) for update in batches] == [4, 3]
    assert sorted(row for update in batches for row in update.tasks[0].rows.tolist()) == list(range(7))
    assert {part.task for update in alone.val_dataloader() for part in update.tasks} == {"sts"}
    assert len(alone.test_dataloader()) == 0


def test_a_dataset_with_train_rows_only_works_alone(place: Path) -> None:
    write_csv(
        place / "data" / "sick2014.csv",
        ["pair_ID", "sentence_A", "sentence_B", "relatedness_score"],
        [[1, "a", "b", 5]],
    )
    alone = DatasetModule("sick", toy_config(place, "experiment=07_sts_sick"))
    alone.setup()
    assert alone.tables["train"].labels is not None and alone.tables["train"].labels.tolist() == [5]
    assert len(alone.train_dataloader()) == 1 and len(alone.val_dataloader()) == 0


class Counting(LightningModule):
    """Remembers which rows each epoch brought."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[int]] = {}

    def training_step(self, update: Update, batch_idx: int) -> torch.Tensor:
        self.epochs.setdefault(self.current_epoch, []).extend(update.tasks[0].rows.tolist())
        return self.weight * update.tasks[0].coefficients.sum()

    def validation_step(self, update: Update, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_dataset_feeds_a_lightning_trainer(place: Path) -> None:
    module, alone = Counting(), DatasetModule("sts", toy_config(place))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(accelerator="cpu", max_epochs=2, reload_dataloaders_every_n_epochs=1, **quiet)  # type: ignore[arg-type]
    trainer.fit(module, datamodule=alone)
    assert [sorted(rows) for rows in module.epochs.values()] == [list(range(7))] * 2
    assert module.epochs[0] != module.epochs[1]


def own_dataset(place: Path, rows: list[list[object]], header: list[str], **keys: str) -> Config:
    """A config with a dataset of one's own in it, described by one file in a folder of one's own."""
    (place / "conf" / "dataset").mkdir(parents=True)
    (place / "conf" / "dataset" / "mine.yaml").write_text(MINE.format(**keys))
    for split in ("train", "dev"):
        write_csv(place / "data" / f"mine-{split}.csv", header, rows)
    return toy_config(place, "+dataset@datasets.mine=mine", config_dir=place / "conf")


def test_a_dataset_of_ones_own_is_one_file_with_a_label_map(place: Path) -> None:
    rows: list[list[object]] = [["x", "Good film", "1"], ["y", "bad", "-1.0"]]
    label = "{column: mood, low: -1, high: 1, map: {-1: 0, 1: 4}}"
    config = own_dataset(
        place, rows, ["key", "text", "mood"], task="sst", sentences="[text]", text="sentence", label=label
    )
    data = MixedDataModule.from_plan(make_plan(config, RUNTIME))
    data.setup()
    for split, others in (("train", 10), ("dev", 4)):
        table = data.tables[split, "sst"]
        assert table.ids[:2].tolist() == ["x", "y"] and len(table) == others + 2
        assert table.labels is not None and table.labels[:2].tolist() == [4, 0]
        words = [[WORDS[token] for token in row] for row in table.input_ids(np.arange(2))]
        assert words == [["[CLS]", "good", "film", "[SEP]"], ["[CLS]", "bad", "[SEP]"]]


def test_a_pair_dataset_of_ones_own_is_rescaled(place: Path) -> None:
    rows: list[list[object]] = [["x", "a", "b?", "100"], ["y", "c", "d", "0"]]
    label = "{column: percent, low: 0, high: 100, factor: 0.05}"
    keys = {"task": "sts", "sentences": "[left, right]", "text": "pair", "label": label}
    config = own_dataset(place, rows, ["key", "left", "right", "percent"], **keys)
    alone = DatasetModule("mine", config, place / "data", encoder_files(place / "encoder"))
    alone.setup()
    table = alone.tables["dev"]
    assert table.labels is not None and table.labels.tolist() == [5, 0]
    assert [WORDS[token] for token in table.input_ids(np.array([0]))[1]] == ["[CLS]", "b", "?", "[SEP]"]


def test_a_dataset_that_does_not_fit_its_task_is_one_line(place: Path) -> None:
    rows: list[list[object]] = [["x", "a", "3"]]
    keys = {"task": "sts", "sentences": "[text]", "text": "pair", "label": "{column: score, low: 0, high: 5}"}
    config = own_dataset(place, rows, ["key", "text", "score"], **keys)
    with pytest.raises(InputError, match=r"datasets.mine.sentences=\['text'\]; task 'sts' takes 2 columns"):
        DatasetModule("mine", config)
    with pytest.raises(InputError, match=r"config: no dataset 'min'; did you mean 'mine'\?"):
        DatasetModule("min", config)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("{column: score, low: 0, high: 9}", "makes 7 of the label of y; task 'sst' takes whole numbers from 0 to 4"),
        ("{column: score, low: 0, high: 9, factor: 0.5}", "makes 0.5 of the label of x"),
        ("{column: score, low: 0, high: 9, offset: 2}", "makes -1 of the label of x"),
    ],
)
def test_labels_that_the_task_does_not_know_are_one_line(place: Path, label: str, said: str) -> None:
    rows: list[list[object]] = [["x", "a", "1"], ["y", "b", "7"]]
    keys = {"task": "sst", "sentences": "[text]", "text": "sentence", "label": label}
    data = DatasetModule("mine", own_dataset(place, rows, ["key", "text", "score"], **keys))
    with pytest.raises(InputError) as caught:
        data.setup()
    assert said in str(caught.value) and "mine-train.csv: datasets.mine.label" in str(caught.value)
