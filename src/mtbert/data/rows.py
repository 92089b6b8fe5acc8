"""CSV files to checked, rescaled rows: every row is used, dropped and counted, or an error with its place."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from mtbert.config import DatasetConfig, LabelConfig
from mtbert.errors import InputError, nearest


@dataclass(frozen=True)
class Rows:
    """The rows of one file.

    ``sentences`` has one list for each sentence of an example. ``used`` marks the rows that can be used; the
    others are counted by reason in ``dropped``. ``labels`` is None where the file has no label column.
    """

    ids: list[str]
    sentences: list[list[str]]
    labels: Float[np.ndarray, " rows"] | None
    used: np.ndarray
    dropped: Counter[str] = field(default_factory=Counter)


def normalize(sentence: str, text: str) -> str:
    """The course's text normalisation.

    ``pair``: lower case, a space before each of ``. ? , '``, white space collapsed; ``sentence``: lower case, strip.
    """
    if text == "sentence":
        return sentence.lower().strip()
    spaced = sentence.lower()
    for mark in ".?,'":
        spaced = spaced.replace(mark, f" {mark}")
    return " ".join(spaced.split())


def read_rows(path: Path, dataset: DatasetConfig, labelled: bool) -> Rows:
    """Read, check and rescale one tab-separated file with a header.

    Args:
        labelled: whether the label column has to be there (train and dev) or is ignored (test).

    Raises:
        InputError: the file or a column is missing, the file is not a table in UTF-8, a label is not a number or
            lies outside the range that ``dataset`` states. Rows with an empty sentence or label are no error: they
            are dropped and counted.
    """
    frame = _read_table(path)
    columns = [dataset.id, *dataset.sentences, *([dataset.label.column] if labelled else [])]
    for column in columns:
        if column not in frame:
            raise InputError(f"{path}: no column '{column}'{nearest(column, frame.columns)}")
    dropped: Counter[str] = Counter()
    used = np.ones(len(frame), dtype=bool)
    sentences = []
    for column in dataset.sentences:
        texts = [normalize(value, dataset.text) for value in frame[column]]
        _drop(used, np.array([not value for value in texts], dtype=bool), f"empty {column}", dropped)
        sentences.append(texts)
    labels = None
    if labelled:
        empty = (frame[dataset.label.column].str.strip() == "").to_numpy()
        _drop(used, empty, f"empty {dataset.label.column}", dropped)
        labels = _labels(path, frame[dataset.label.column].tolist(), used, dataset.label)
    return Rows(frame[dataset.id].tolist(), sentences, labels, used, dropped)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        names = [entry.name for entry in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        hint = nearest(path.name, names) if names else "; `make data` downloads the files, data=sample needs none"
        raise InputError(f"{path}: no such file{hint}")
    try:
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); expected a UTF-8 text file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            f"{path}: {' '.join(str(error).split())}; expected tab-separated rows under a header"
        ) from None
    if frame.empty:
        raise InputError(f"{path}: no rows under the header")
    return frame.fillna("")


def _drop(used: np.ndarray, bad: np.ndarray, reason: str, dropped: Counter[str]) -> None:
    """Mark rows as unusable; a row with several faults counts under the first."""
    if count := int((used & bad).sum()):
        dropped[reason] = count
    used &= ~bad


def _labels(path: Path, values: list[str], used: np.ndarray, label: LabelConfig) -> Float[np.ndarray, " rows"]:
    labels = np.zeros(len(values), dtype=np.float32)
    for row in np.flatnonzero(used):
        try:
            value = float(values[row])
        except ValueError:
            value = math.nan
        if not label.low <= value <= label.high or (label.integer and value != int(value)):
            kind = "a whole number" if label.integer else "a number"
            raise InputError(
                f"{path}: row {row + 1}: {label.column}='{values[row]}'; "
                f"expected {kind} from {label.low:g} to {label.high:g}"
            )
        labels[row] = _rescale(value, label)
    return labels


def _rescale(value: float, label: LabelConfig) -> float:
    if label.map is None:
        return (value - label.offset) * label.factor
    if int(value) not in label.map:
        raise InputError(f"config: label.map of {label.column} has no entry for {value:g}")
    return label.map[int(value)]
