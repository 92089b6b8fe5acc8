"""A file's rows with their token ids, prepared once and kept in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from mtbert.cache import read_entry, write_entry
from mtbert.config import DatasetConfig
from mtbert.data.rows import read_rows
from mtbert.model.sources import EncoderFiles, cached_sha256
from mtbert.paths import cache_dir

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CACHE_FORMAT = 2  # raised whenever the entries, or how rows are read, normalised or tokenised, change


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in one flat array; taking rows copies no tokens."""

    flat: Int[np.ndarray, " tokens"]
    starts: Int[np.ndarray, " rows"]
    lengths: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> Int[np.ndarray, " length"]:
        start = self.starts[row]
        return self.flat[start : start + self.lengths[row]]

    def take(self, rows: Int[np.ndarray, " taken"]) -> Ragged:
        return Ragged(self.flat, self.starts[rows], self.lengths[rows])

    def cut(self, longest: int | Int[np.ndarray, " rows"]) -> Ragged:
        """Each sequence's first ``longest`` tokens."""
        return Ragged(self.flat, self.starts, np.minimum(self.lengths, longest))

    @staticmethod
    def of_lengths(flat: Int[np.ndarray, " tokens"], lengths: Int[np.ndarray, " rows"]) -> Ragged:
        """Sequences that lie one after the other in ``flat``."""
        return Ragged(flat, np.cumsum(lengths) - lengths, lengths)

    @staticmethod
    def repeated(token: int, lengths: Int[np.ndarray, " rows"]) -> Ragged:
        """Sequences of nothing but ``token``."""
        flat = np.full(lengths.max(initial=0), token, dtype=np.int32)
        return Ragged(flat, np.zeros_like(lengths), lengths)

    @staticmethod
    def concatenate(parts: Sequence[Ragged]) -> Ragged:
        """The parts' rows one after another."""
        shifts = np.cumsum([0, *(len(part.flat) for part in parts[:-1])])
        return Ragged(
            np.concatenate([part.flat for part in parts]),
            np.concatenate([part.starts + shift for part, shift in zip(parts, shifts, strict=True)]),
            np.concatenate([part.lengths for part in parts]),
        )

    @staticmethod
    def join(parts: Sequence[Ragged]) -> Ragged:
        """Row by row, the parts' sequences end to end."""
        lengths = np.sum([part.lengths for part in parts], axis=0)
        joined = Ragged.of_lengths(np.empty(lengths.sum(), dtype=np.int32), lengths)
        starts = joined.starts
        for part in parts:
            joined.flat[_places(starts, part.lengths)] = part.flat[_places(part.starts, part.lengths)]
            starts = starts + part.lengths
        return joined


def _places(starts: Int[np.ndarray, " rows"], lengths: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " tokens"]:
    """Indices of all tokens of sequences that start here and are so long."""
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


@dataclass(frozen=True)
class Prepared:
    """The usable rows of one file: token ids without special tokens, one ``Ragged`` for each sentence of an example.

    ``available`` counts all rows of the file, ``dropped`` the unusable ones by reason.
    """

    ids: list[str]
    labels: Float[np.ndarray, " rows"] | None
    sentences: tuple[Ragged, ...]
    available: int
    dropped: dict[str, int]


def prepare(path: Path, dataset: DatasetConfig, labelled: bool, files: EncoderFiles) -> Prepared:
    """Read and tokenise a file, or take it from the cache.

    The key of an entry is the content of the file, how ``dataset`` reads it, and the tokenizer, so that nothing
    changed is answered with what was; a damaged entry is made again.

    Raises:
        InputError: see ``read_rows``; the cache is left as it was.
    """
    if not path.is_file():
        read_rows(path, dataset, labelled)  # says what is wrong
    reading = {**dataclasses.asdict(dataset), "task": None, "files": None, "labelled": labelled}
    key = json.dumps([CACHE_FORMAT, cached_sha256(path), reading, files.tokenizer_sha256], sort_keys=True)
    entry = cache_dir() / "rows" / f"{path.stem[:80]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    if (found := _load(entry)) is not None:
        return found
    from mtbert.model.pretrained import load_tokenizer

    rows = read_rows(path, dataset, labelled)
    tokenizer = load_tokenizer(files)
    sentences = tuple(tokenize(texts, tokenizer) for texts in rows.sentences)
    prepared = Prepared(rows.ids, rows.labels, sentences, rows.available, rows.dropped)
    _save(entry, prepared)
    return prepared


def tokenize(texts: list[str], tokenizer: Tokenizer) -> Ragged:
    """Token ids without special tokens."""
    ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    return Ragged.of_lengths(np.fromiter(chain.from_iterable(ids), np.int32, lengths.sum()), lengths)


def _save(entry: Path, prepared: Prepared) -> None:
    tensors = {"ids": np.frombuffer("\0".join(prepared.ids).encode(), dtype=np.uint8)}  # no file holds a NUL
    if prepared.labels is not None:
        tensors["labels"] = prepared.labels
    for side, sentences in enumerate(prepared.sentences):
        tensors |= {f"input_ids_{side}": sentences.flat, f"lengths_{side}": sentences.lengths}
    counts = json.dumps([prepared.available, prepared.dropped, len(prepared.sentences)])
    write_entry(entry, tensors, counts)


def _load(entry: Path) -> Prepared | None:
    """What is in a cache entry; None if there is none or it is damaged."""
    if (found := read_entry(entry)) is None:
        return None
    tensors, counts = found
    available, dropped, sides = json.loads(counts)
    sentences = [Ragged.of_lengths(tensors[f"input_ids_{side}"], tensors[f"lengths_{side}"]) for side in range(sides)]
    ids = tensors["ids"].tobytes().decode().split("\0")
    return Prepared(ids, tensors.get("labels"), tuple(sentences), available, dropped)
