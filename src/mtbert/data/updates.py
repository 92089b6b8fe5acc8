"""Updates: the rows of one optimiser step (or of one evaluation batch), packed for a single encoder pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from mtbert.data.packing import LITTLE_FILLER, Packed, RowShapes, pack
from mtbert.data.schedules import Draw, Step
from mtbert.data.table import Table
from mtbert.seeding import derive


@dataclass(frozen=True)
class Share:
    """The part of every update that one of several processes encodes: of each task's rows the ``rank``-th, and every
    ``world_size``-th after it."""

    rank: int
    world_size: int

    def of(self, num_rows: int) -> Int[np.ndarray, " share"]:
        return np.arange(self.rank, num_rows, self.world_size)

    def seed(self, seed: int) -> int:
        """Of this process's dropout."""
        return derive(seed, "rank", self.rank) if self.rank else seed


@dataclass(frozen=True)
class TaskRows:
    """One task's rows in an update.

    ``coefficients`` are the rows' weights in the task's loss, so that the loss of any schedule, weighting and
    reduction is ``(coefficients * values).sum()``; ``sizes`` are the lengths of the batches they came in.
    ``share`` says which of the rows are packed, where that is not all of them; ``num_sequences`` counts what is packed.
    """

    task: str
    split: str
    rows: Int[Tensor, " rows"]
    labels: Float[Tensor, " rows"]
    coefficients: Float[Tensor, " rows"]
    sizes: tuple[int, ...]
    num_sequences: int
    share: Int[Tensor, " share"] | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> TaskRows:
        """With ``change`` made to all tensors but ``rows``: only the host looks at those."""
        share = None if self.share is None else change(self.share)
        return replace(self, labels=change(self.labels), coefficients=change(self.coefficients), share=share)


@dataclass(frozen=True)
class Update:
    """Everything one step needs: the packed sequences of all its rows, and which rows they are.

    ``sequence_ids`` number the sequences across the run, task after task in ``tasks``' order; ``packed`` is None
    where the encoder's outputs are looked up by these numbers instead. ``seed`` drives the step's dropout.
    """

    packed: Packed | None
    sequence_ids: Int[Tensor, " sequences"]
    tasks: tuple[TaskRows, ...]
    seed: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self.mapped(Tensor.pin_memory)

    def tensors(self) -> list[Tensor]:
        """All that a device needs, in an order that depends on the update's shape alone."""
        found: list[Tensor] = []

        def look(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.mapped(look)
        return found

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The update with ``change`` made to every tensor that a device needs."""
        return replace(
            self,
            packed=None if self.packed is None else self.packed.mapped(change),
            sequence_ids=change(self.sequence_ids),
            tasks=tuple(task.mapped(change) for task in self.tasks),
        )


@dataclass(frozen=True)
class Reduction:
    """How the values of a batch become its loss.

    The mean over its rows (the paper's text). As the published code has it: ``configured``, the sum over the
    configured batch size, also for a short batch; ``divided``, the batch size divides once more.
    """

    batch_size: int
    configured: bool = False
    divided: bool = False

    def coefficient(self, num_rows: int) -> float:
        """The factor of each row of a batch of ``num_rows``."""
        mean = 1 / (self.batch_size if self.configured else num_rows)
        return mean / self.batch_size if self.divided else mean


class TrainingUpdates(Dataset[Update]):
    """The updates of an epoch, one for each step of a schedule."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        steps: Sequence[Step],
        reductions: Mapping[str, Reduction],
        weights: Mapping[str, float],
        seeds: Sequence[int],
        packed: bool,
        share: Share | None = None,
        shapes: RowShapes = LITTLE_FILLER,
    ) -> None:
        self.tables, self.steps, self.reductions, self.weights = tables, steps, reductions, weights
        self.seeds, self.packed, self.share, self.shapes = seeds, packed, share, shapes

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> Update:
        parts = [(self.tables[draw.task], self._task_rows(draw)) for draw in self.steps[step]]
        return build_update(parts, self.seeds[step], self.packed, self.share, self.shapes)

    def _task_rows(self, draw: Draw) -> TaskRows:
        weight = draw.weight * self.weights[draw.task]
        each = [np.full(len(b), weight * self.reductions[draw.task].coefficient(len(b))) for b in draw.batches]
        rows = np.concatenate(draw.batches)
        return task_rows(draw.task, "train", self.tables[draw.task], rows, np.concatenate(each), draw.batches)


class EvaluationUpdates(Dataset[Update]):
    """Every row of some tables once, rows of like length together so that little work is padding."""

    def __init__(
        self, tables: Mapping[tuple[str, str], Table], max_tokens: int, packed: bool, share: Share | None = None
    ) -> None:
        self.tables, self.packed, self.share = tables, packed, share
        self.batches = [(key, rows) for key, table in tables.items() for rows in length_batches(table, max_tokens)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Update:
        (split, task), rows = self.batches[index]
        table = self.tables[split, task]
        part = task_rows(task, split, table, rows, np.zeros(len(rows)), [rows])
        return build_update([(table, part)], 0, self.packed, self.share)


def length_batches(table: Table, max_tokens: int) -> Iterator[Int[np.ndarray, " rows"]]:
    """The table's rows from long to short, cut where a batch would exceed ``max_tokens`` tokens (one row at least)."""
    lengths = table.num_tokens()
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])  # tokens up to and with each row
    start = before = 0
    while start < len(order):
        stop = max(int(np.searchsorted(ends, before + max_tokens, side="right")), start + 1)
        yield order[start:stop]
        start, before = stop, int(ends[stop - 1])


