"""What an evaluation has seen of each split and task: logits and labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mtbert.data.updates import TaskRows

Key = tuple[str, str]  # split, task


@dataclass
class Evaluation:
    """Logits and labels of whole splits, rows in the tables' order, gathered over batches in any order."""

    parts: dict[Key, list[tuple[Tensor, Tensor, Tensor]]] = field(default_factory=dict)

    def add(self, task: TaskRows, logits: Tensor) -> None:
        entry = (task.rows, logits.detach().float().cpu(), task.labels.cpu())
        self.parts.setdefault((task.split, task.task), []).append(entry)

    def gathered(self, key: Key) -> tuple[Float[Tensor, "rows ..."], Float[Tensor, " rows"]]:
        """Logits and labels of one split and task; a row that came twice counts once."""
        rows, logits, labels = (torch.cat(column) for column in zip(*self.parts[key], strict=True))
        count = int(rows.max()) + 1
        all_logits, all_labels = logits.new_zeros(count, *logits.shape[1:]), labels.new_zeros(count)
        all_logits[rows], all_labels[rows] = logits, labels
        return all_logits, all_labels
