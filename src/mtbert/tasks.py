"""The tasks: head, loss and metric each. This is the only registry; a task of one's own is a ``Task`` in a module
of one's own, named in the config by import path: ``tasks.my_task.definition=my_package.MY_TASK``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_accuracy, multiclass_accuracy
from torchmetrics.functional.regression import pearson_corrcoef

from mtbert.config import TaskConfig
from mtbert.errors import InputError, nearest
from mtbert.imports import import_path
from mtbert.losses import CLASSIFICATION, RANKING, REGRESSION, Loss
from mtbert.model.heads import PAIR_HEADS, SENTENCE_HEADS, PairHead, Reads, SentenceHead

Metric = Callable[[Tensor, Tensor], Tensor]


def accuracy(scores: Float[Tensor, " rows"], labels: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Share of rows whose predicted class is the label."""
    classes = int(max(scores.max(), labels.max())) + 1
    return multiclass_accuracy(scores.long(), labels.long(), num_classes=max(classes, 2), average="micro")


def rounded_accuracy(scores: Float[Tensor, " rows"], labels: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Accuracy of ``round(score)`` for scores in 0..1 (0.5 rounds to 0)."""
    return binary_accuracy(scores, labels.long())


def pearson(scores: Float[Tensor, " rows"], labels: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    """Pearson's correlation in float64; NaN (undefined) where either side is constant or has one row."""
    scores, labels = scores.double(), labels.double()
    if len(scores) < 2 or bool((scores == scores[0]).all()) or bool((labels == labels[0]).all()):
        return torch.tensor(float("nan"), dtype=torch.float64)
    return pearson_corrcoef(scores, labels)


@dataclass(frozen=True)
class Task:
    """One task of the model.

    ``head`` is a module class ``(hidden_size, num_outputs, dropout)``, with an attribute ``reads``
    (``mtbert.model.heads``) where it wants other sequences than each sentence alone; ``label_high`` the largest label
    (the smallest is 0); ``loss`` a name of ``mtbert.losses`` or a function of its form; ``metric`` maps all scores and
    labels of a split to one number, reported under ``metric_name``.
    """

    head: Callable[[int, int, float], nn.Module]
    num_sentences: int
    num_outputs: int
    label_high: float
    loss: str | Loss
    metric: Metric
    metric_name: str
    graded: bool = False  # labels are degrees, not classes

    @property
    def reads(self) -> Reads:
        """The sequences of an example that the head wants, each by the sentences that it is made of."""
        return getattr(self.head, "reads", tuple((sentence,) for sentence in range(self.num_sentences)))

    @property
    def num_sequences(self) -> int:
        return len(self.reads)

    @property
    def classification(self) -> bool:
        return self.num_outputs > 1

    def score(self, logits: Float[Tensor, "rows ..."]) -> Float[Tensor, " rows"]:
        """The prediction on the label's scale: the likeliest class, or ``label_high * sigmoid(logit)``."""
        return logits.argmax(-1).float() if self.classification else self.label_high * logits.float().sigmoid()


TASKS: dict[str, Task] = {
    "sst": Task(SentenceHead, 1, 5, 4.0, "cross_entropy", accuracy, "accuracy"),
    "para": Task(PairHead, 2, 1, 1.0, "l1", rounded_accuracy, "accuracy"),
    "sts": Task(PairHead, 2, 1, 5.0, "l1", pearson, "pearson", graded=True),
}


def find_task(name: str, options: TaskConfig) -> Task:
    """The task that the config names, with the head that it chooses.

    Raises:
        InputError: no such built-in, the import path leads to no ``Task``, it has other classes than labels, or the
            head does not fit it.
    """
    task = _definition(name, options)
    if options.head is not None:
        task = replace(task, head=_head(name, task, options.head))
    _check_reads(name, task)
    if task.classification and task.label_high != task.num_outputs - 1:
        found = f"num_outputs={task.num_outputs} and label_high={task.label_high:g}"
        raise InputError(
            f"config: tasks.{name} has {found}; expected label_high={task.num_outputs - 1}, classes are numbered from 0"
        )
    return task


def _check_reads(name: str, task: Task) -> None:
    """Whether the sequences that a head wants are made of sentences that there are."""
    wanted, there = task.reads, set(range(task.num_sentences))
    if not (wanted and isinstance(wanted, tuple)) or not all(
        isinstance(each, tuple) and len(each) <= 2 and set(each) <= {0, 1} and set(each) & there for each in wanted
    ):
        raise InputError(
            f"config: the head of tasks.{name} reads {wanted!r} of {task.num_sentences} sentences; expected a tuple "
            "for each sequence, such as ((0,), (1,)) or ((0, 1),)"
        )
    if hasattr(task.head, "num_sequences") and not hasattr(task.head, "reads"):
        raise InputError(f"config: the head of tasks.{name} has num_sequences; expected reads, such as ((0, 1),)")


def _definition(name: str, options: TaskConfig) -> Task:
    if options.definition is None:
        if name not in TASKS:
            raise InputError(f"config: tasks.{name} is no built-in task{nearest(name, TASKS)} (or give its definition)")
        return TASKS[name]
    task = import_path(options.definition, f"tasks.{name}.definition")
    if not isinstance(task, Task):
        raise InputError(f"config: tasks.{name}.definition={options.definition} is not a mtbert.tasks.Task")
    return task


def _head(name: str, task: Task, chosen: str) -> Callable[[int, int, float], nn.Module]:
    if "." in chosen:
        head = import_path(chosen, f"tasks.{name}.head")
        if not (isinstance(head, type) and issubclass(head, nn.Module)):
            raise InputError(f"config: tasks.{name}.head={chosen} is no class of torch.nn.Module")
        if head.forward is nn.Module.forward:
            raise InputError(f"config: tasks.{name}.head={chosen} has no method forward")
        return head
    fitting = SENTENCE_HEADS if task.num_sentences == 1 else PAIR_HEADS
    if chosen not in fitting:
        raise InputError(f"config: tasks.{name}.head={chosen} does not fit this task{nearest(chosen, fitting)}")
    return fitting[chosen]


def find_loss(name: str, task: Task, options: TaskConfig) -> Loss:
    """The loss function of a task: the config's, else the task's own.

    Raises:
        InputError: the name is not known, or does not fit the task's number of outputs.
    """
    chosen = options.loss or task.loss
    if callable(chosen):
        return chosen
    if "." in chosen:
        loss = import_path(chosen, f"tasks.{name}.loss")
        if isinstance(loss, type) or not callable(loss):
            raise InputError(f"config: tasks.{name}.loss={chosen} is no function of logits, labels and largest label")
        return loss
    fitting = CLASSIFICATION if task.classification else REGRESSION | (RANKING if task.graded else {})
    if chosen not in fitting:
        raise InputError(f"config: tasks.{name}.loss={chosen} does not fit this task{nearest(chosen, fitting)}")
    return fitting[chosen]
