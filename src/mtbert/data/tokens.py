"""Token ids of a file's sentences, cached on disk as one memory-mapped array."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mtbert.config import DatasetConfig
from mtbert.paths import atomic_write, cache_dir, sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CACHE_FORMAT = 1


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

    @staticmethod
    def concatenate(parts: Sequence[Ragged]) -> Ragged:
        shifts = np.cumsum([0, *(len(part.flat) for part in parts)])
        return Ragged(
            np.concatenate([part.flat for part in parts]),
            np.concatenate([part.starts + shift for part, shift in zip(parts, shifts, strict=False)]),
            np.concatenate([part.lengths for part in parts]),
        )


def tokenize(
    path: Path, dataset: DatasetConfig, sentences: list[list[str]], tokenizer: Tokenizer, tokenizer_sha256: str
) -> list[Ragged]:
    """Token ids, without special tokens, of every row of ``path``: one ``Ragged`` for each sentence of an example.

    Cached under a key of the file's content, the columns read, the text normalisation and the tokenizer, so that a
    changed file is never answered with old tokens. A damaged cache file is made again.
    """
    key = json.dumps([CACHE_FORMAT, sha256(path), dataset.sentences, dataset.text, tokenizer_sha256])
    cached = cache_dir() / "tokens" / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    if (found := _load(cached, len(dataset.sentences))) is not None:
        return found
    tensors: dict[str, np.ndarray] = {}
    for side, texts in enumerate(sentences):
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]
        tensors[f"lengths_{side}"] = np.array([len(row) for row in ids], dtype=np.int64)
        tensors[f"input_ids_{side}"] = np.concatenate(ids)
    with atomic_write(cached) as temporary:
        save_file(tensors, temporary)
    return _ragged(tensors, len(sentences))


def _load(path: Path, sides: int) -> list[Ragged] | None:
    if not path.is_file():
        return None
    try:
        return _ragged(load_file(path), sides)
    except (SafetensorError, KeyError):
        return None


def _ragged(tensors: dict[str, np.ndarray], sides: int) -> list[Ragged]:
    result = []
    for side in range(sides):
        lengths = tensors[f"lengths_{side}"]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        result.append(Ragged(tensors[f"input_ids_{side}"], starts, lengths))
    return result
