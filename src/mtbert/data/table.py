"""A task's rows as the sequences that the encoder reads: what batches are cut from."""

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

    def frame(self, sentences: Sequence[Ragged]) -> tuple[Ragged, Ragged]:
        """``[CLS] a [SEP]``, or ``[CLS] a [SEP] b [SEP]``, and the token types: 1 after the first [SEP], else 0.

        What is too long loses its end; of a pair the longer sentence does until both are of one length, as in BERT.
        """
        room = self.max_length - 1 - len(sentences)
        if len(sentences) == 1:
            cut = [sentences[0].cut(room)]
        else:
            first, second = sentences
            cut = [
                first.cut(np.maximum(room - room // 2, room - second.lengths)),
                second.cut(np.maximum(room // 2, room - first.lengths)),
            ]
        ones = np.ones_like(cut[0].lengths)
        cls, sep = Ragged.repeated(self.cls, ones), Ragged.repeated(self.sep, ones)
        input_ids = Ragged.join([cls, *(part for sentence in cut for part in (sentence, sep))])
        if len(cut) == 1:
            return input_ids, Ragged.repeated(0, input_ids.lengths)
        types = [Ragged.repeated(0, cut[0].lengths + 2), Ragged.repeated(1, cut[1].lengths + 1)]
        return input_ids, Ragged.join(types)


@dataclass(frozen=True)
class Table:
    """Rows of one task and split.

    ``sequences`` holds one ``Ragged`` for each sequence of an example, special tokens included; ``token_types`` the
    same for token types. ``labels`` is None for files without labels. ``first_sequence`` numbers the table's
    sequences across a run, so that outputs of a fixed encoder can be looked up: row ``r``, side ``s`` is
    ``first_sequence + s * rows + r``.
    """

    ids: np.ndarray
    labels: Float[np.ndarray, " rows"] | None
    sequences: tuple[Ragged, ...]
    token_types: tuple[Ragged, ...]
    first_sequence: int = 0

    @staticmethod
    def build(
        ids: Sequence[str],
        labels: Float[np.ndarray, " rows"] | None,
        sentences: Sequence[Ragged],
        reads: Sequence[Sequence[int]],
        special: SpecialTokens,
    ) -> Table:
        """A table of framed sequences, made of one or two of the ``sentences`` each as ``reads`` says; a sequence that
        asks for a second sentence where there is but one has that one alone."""
        framed = [special.frame([sentences[index] for index in wanted if index < len(sentences)]) for wanted in reads]
        sequences, token_types = zip(*framed, strict=True)
        return Table(np.array(ids, dtype=object), labels, sequences, token_types)

    def __len__(self) -> int:
        return len(self.ids)

    def numbered(self, first_sequence: int) -> Table:
        """The same rows, their sequences numbered from ``first_sequence`` on."""
        return replace(self, first_sequence=first_sequence)

    @property
    def num_sequences(self) -> int:
        return len(self) * len(self.sequences)

    def take(self, rows: Int[np.ndarray, " taken"]) -> Table:
        return Table(
            self.ids[rows],
            None if self.labels is None else self.labels[rows],
            tuple(side.take(rows) for side in self.sequences),
            tuple(side.take(rows) for side in self.token_types),
        )

    @staticmethod
    def concatenate(tables: Sequence[Table]) -> Table:
        """The tables' rows one after another; all labelled or none."""
        labels = [table.labels for table in tables if table.labels is not None]
        return Table(
            np.concatenate([table.ids for table in tables]),
            np.concatenate(labels) if labels else None,
            _concatenate([table.sequences for table in tables]),
            _concatenate([table.token_types for table in tables]),
        )

    def input_ids(self, rows: Int[np.ndarray, " taken"]) -> list[Int[np.ndarray, " length"]]:
        """What the encoder reads for these rows: all first sequences, then all second ones."""
        return [side[row] for side in self.sequences for row in rows]

    def token_type_ids(self, rows: Int[np.ndarray, " taken"]) -> list[Int[np.ndarray, " length"]]:
        """The token types of ``input_ids(rows)``, in the same order."""
        return [side[row] for side in self.token_types for row in rows]

    def sequence_ids(self, rows: Int[np.ndarray, " taken"]) -> Int[np.ndarray, " sequences"]:
        """The run-wide numbers of ``input_ids(rows)``, in the same order."""
        return np.concatenate([self.first_sequence + side * len(self) + rows for side in range(len(self.sequences))])

    def distinct(self) -> tuple[Table, Int[np.ndarray, " sequences"]]:
        """A table of single sequences, each different one once; and the row there of each of this table's sequences,
        all first ones before all second ones."""
        everything, found = np.arange(len(self)), dict[bytes, int]()
        both = zip(self.input_ids(everything), self.token_type_ids(everything), strict=True)
        rows = [found.setdefault(ids.tobytes() + types.tobytes(), len(found)) for ids, types in both]
        first = np.unique(rows, return_index=True)[1]
        sequences, token_types = (Ragged.concatenate(sides).take(first) for sides in (self.sequences, self.token_types))
        return Table(np.full(len(first), ""), None, (sequences,), (token_types,)), np.array(rows)

    def num_tokens(self) -> Int[np.ndarray, " rows"]:
        """Tokens of each row over all its sequences."""
        return np.sum([side.lengths for side in self.sequences], axis=0)


def _concatenate(sides: Sequence[tuple[Ragged, ...]]) -> tuple[Ragged, ...]:
    return tuple(Ragged.concatenate(parts) for parts in zip(*sides, strict=True))
