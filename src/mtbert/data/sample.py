"""An embedded corpus: five small datasets in the course's file formats, written by rule.

So that everything runs with nothing but pip. The rows say something: film remarks with graded sentiment, questions
asked twice or only nearly so, scenes that agree in some of their parts. A few labels are wrong on purpose, words
have synonyms and clauses distract, so neither a majority nor a bag of words solves a task. CFIMDB shares SST's
vocabulary and SICK shares STS's scenes: rows added from them help.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mtbert.data import sample_rows, sample_words
from mtbert.data.sample_rows import Dice
from mtbert.paths import cache_dir, sha256

VERSION = 1
CONTENT = "0000000000"  # digest() of what write() writes with seed 0: it names the folder in the cache
SIZES = {
    "sst": {"train": 600, "dev": 200, "test": 200},
    "quora": {"train": 2400, "dev": 300, "test": 300},
    "sts": {"train": 450, "dev": 200, "test": 200},
    "cfimdb": {"train": 120, "dev": 30, "test": 30},
    "sick": {"train": 225, "trial": 25, "test": 250},
}
FILES = tuple(
    sorted(
        [
            "sick2014.csv",
            *(
                f"{stem}-{split}.csv"
                for stem in ("ids-sst", "ids-cfimdb", "quora", "sts")
                for split in ("train", "dev", "test-student")
            ),
        ]
    )
)
SICK_COLUMNS = (
    "pair_ID",
    "sentence_A",
    "sentence_B",
    "entailment_label",
    "relatedness_score",
    "entailment_AB",
    "entailment_BA",
    "sentence_A_original",
    "sentence_B_original",
    "sentence_A_dataset",
    "sentence_B_dataset",
    "SemEval_set",
)

Row = TypeVar("Row", bound=tuple[Any, ...])
Key = frozenset[str]


def sample_folder() -> Path:
    """The corpus in the cache, written on first use; whole or not there, also with several processes at once."""
    folder = cache_dir() / f"sample-{VERSION}-{CONTENT}"
    if all((folder / name).is_file() for name in FILES):
        return folder
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write(building)
        building.chmod(0o755)
        _put_in_place(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _put_in_place(building: Path, folder: Path) -> None:
    try:
        os.rename(building, folder)
    except OSError:  # it exists: another process was faster, or somebody deleted some of its files
        for name in FILES:
            if not (folder / name).is_file():
                os.replace(building / name, folder / name)


def digest(folder: Path) -> str:
    """Ten hex digits over the content of all files."""
    return hashlib.sha256("".join(sha256(folder / name) for name in FILES).encode()).hexdigest()[:10]


def vocabulary() -> list[str]:
    """Every word, number and punctuation mark that the files can hold, in lower case, sorted."""
    texts = _texts(value for name, value in vars(sample_words).items() if name.isupper())
    text = re.sub(r"\{\w+\}", " ", " ".join(texts)).lower()
    return sorted(set(re.findall(r"\w+|[^\w\s]", text)))


def _texts(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _texts(value.values())
        elif isinstance(value, list | tuple):
            yield from _texts(value)


def write(folder: Path, seed: int = 0) -> None:
    """Write the thirteen files; the same bytes for the same seed, on any platform and Python version."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = _write_sst(folder, Dice(seed * 10 + 1))
    _write_cfimdb(folder, Dice(seed * 10 + 2), held_out)
    _write_quora(folder, Dice(seed * 10 + 3))
    seen = _write_sts(folder, Dice(seed * 10 + 4))
    _write_sick(folder, Dice(seed * 10 + 5), seen)


def _write_sst(folder: Path, dice: Dice) -> list[str]:
    seen: set[Key] = set()
    splits = {split: _distinct(lambda: sample_rows.sst_row(dice), count, seen) for split, count in SIZES["sst"].items()}
    _write_single(folder, "ids-sst", splits)
    return [text for split in ("dev", "test") for text, _ in splits[split]]


def _write_cfimdb(folder: Path, dice: Dice, held_out: list[str]) -> None:
    def draw() -> tuple[str, int]:
        row = sample_rows.cfimdb_row(dice)
        return draw() if any(sentence in row[0] for sentence in held_out) else row

    seen: set[Key] = set()
    _write_single(
        folder, "ids-cfimdb", {split: _distinct(draw, count, seen) for split, count in SIZES["cfimdb"].items()}
    )


