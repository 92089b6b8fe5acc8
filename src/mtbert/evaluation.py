"""What an evaluation has seen of each split and task, and the metrics of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mtbert.config import Recipe
from mtbert.data.updates import TaskRows
from mtbert.tasks import Task

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

    def metrics(self, tasks: Mapping[str, Task], recipe: Recipe) -> dict[str, float]:
        """``{split}/{task}/{metric}`` for all that was evaluated, and each split's ``average`` over its tasks.

        NaN where a metric is undefined; an average with an undefined part is undefined.
        """
        metrics: dict[str, float] = {}
        for split in dict.fromkeys(split for split, _ in self.parts):
            found = {
                f"{split}/{name}/{task.metric_name}": metric_of(task, recipe, *self.gathered((split, name)))
                for name, task in tasks.items()
                if (split, name) in self.parts
            }
            metrics |= found
            metrics[f"{split}/average"] = math.fsum(found.values()) / len(found)
        return metrics


def metric_of(task: Task, recipe: Recipe, logits: Float[Tensor, "rows ..."], labels: Float[Tensor, " rows"]) -> float:
    """A task's metric over whole columns, evaluated as the recipe says; NaN where an output is NaN."""
    if logits.isnan().any():  # the likeliest class of NaN would be a class all the same
        return math.nan
    scores = logits if recipe.evaluate_logits and task.graded else task.score(logits)
    if recipe.evaluate_integer_labels and task.graded:
        labels = labels.trunc()
    return float(task.metric(scores, labels))
