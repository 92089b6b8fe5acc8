"""Small files, an encoder's vocabulary and tables, for tests of what is made of rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mtbert.config import Config, DatasetConfig, EncoderConfig, LabelConfig
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.table import SpecialTokens, Table
from mtbert.data.tokens import Ragged
from mtbert.model.sources import EncoderFiles, resolve
from mtbert.plan import make_plan
from mtbert.runtime import Runtime

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "good", "bad", "film", ".", "?", ",", "'"]
RUNTIME = Runtime("cpu", "32-true", 1, "cpu")
SPECIAL = SpecialTokens(cls=2, sep=3, max_length=512)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A tab-separated file, quoted where need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])
    return path


def encoder_folder(folder: Path, *words: str) -> Path:
    """An encoder whose vocabulary is ``WORDS`` and some more; it has no weights to load."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "vocab_size": len(WORDS) + len(words)} | SHAPE)
    )
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *words]) + "\n")
    (folder / "model.safetensors").write_bytes(b"none")
    return folder


SHAPE = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def encoder_files(folder: Path, *words: str) -> EncoderFiles:
    return resolve(EncoderConfig(name="toy", source=f"folder:{encoder_folder(folder, *words)}"))


def single(**label: object) -> DatasetConfig:
    """One sentence, classes 0 to 4."""
    rule = {"column": "label", "low": 0.0, "high": 4.0, "integer": True} | label
    return DatasetConfig(task="sst", sentences=["sentence"], text="sentence", label=LabelConfig(**rule))  # type: ignore[arg-type]


def pair(**label: object) -> DatasetConfig:
    """Two sentences, degrees 0 to 5."""
    rule = {"column": "label", "low": 0.0, "high": 5.0} | label
    return DatasetConfig(task="sts", sentences=["one", "two"], text="pair", label=LabelConfig(**rule))  # type: ignore[arg-type]


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return Ragged.of_lengths(np.array([token for row in rows for token in row], dtype=np.int32), lengths)


def lists(sequences: Ragged) -> list[list[int]]:
    return [sequences[row].tolist() for row in range(len(sequences))]


def table(lengths: Sequence[int], sides: int = 1, first_token: int = 100) -> Table:
    """Rows whose sentences have these lengths and whose tokens are all different; labels 0, 1, 2, ..."""
    rows, token = [], first_token
    for _ in range(sides):
        sentences = []
        for length in lengths:
            sentences.append(list(range(token, token + length)))
            token += length
        rows.append(ragged(sentences))
    labels = np.arange(len(lengths), dtype=np.float32)
    return Table.build(
        [f"row-{i}" for i in range(len(lengths))], labels, rows, [[side] for side in range(sides)], SPECIAL
    )


def course_folder(folder: Path, sst: int = 10, para: int = 23, sts: int = 7) -> Path:
    """Course files of so many training rows and a few dev rows."""
    for split, counts in (("train", (sst, para, sts)), ("dev", (4, 5, 6))):
        rows = [[i, f"s{split}{i}", "a good film ." if i % 2 else "a bad film", i % 5] for i in range(counts[0])]
        write_csv(folder / f"ids-sst-{split}.csv", ["", "id", "sentence", "sentiment"], rows)
        for name, label, count in (("quora", "is_duplicate", counts[1]), ("sts", "similarity", counts[2])):
            pairs = [[i, f"{name[0]}{split}{i}", "a b c?", "a b" + " d" * (i % 4), float(i % 2)] for i in range(count)]
            write_csv(folder / f"{name}-{split}.csv", ["", "id", "sentence1", "sentence2", label], pairs)
    return folder


def toy_config(folder: Path, *overrides: str, config_dir: Path | None = None) -> Config:
    """The baseline over the course files in ``folder / "data"``, all rows, with the toy encoder."""
    from mtbert.compose import compose

    encoder = encoder_folder(folder / "encoder")
    places = [f"data.folder={folder / 'data'}", "encoder=folder", f"encoder.source=folder:{encoder}"]
    return compose(["scale=paper", "data=cs224n", *places, "batch_size=4", *overrides], config_dir)


def mixed(place: Path, *overrides: str, config_dir: Path | None = None) -> MixedDataModule:
    """What a run over ``toy_config`` draws from."""
    data = MixedDataModule.from_plan(make_plan(toy_config(place, *overrides, config_dir=config_dir), RUNTIME))
    data.setup()
    return data
