"""Sequences laid end to end, so that linear layers see real tokens only.

Legend of axes: ``tokens`` real tokens of all sequences, one after the other; ``slots`` cells of the padded
rectangles that attention works on, at least ``tokens`` of them; ``sequences`` as the caller ordered them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# What a group of one width costs, counted in scores (cells of one head's attention matrix): so many for
# starting its operations, and so many for each slot beside its row of scores. Fitted to timings of a CPU.
GROUP_COST = 6000
SLOT_COST = 40


@dataclass(frozen=True)
class Group:
    """Neighbouring sequences that attention pads to one width: ``count * width`` slots from ``start`` on."""

    start: int
    count: int
    width: int

    @property
    def slots(self) -> slice:
        return slice(self.start, self.start + self.count * self.width)


@dataclass(frozen=True)
class Padding:
    """How packed tokens and padded slots map onto each other."""

    source: Int[Tensor, " slots"]  # the token that fills a slot; an empty slot repeats its sequence's first
    slot: Int[Tensor, " tokens"]  # the one slot that holds a token
    empty: Int[Tensor, " padding"]  # the slots that hold none
    key_bias: Float[Tensor, " slots"]  # added to the scores of a key: 0, or -inf where the slot is empty


@dataclass(frozen=True)
class Packed:
    """The sequences of one encoder pass, sorted by length, without padding. Made by ``pack``."""

    input_ids: Int[Tensor, " tokens"]
    token_type_ids: Int[Tensor, " tokens"]
    position_ids: Int[Tensor, " tokens"]
    first: Int[Tensor, " sequences"]  # index of each sequence's first token, in the caller's order
    rank: Int[Tensor, " sequences"]  # place of each of the caller's sequences in the packed order
    lengths: Int[Tensor, " sequences"]  # tokens of each sequence, in packed order: ascending
    groups: tuple[Group, ...]
    padding: Padding | None  # None where every group has one length: then slots are tokens
    max_length: int

    @property
    def num_sequences(self) -> int:
        return self.lengths.numel()

    @property
    def num_tokens(self) -> int:
        return self.input_ids.numel()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Packed:
        return _each_tensor(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Packed:
        return _each_tensor(self, Tensor.pin_memory)


def pack(
    sequences: Sequence[Int[np.ndarray, " length"]],
    token_type_ids: Sequence[Int[np.ndarray, " length"]] | None = None,
) -> Packed:
    """Lay token id sequences end to end, shortest first; results come back in the order given here.

    Raises:
        ValueError: no sequence, an empty one, or token types of another length.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if lengths.size == 0 or lengths.min() == 0:
        raise ValueError(f"cannot pack sequences of lengths {lengths.tolist()}: one token each at least")
    order = np.argsort(lengths, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    lengths = lengths[order]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    groups = group_by_length(lengths)
    return Packed(
        input_ids=_concatenate(sequences, order),
        token_type_ids=_token_types(token_type_ids, order, lengths),
        position_ids=torch.from_numpy(np.arange(ends[-1]) - np.repeat(starts, lengths)),
        first=torch.from_numpy(starts[rank]),
        rank=torch.from_numpy(rank),
        lengths=torch.from_numpy(lengths),
        groups=groups,
        padding=_padding(lengths, starts, groups),
        max_length=int(lengths[-1]),
    )


def group_by_length(lengths: Int[np.ndarray, " sequences"]) -> tuple[Group, ...]:
    """The cheapest cut of ascending ``lengths`` into groups, each padded to its longest sequence.

    Dynamic programme over the distinct lengths; a group costs
    ``GROUP_COST + count * width * (width + SLOT_COST)``.
    """
    widths, counts = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])  # sequences shorter than widths[i]
    cost = np.zeros(len(widths) + 1)  # of the best cut of all sequences shorter than widths[i]
    cut = np.zeros(len(widths), dtype=np.int64)  # where the last group of that cut begins
    for last, width in enumerate(widths):
        counted = before[last + 1] - before[: last + 1]
        options = cost[: last + 1] + GROUP_COST + counted * (width * (width + SLOT_COST))
        cut[last] = options.argmin()
        cost[last + 1] = options.min()
    spans, last = [], len(widths) - 1
    while last >= 0:
        spans.append((int(before[last + 1] - before[cut[last]]), int(widths[last])))
        last = int(cut[last]) - 1
    groups, start = [], 0
    for count, width in reversed(spans):
        groups.append(Group(start, count, width))
        start += count * width
    return tuple(groups)


def _padding(
    lengths: Int[np.ndarray, " sequences"], starts: Int[np.ndarray, " sequences"], groups: tuple[Group, ...]
) -> Padding | None:
    tokens = int(lengths.sum())
    if groups[-1].slots.stop == tokens:
        return None
    width = np.repeat([group.width for group in groups], [group.count for group in groups])
    offset = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)  # of each slot in its row
    real = offset < np.repeat(lengths, width)
    source = np.repeat(starts, width) + np.where(real, offset, 0)
    return Padding(
        source=torch.from_numpy(source),
        slot=torch.from_numpy(np.flatnonzero(real)),
        empty=torch.from_numpy(np.flatnonzero(~real)),
        key_bias=torch.from_numpy(np.where(real, np.float32(0), np.float32(-np.inf))),
    )


def _concatenate(sequences: Sequence[np.ndarray], order: np.ndarray) -> Int[Tensor, " tokens"]:
    return torch.from_numpy(np.concatenate([sequences[i] for i in order]).astype(np.int64, copy=False))


def _token_types(
    token_type_ids: Sequence[np.ndarray] | None, order: np.ndarray, lengths: np.ndarray
) -> Int[Tensor, " tokens"]:
    if token_type_ids is None:
        return torch.zeros(int(lengths.sum()), dtype=torch.int64)
    if [len(token_type_ids[i]) for i in order] != lengths.tolist():
        raise ValueError("token_type_ids and sequences differ in length")
    return _concatenate(token_type_ids, order)


Record = TypeVar("Record", Packed, Padding)


def _each_tensor(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A copy of a dataclass with ``change`` applied to its tensors, those of nested dataclasses too."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = change(value)
        elif isinstance(value, Padding):
            changed[field.name] = _each_tensor(value, change)
    return dataclasses.replace(record, **changed)
