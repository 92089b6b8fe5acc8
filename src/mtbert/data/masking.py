"""Masked-LM training (Devlin et al. 2019, task 1) on the sentences of the tasks' own training rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from mtbert.data.packing import FILLER, pack
from mtbert.data.schedules import Step
from mtbert.data.table import SpecialTokens, Table
from mtbert.data.tokens import Ragged
from mtbert.data.updates import Share, Update, build_update, task_rows
from mtbert.model.sources import EncoderFiles
from mtbert.seeding import generator

TEXT = "text"  # what stands in a schedule in the place of tasks
SHARE, AS_MASK, AS_RANDOM = 0.15, 0.8, 0.1  # of all tokens; of those chosen: what is read in their place


@dataclass(frozen=True)
class MaskedUpdate(Update):
    """A step whose tokens in the slots ``positions`` are to be told from the others; no task's rows.

    In one of several processes these are, of ``num_targets``, those at ``share``.
    """

    positions: Int[Tensor, " chosen"]
    targets: Int[Tensor, " chosen"]
    num_targets: int
    share: Int[Tensor, " share"] | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            super().mapped(change),
            positions=change(self.positions),
            targets=change(self.targets),
            share=None if self.share is None else change(self.share),
        )


def text_table(tables: Mapping[tuple[str, str], Table], special: SpecialTokens) -> Table:
    """Every sentence of training rows once, each a sequence of its own; none that dev rows have too.

    Test files, which need not be there, have no say in it.
    """
    held_out, texts = set[bytes](), dict[bytes, None]()
    for (split, _), table in tables.items():
        if split == "train":
            texts |= dict.fromkeys(_sentences(table, special))
        elif split == "dev":
            held_out.update(_sentences(table, special))
    rows = [np.frombuffer(text, dtype=np.int32) for text in texts if text and text not in held_out]
    flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    sentences = Ragged.of_lengths(flat, np.array([len(row) for row in rows], dtype=np.int64))
    return Table.build([str(row) for row in range(len(rows))], None, [sentences], ((0,),), special)


def _sentences(table: Table, special: SpecialTokens) -> Iterator[bytes]:
    """The token ids of each sentence, those of joined pairs apart, without special tokens."""
    for side in table.sequences:
        for row in range(len(side)):
            ids = side[row][1:-1].astype(np.int32)
            for part in np.split(ids, np.flatnonzero(ids == special.sep)):
                yield part[part != special.sep].tobytes()


class MaskedUpdates(Dataset[MaskedUpdate]):
    """The updates of an epoch of masked-LM training, one for each step of a schedule."""

    def __init__(
        self,
        table: Table,
        steps: Sequence[Step],
        seeds: Sequence[int],
        files: EncoderFiles,
        share: Share | None = None,
    ) -> None:
        self.table, self.steps, self.seeds, self.share = table, steps, seeds, share
        self.mask_id, self.vocab_size = files.special_id("[MASK]"), len(files.vocabulary)
        self.special = (files.cls_id, files.sep_id)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> MaskedUpdate:
        rows = np.concatenate([batch for draw in self.steps[step] for batch in draw.batches])
        part = task_rows(TEXT, "train", self.table, rows, np.zeros(len(rows)), [rows])
        update = build_update([(self.table, part)], self.seeds[step], packed=True)
        assert update.packed is not None
        ids, owner = update.packed.input_ids.numpy(), update.packed.owner.numpy()
        words = np.flatnonzero((owner != FILLER) & ~np.isin(ids, self.special))
        masked, positions = self._mask(ids, words, generator(update.seed, "mask"))
        whole = MaskedUpdate(
            packed=replace(update.packed, input_ids=torch.from_numpy(masked)),
            sequence_ids=update.sequence_ids,
            tasks=(),
            seed=update.seed,
            positions=torch.from_numpy(positions),
            targets=torch.from_numpy(ids[positions]),
            num_targets=len(positions),
        )
        return whole if self.share is None else _shared(whole, self.share)

    def _mask(
        self, ids: Int[np.ndarray, " slots"], words: Int[np.ndarray, " words"], draw: np.random.Generator
    ) -> tuple[Int[np.ndarray, " slots"], Int[np.ndarray, " chosen"]]:
        """What is read, and where it is to be told: at ``SHARE`` of the slots ``words``, at one at least."""
        chosen = words[draw.random(len(words)) < SHARE]
        if len(chosen) == 0:
            chosen = draw.choice(words, size=1)
        fate, masked = draw.random(len(chosen)), ids.copy()
        masked[chosen[fate < AS_MASK]] = self.mask_id
        other = chosen[fate >= 1 - AS_RANDOM]
        masked[other] = draw.integers(self.vocab_size, size=len(other))
        return masked, chosen


def _shared(whole: MaskedUpdate, share: Share) -> MaskedUpdate:
    """A process's sequences of an update, one at least, and what there is to tell in them."""
    assert whole.packed is not None
    first, segment = whole.packed.first.numpy(), whole.packed.segment.numpy()
    lengths, positions = whole.packed.lengths.numpy()[segment], whole.positions.numpy()
    mine = share.of(len(first))
    packed = pack([np.arange(first[i], first[i] + lengths[i]) for i in (mine if len(mine) else [0])])
    source = packed.input_ids.numpy()  # of each token: its slot in the whole
    here = np.flatnonzero((packed.owner.numpy() != FILLER) & np.isin(source, positions))
    told = np.searchsorted(positions, source[here])
    return replace(
        whole,
        packed=replace(packed, input_ids=whole.packed.input_ids[packed.input_ids]),
        sequence_ids=whole.sequence_ids[mine],
        seed=share.seed(whole.seed),
        positions=torch.from_numpy(here),
        targets=whole.targets[told],
        share=torch.from_numpy(told if len(mine) else told[:0]),
    )
