"""A task's rows, tokenised: what batches are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from mtbert.data.tokens import Ragged


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that frame a sequence, and the longest sequence allowed with them in it."""

    cls: int
    sep: int
    max_length: int

    def frame(self, tokens: Int[np.ndarray, " length"]) -> Int[np.ndarray, " framed"]:
        """``[CLS] tokens [SEP]``, cut to ``max_length``."""
        return np.concatenate([[self.cls], tokens[: self.max_length - 2], [self.sep]])


@dataclass(frozen=True)
class Table:
    """Rows of one task and split. ``sentences`` holds one ``Ragged`` for each sentence of an example.

    ``labels`` is None for files without labels. ``first_sequence`` numbers the table's sequences across a run, so
    that outputs of a fixed encoder can be looked up: row ``r``, side ``s`` is ``first_sequence + s * rows + r``.
    """

    ids: np.ndarray
    labels: Float[np.ndarray, " rows"] | None
    sentences: tuple[Ragged, ...]
    special: SpecialTokens
    first_sequence: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def numbered(self, first_sequence: int) -> Table:
        """The same rows, their sequences numbered from ``first_sequence`` on."""
        return replace(self, first_sequence=first_sequence)

    @property
    def num_sequences(self) -> int:
        return len(self) * len(self.sentences)

    def take(self, rows: Int[np.ndarray, " taken"]) -> Table:
        labels = None if self.labels is None else self.labels[rows]
        return Table(self.ids[rows], labels, tuple(side.take(rows) for side in self.sentences), self.special)

    @staticmethod
    def concatenate(tables: Sequence[Table]) -> Table:
        """The tables' rows one after another; all labelled or none."""
        labels = [table.labels for table in tables if table.labels is not None]
        return Table(
            np.concatenate([table.ids for table in tables]),
            np.concatenate(labels) if labels else None,
            tuple(Ragged.concatenate(sides) for sides in zip(*(table.sentences for table in tables), strict=True)),
            tables[0].special,
        )

    def sequences(self, rows: Int[np.ndarray, " taken"]) -> list[Int[np.ndarray, " length"]]:
        """What the encoder reads for these rows: all first sentences, then all second ones."""
        return [self.special.frame(side[row]) for side in self.sentences for row in rows]

    def sequence_ids(self, rows: Int[np.ndarray, " taken"]) -> Int[np.ndarray, " sequences"]:
        """The run-wide numbers of ``sequences(rows)``, in the same order."""
        return np.concatenate([self.first_sequence + side * len(self) + rows for side in range(len(self.sentences))])

    def num_tokens(self) -> Int[np.ndarray, " rows"]:
        """Tokens of each row, special ones included, over all its sentences."""
        cut = self.special.max_length - 2
        return np.sum([np.minimum(side.lengths, cut) + 2 for side in self.sentences], axis=0)