def task_rows(
    task: str, split: str, table: Table, rows: np.ndarray, coefficients: np.ndarray, batches: Sequence[np.ndarray]
) -> TaskRows:
    labels = np.zeros(len(rows), dtype=np.float32) if table.labels is None else table.labels[rows]
    return TaskRows(
        task=task,
        split=split,
        rows=torch.from_numpy(rows),
        labels=torch.from_numpy(labels),
        coefficients=torch.from_numpy(coefficients.astype(np.float32)),
        sizes=tuple(len(batch) for batch in batches),
        num_sequences=len(rows) * len(table.sequences),
    )


def build_update(
    parts: Sequence[tuple[Table, TaskRows]],
    seed: int,
    packed: bool,
    share: Share | None = None,
    shapes: RowShapes = LITTLE_FILLER,
) -> Update:
    """Join the rows of several tasks, or a process's share of them; their sequences follow one another in the parts'
    order."""
    tasks = [part if share is None else _shared(table, part, share) for table, part in parts]
    read = [(table, _read(task)) for (table, _), task in zip(parts, tasks, strict=True)]
    return Update(
        packed=_pack(read, shapes) if packed else None,
        sequence_ids=torch.from_numpy(np.concatenate([table.sequence_ids(rows) for table, rows in read])),
        tasks=tuple(tasks),
        seed=seed if share is None else share.seed(seed),
    )


def _shared(table: Table, part: TaskRows, share: Share) -> TaskRows:
    rows = share.of(len(part.rows))
    return replace(part, share=torch.from_numpy(rows), num_sequences=max(1, len(rows)) * len(table.sequences))


def _read(task: TaskRows) -> Int[np.ndarray, " rows"]:
    """The rows to be packed: one at least, all processes run the same operations."""
    rows = task.rows.numpy()
    if task.share is None:
        return rows
    return rows[task.share.numpy()] if len(task.share) else rows[:1]


def _pack(read: Sequence[tuple[Table, Int[np.ndarray, " rows"]]], shapes: RowShapes) -> Packed:
    input_ids = [sequence for table, rows in read for sequence in table.input_ids(rows)]
    token_type_ids = [types for table, rows in read for types in table.token_type_ids(rows)]
    return pack(input_ids, token_type_ids, shapes)
