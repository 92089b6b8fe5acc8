"""CSV files to checked, rescaled rows: every row is used, dropped and counted, or an error with its line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mtbert.config import DatasetConfig, LabelConfig
from mtbert.errors import InputError, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Rows:
    """The usable rows of one file, and what became of the others.

    ``sentences`` has one list for each sentence of an example, normalised; ``labels`` are rescaled, None where none
    were asked for. ``available`` counts all rows of the file, ``dropped`` the unusable ones by reason.
    """

    ids: list[str]
    sentences: list[list[str]]
    labels: Float[np.ndarray, " rows"] | None
    available: int
    dropped: dict[str, int]


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
    """Read, check and rescale one file.

    Args:
        labelled: whether labels are read (train and dev). If so, rows with an empty sentence or label are dropped
            and counted; if not, every row is kept, for each is owed a prediction.

    Raises:
        InputError: see ``read_table``; or a column is missing, a label is no number or lies outside the range that
            ``dataset`` states, or no row can be used.
    """
    frame = read_table(path, dataset.separator)
    label = dataset.label.column
    header, columns = list(frame.columns), [dataset.id, *dataset.sentences, *([label] if labelled else [])]
    if len(header) == 1 and columns != header:
        raise InputError(
            f"{path}: the header is one field, {_shown(header[0])}; expected fields separated by "
            f"{'tabs' if dataset.separator == chr(9) else dataset.separator} (separator, of the dataset's config)"
        )
    check_columns(path, header, columns)
    available, dropped = len(frame), Counter[str]()
    for column in [*dataset.sentences, label] if labelled else []:
        empty = frame[column].str.strip() == ""
        if empty.any():
            dropped[f"empty {column}"] = int(empty.sum())
            frame = frame[~empty]
    if frame.empty:
        counts = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise InputError(f"{path}: none of its {available} rows can be used: {counts}")
    return Rows(
        ids=frame[dataset.id].tolist(),
        sentences=[[normalize(text, dataset.text) for text in frame[column]] for column in dataset.sentences],
        labels=_labels(path, frame[label], dataset.label) if labelled else None,
        available=available,
        dropped=dict(dropped),
    )


def read_table(path: Path, separator: str) -> pd.DataFrame:
    """``parse_table`` of a file, one that ends in .gz compressed.

    Raises:
        InputError: also, there is no such file.
    """
    if not path.is_file():
        names = [entry.name for entry in path.parent.glob("*.csv")]
        hint = nearest(path.name, names) or "; `mtbert data` downloads the files, data=sample needs none"
        raise InputError(f"{path}: no such file{hint}")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:  # a damaged .gz raises any of them
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return parse_table(content, str(path), separator)


def parse_table(content: bytes, source: str, separator: str) -> pd.DataFrame:
    """All fields of rows under a header, as text; the index says on which line a row starts.

    Blank lines are skipped, but under a header of one field, where they are empty fields. The csv module reads, since
    pandas' own reader joins the rows after an unbalanced quote and cuts off fields that the header does not name, both
    without a word.

    Args:
        source: what messages call the content.

    Raises:
        InputError: not UTF-8, a NUL byte, no rows, a row with more or fewer fields than the header, or quotes that
            do not pair up.
    """
    import pandas as pd  # half a second, not to be paid by a start that finds everything in the cache

    _check_text(content, source)
    records = _records(content, source, separator)
    header = next((record for _, record in records if not _blank(record)), [])
    if not header:
        raise InputError(f"{source}: is empty; expected a header and rows under it")
    lines, rows = [], []
    for line, record in records:
        if _blank(record):
            if len(header) > 1:
                continue
            record = [""]
        if len(record) != len(header):
            raise InputError(f"{source}: line {line}: {_count(record)}; expected {len(header)}, as in the header")
        lines.append(line)
        rows.append(record)
    if not rows:
        raise InputError(f"{source}: no rows under the header")
    return pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="line"), dtype=object)


def _check_text(content: bytes, source: str) -> None:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise InputError(f"{source}: line {line}: byte {byte:#04x} is not UTF-8; expected UTF-8") from None
    if "\0" in text:
        raise InputError(f"{source}: line {content[: content.index(0)].count(10) + 1}: a NUL byte; expected text")


def _records(content: bytes, source: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Every record with the line it starts on."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")  # a StringIO would take four bytes a sign
    reader = csv.reader(text, delimiter=separator, strict=True)
    line = 1
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            expected = "expected quotes in pairs, each quote inside a quoted field doubled"
            raise InputError(f"{source}: line {line}: {_explained(error)}; {expected}") from None
        if record is None:
            return
        if reader.line_num > line and _swallowed(record, separator):
            raise InputError(
                f"{source}: line {line}: a quote that opens here takes in whole rows up to line {reader.line_num}; "
                "expected quotes in pairs"
            )
        yield line, record
        line = reader.line_num + 1


def _blank(record: list[str]) -> bool:
    return len(record) < 2 and not "".join(record).strip()


def _explained(error: csv.Error) -> str:
    reason = str(error)
    if "end of data" in reason:
        return "a quote that opens here is never closed"
    return "text after a closing quote" if "expected after" in reason else reason


def _swallowed(record: list[str], separator: str) -> bool:
    """Whether a record of several lines reads like rows that an unbalanced quote joined.

    Either a line between the first and the last has a whole row's separators, or all lines have them; a line break
    inside a properly quoted field leaves its lines with fewer. Of tabs only: prose is full of commas.
    """
    lines = re.split(r"\r\n|\r|\n", separator.join(record))
    whole = [line.count(separator) >= len(record) - 1 for line in lines]
    return separator == "\t" and len(record) > 1 and (any(whole[1:-1]) or all(whole))


def check_columns(source: str | Path, header: list[str], columns: list[str]) -> None:
    """InputError where a header lacks one of ``columns``, or has it twice."""
    for column in columns:
        if column not in header:
            raise InputError(f"{source}: no column '{column}'{nearest(column, filter(None, header))}")
        if header.count(column) > 1:
            raise InputError(f"{source}: {header.count(column)} columns are named '{column}'; expected one")


def _labels(path: Path, values: pd.Series[str], label: LabelConfig) -> Float[np.ndarray, " rows"]:
    if label.map is not None and all(isinstance(key, str) for key in label.map):
        values = values.str.strip()
        _refuse(path, label.column, values[~values.isin(label.map)], _expected_key(label.map))
        return values.map(label.map).to_numpy(np.float32)
    numbers = np.array([_number(value) for value in values])
    whole = label.integer or label.map is not None
    wrong = ~((label.low <= numbers) & (numbers <= label.high))  # true for NaN
    wrong |= whole & (numbers != np.floor(numbers))
    expected = f"expected a {'whole ' if whole else ''}number from {label.low:g} to {label.high:g}"
    _refuse(path, label.column, values[wrong], expected)
    if label.map is None:
        return ((numbers - label.offset) * label.factor).astype(np.float32)
    _refuse(path, label.column, values[~np.isin(numbers, list(label.map))], _expected_key(label.map))
    return np.array([label.map[int(number)] for number in numbers], dtype=np.float32)


def _expected_key(known: Mapping[Any, float]) -> str:
    return f"expected a key of label.map: {', '.join(map(str, known))}"


def _refuse(path: Path, column: str, values: pd.Series[str], expected: str) -> None:
    if len(values):
        raise InputError(f"{path}: line {values.index[0]}: {column}={_shown(values.iloc[0])}; {expected}")


def _number(text: str) -> float:
    """NaN where ``text`` is no number; Python's ``1_000`` is none here."""
    try:
        return float("nan" if "_" in text else text)
    except ValueError:
        return float("nan")


def _count(record: list[str]) -> str:
    return "1 field" if len(record) == 1 else f"{len(record)} fields"


def _shown(value: object, most: int = 40) -> str:
    text = str(value)
    return repr(text if len(text) <= most else f"{text[:most]}…")
