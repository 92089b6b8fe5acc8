"""``mtbert overlap``: dev rows that are among the training rows, for every pair of datasets."""

from __future__ import annotations

import argparse
import csv
import io
import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mtbert.compose import compose
from mtbert.config import Config, DatasetConfig
from mtbert.data.rows import normalize, read_rows
from mtbert.plan import data_folder

ALL_DATASETS = "experiment=09_sst_not_polar_sts_sick"
TITLES = ("train", "dev", "dev rows", "in train", "same words", "train rows", "same words", "dev sentences", "in train")

Row = tuple[str, ...]  # sentences; of a pair in alphabetical order, since either order says the same


@dataclass(frozen=True)
class Overlap:
    """What one dataset's training rows share with the dev rows of another, or with its own.

    ``shared_dev`` dev rows are also among the training rows, ``shared_train`` training rows among the dev rows (one
    row may come several times); ``alike_dev`` and ``alike_train`` leave punctuation aside, without which SICK's
    captions are those of STS. ``alike_sentences`` of the distinct dev sentences stand anywhere in the training rows.
    """

    train: str
    dev: str
    dev_rows: int
    shared_dev: int
    alike_dev: int
    shared_train: int
    alike_train: int
    dev_sentences: int
    alike_sentences: int


def find_overlaps(config: Config, folder: Path) -> list[Overlap]:
    """Every dataset's training rows against every dataset's dev rows; the same text counts, whatever its label.

    Compared after the course's normalisation of pairs, which also makes single sentences of different files alike.

    Raises:
        InputError: see ``read_rows``.
    """
    train, dev = (
        {name: _rows(folder, dataset, split) for name, dataset in config.datasets.items() if split in dataset.files}
        for split in ("train", "dev")
    )
    return [_compare(name, other, train[name], dev[other]) for name in train for other in dev]


def _rows(folder: Path, dataset: DatasetConfig, split: str) -> list[Row]:
    files = [read_rows(folder / name, dataset, labelled=True) for name in dataset.files[split]]
    sentences = [row for file in files for row in zip(*file.sentences, strict=True)]
    return [tuple(sorted(normalize(sentence, "pair") for sentence in row)) for row in sentences]


def _compare(train: str, dev: str, train_rows: list[Row], dev_rows: list[Row]) -> Overlap:
    train_words, dev_words = _words(train_rows), _words(dev_rows)
    known, sentences = {text for row in train_words for text in row}, {text for row in dev_words for text in row}
    return Overlap(
        train=train,
        dev=dev,
        dev_rows=len(dev_rows),
        shared_dev=_shared(dev_rows, train_rows),
        alike_dev=_shared(dev_words, train_words),
        shared_train=_shared(train_rows, dev_rows),
        alike_train=_shared(train_words, dev_words),
        dev_sentences=len(sentences),
        alike_sentences=len(sentences & known),
    )


def _words(rows: list[Row]) -> list[Row]:
    return [tuple(sorted(" ".join(re.findall(r"\w+", text)) or text for text in row)) for row in rows]


def _shared(rows: list[Row], others: list[Row]) -> int:
    known = set(others)
    return sum(row in known for row in rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert overlap``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="whose datasets (default: all five, real rows)"
    )
    parser.add_argument("--format", choices=("markdown", "csv"), default="markdown")


def main(args: argparse.Namespace) -> int:
    """``mtbert overlap``: print the table."""
    config = compose(args.overrides or [ALL_DATASETS, "data=cs224n"])
    found = find_overlaps(config, data_folder(config))
    print(_csv(found) if args.format == "csv" else _markdown(found), end="")
    return 0


def _markdown(overlaps: list[Overlap]) -> str:
    rows = [TITLES, ("---", "---", *["--:"] * 7), *([_cell(value) for value in astuple(each)] for each in overlaps)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _csv(overlaps: list[Overlap]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[field.name for field in fields(Overlap)], *map(astuple, overlaps)])
    return text.getvalue()
