"""Several sequences to a row, so that hardly any work is padding.

Legend of axes: ``slots`` places of all rows, one row after the other: tokens, and filler where a row has room left;
``sequences`` as the caller ordered them; ``segments`` what slots are made of: sequences and filler.

Rows are ``WIDTH`` slots wide, or more where one sequence needs that. So there are few shapes whatever the lengths, and
a shape costs: oneDNN makes kernels for each that it meets first, and on a GPU each is captured as a graph
(experiments/SPEED.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

WIDTH = 64
FILLER = -1  # the owner of slots that belong to no sequence


@dataclass(frozen=True)
class RowShapes:
    """Which rows there may be.

    Args:
        long: a row for a sequence of more than ``WIDTH`` slots is a multiple of this wide.
        slots: the rows of each width come to a multiple of so many; what is missing is filler.
    """

    long: int = WIDTH
    slots: int = 1


LITTLE_FILLER = RowShapes()
FEW_SHAPES = RowShapes(long=512, slots=256)  # filler costs a GPU next to nothing


def row_shapes(accelerator: str) -> RowShapes:
    """What suits training steps there."""
    return FEW_SHAPES if accelerator == "cuda" else LITTLE_FILLER


@dataclass(frozen=True)
class Group:
    """Rows of one width, one after the other: ``count * width`` slots."""

    count: int
    width: int

    @property
    def num_slots(self) -> int:
        return self.count * self.width


@dataclass(frozen=True)
class Packed:
    """The sequences of one encoder pass. Made by ``pack``."""

    input_ids: Int[Tensor, " slots"]
    token_type_ids: Int[Tensor, " slots"]
    position_ids: Int[Tensor, " slots"]
    owner: Int[Tensor, " slots"]  # the sequence that a slot belongs to, in the caller's order, or FILLER
    first: Int[Tensor, " sequences"]  # index of each sequence's first slot
    segment: Int[Tensor, " sequences"]  # which of the segments a sequence is
    lengths: Int[Tensor, " segments"]  # slots of each segment, in the slots' order; then zeros, see pack
    groups: tuple[Group, ...]
    num_tokens: int  # without filler
    max_length: int

    @property
    def num_sequences(self) -> int:
        return self.first.numel()

    @property
    def num_slots(self) -> int:
        return self.input_ids.numel()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Packed:
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Packed:
        """With ``change`` made to every tensor."""
        changed: dict[str, Any] = {name: change(value) for name, value in vars(self).items() if torch.is_tensor(value)}
        return replace(self, **changed)


def pack(
    sequences: Sequence[Int[np.ndarray, " length"]],
    token_type_ids: Sequence[Int[np.ndarray, " length"]] | None = None,
    shapes: RowShapes = LITTLE_FILLER,
) -> Packed:
    """Lay token id sequences into rows; results come back in the order given here.

    ``lengths`` has a place for every sequence and for filler in every row: the shapes of all tensors depend on the
    number of sequences and the rows alone.

    Raises:
        ValueError: no sequence, an empty one, or token types of another length.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if lengths.size == 0 or lengths.min() == 0:
        raise ValueError(f"cannot pack sequences of lengths {lengths.tolist()}: one token each at least")
    if token_type_ids is not None and [len(types) for types in token_type_ids] != lengths.tolist():
        raise ValueError("token_type_ids and sequences differ in length")
    rows = sorted(_rounded(fill_rows(lengths, shapes.long), shapes.slots), key=lambda row: row.width)  # stable
    owners = np.concatenate([row.owners() for row in rows])  # of segments
    spans = np.concatenate([row.lengths(lengths) for row in rows])
    starts = np.cumsum(spans) - spans
    real = owners != FILLER
    segment = np.empty(len(lengths), dtype=np.int64)
    segment[owners[real]] = np.flatnonzero(real)
    owner = np.repeat(owners, spans)
    tokens, order = owner != FILLER, owners[real]
    return Packed(
        input_ids=_laid_out(sequences, order, tokens),
        token_type_ids=_laid_out(token_type_ids, order, tokens),
        position_ids=torch.from_numpy(np.where(tokens, np.arange(len(owner)) - np.repeat(starts, spans), 0)),
        owner=torch.from_numpy(owner),
        first=torch.from_numpy(starts[segment]),
        segment=torch.from_numpy(segment),
        lengths=torch.from_numpy(np.pad(spans, (0, len(lengths) + len(rows) - len(spans)))),
        groups=tuple(Group(len(list(same)), width) for width, same in groupby(rows, key=lambda row: row.width)),
        num_tokens=int(lengths.sum()),
        max_length=int(lengths.max()),
    )


@dataclass
class Row:
    """So many slots, and the sequences in them."""

    width: int
    sequences: list[int]
    free: int

    def owners(self) -> list[int]:
        return [*self.sequences, FILLER] if self.free else self.sequences

    def lengths(self, lengths: Int[np.ndarray, " sequences"]) -> list[int]:
        return [*lengths[self.sequences].tolist(), self.free] if self.free else lengths[self.sequences].tolist()


def fill_rows(lengths: Int[np.ndarray, " sequences"], long: int = WIDTH) -> list[Row]:
    """Best fit, longest sequence first: each goes where the least room is left over, or into a new row.

    Rows have ``WIDTH`` slots; those of longer sequences as many times ``long`` as these need.
    """
    rows: list[Row] = []
    most = WIDTH if lengths.max() <= WIDTH else max(WIDTH, long)  # a row that holds something has fewer free slots
    with_room: list[list[Row]] = [[] for _ in range(most)]  # rows by their free slots
    for sequence in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[sequence])
        row = next((with_room[free].pop() for free in range(length, most) if with_room[free]), None)
        if row is None:
            width = WIDTH if length <= WIDTH else -(-length // long) * long
            rows.append(row := Row(width, [], width))
        row.sequences.append(sequence)
        row.free -= length
        with_room[row.free].append(row)
    return rows


def _rounded(rows: list[Row], slots: int) -> list[Row]:
    """These rows, and of each width as many empty ones as take it to a multiple of ``slots``."""
    empty = []
    for width, count in Counter(row.width for row in rows).items():
        empty += [Row(width, [], width) for _ in range(-count % (slots // math.gcd(slots, width)))]
    return rows + empty


def _laid_out(
    values: Sequence[np.ndarray] | None, order: Int[np.ndarray, " sequences"], tokens: np.ndarray
) -> Int[Tensor, " slots"]:
    """A value for each token of the sequences, in their order in the rows; 0 in filler, everywhere without values."""
    slots = np.zeros(len(tokens), dtype=np.int64)
    if values is not None:
        slots[tokens] = np.concatenate([values[sequence] for sequence in order])
    return torch.from_numpy(slots)