def _write_single(folder: Path, stem: str, splits: dict[str, list[tuple[str, int]]]) -> None:
    for split in ("train", "dev"):
        lines = [
            (index, _identifier(stem, split, text), text, label) for index, (text, label) in enumerate(splits[split])
        ]
        _write_csv(folder / f"{stem}-{split}.csv", ("", "id", "sentence", "sentiment"), lines)
    # The course's own test files carry their old header as a first column more.
    tests = [
        (index + 1, f"{index}.0", _identifier(stem, "test", text), text)
        for index, (text, _) in enumerate(splits["test"])
    ]
    _write_csv(folder / f"{stem}-test-student.csv", ("0", "", "id", "sentence"), tests)


def _write_quora(folder: Path, dice: Dice) -> None:
    seen: set[Key] = set()
    splits = {
        split: [
            (one, other, f"{label}.0")
            for one, other, label in _distinct(lambda: sample_rows.quora_row(dice), count, seen)
        ]
        for split, count in SIZES["quora"].items()
    }
    # As in the real files: rows that cannot be used, to be dropped and counted.
    splits["train"][700:700] = [(splits["train"][3][0], "", ""), (splits["train"][5][1], splits["train"][9][1], "")]
    _write_pairs(folder, dice, "quora", "is_duplicate", splits)


def _write_sts(folder: Path, dice: Dice) -> set[Key]:
    seen: set[Key] = set()
    splits = {split: _distinct(lambda: sample_rows.sts_row(dice), count, seen) for split, count in SIZES["sts"].items()}
    _write_pairs(folder, dice, "sts", "similarity", splits)
    return seen


def _write_pairs(folder: Path, dice: Dice, stem: str, label: str, splits: dict[str, list[Row]]) -> None:
    indices = _indices(dice)
    for split, rows in splits.items():
        lines = [
            (next(indices), _identifier(stem, split, one + other), one, other, value) for one, other, value in rows
        ]
        columns = ("", "id", "sentence1", "sentence2", label)
        if split == "test":
            _write_csv(folder / f"{stem}-test-student.csv", columns[:4], [line[:4] for line in lines])
        else:
            _write_csv(folder / f"{stem}-{split}.csv", columns, lines)


def _indices(dice: Dice) -> Iterator[int]:
    """Different numbers in no order, as in the course's files of pairs."""
    seen: set[int] = set()
    while True:
        index = dice.below(400_000)
        if index not in seen:
            seen.add(index)
            yield index


def _write_sick(folder: Path, dice: Dice, seen: set[Key]) -> None:
    lines: list[tuple[Any, ...]] = []
    for split, count in SIZES["sick"].items():
        for one, other, entailment, score in _distinct(lambda: sample_rows.sick_row(dice), count, seen):
            verb = {"NEUTRAL": "neutral", "ENTAILMENT": "entails", "CONTRADICTION": "contradicts"}[entailment]
            lines.append(
                (
                    len(lines) + 1,
                    one,
                    other,
                    entailment,
                    f"{score:g}",
                    f"A_{verb}_B",
                    f"B_{verb}_A",
                    one + ".",
                    other + ".",
                    "FLICKR",
                    "FLICKR",
                    split.upper(),
                )
            )
    _write_csv(folder / "sick2014.csv", SICK_COLUMNS, lines, end="\r\n")


def _distinct(draw: Callable[[], Row], count: int, seen: set[Key]) -> list[Row]:
    """``count`` rows none of which was seen before: same sentence, or same pair in either order."""
    rows: list[Row] = []
    while len(rows) < count:
        row = draw()
        texts = [re.sub(r"\W+", " ", part).strip().lower() for part in row[:2] if isinstance(part, str)]
        key = frozenset(texts)
        if key not in seen and len(key) == len(texts):
            seen.add(key)
            rows.append(row)
    return rows


def _identifier(stem: str, split: str, text: str) -> str:
    return hashlib.sha256(f"{stem}/{split}/{text}".encode()).hexdigest()[:25]


def _write_csv(path: Path, columns: tuple[str, ...], lines: list[tuple[Any, ...]], end: str = "\n") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator=end)
        writer.writerow(columns)
        writer.writerows(lines)
