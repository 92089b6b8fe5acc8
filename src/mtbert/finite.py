"""A loss that is no finite number ends the run and says where it came up."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from mtbert.data.updates import TaskRows, Update
from mtbert.errors import Diverged
from mtbert.module import MultitaskModule

logger = logging.getLogger(__name__)
MOST_IDS = 5  # in the one line; the log has all


@dataclass(frozen=True)
class _Seen:
    step: int  # of the epoch, from 1
    task: str
    rows: TaskRows | None  # None: masked tokens, not rows of a task
    values: Tensor  # the loss of each row


class FiniteLoss(Callback):
    """Looks at every row's loss: on the CPU after each step, on a GPU each time that Lightning logs, since every look
    makes the host wait for the device.

    Raises:
        Diverged: a loss is NaN or infinite; names phase, epoch, step, task and the batch's row ids.
    """

    def __init__(self) -> None:
        self.seen: list[_Seen] = []

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, outputs: dict[str, Any], batch: Update, batch_idx: int
    ) -> None:
        rows = {part.task: part for part in batch.tasks}
        self.seen += [_Seen(batch_idx + 1, task, rows.get(task), values) for task, values in outputs["values"].items()]
        if pl_module.device.type == "cpu" or (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, module: MultitaskModule) -> None:
        seen, self.seen = self.seen, []
        if seen and not torch.cat([each.values for each in seen]).isfinite().all():
            _stop(trainer, module, next(each for each in seen if not each.values.isfinite().all()))


def _stop(trainer: Trainer, module: MultitaskModule, seen: _Seen) -> None:
    assert module.phase is not None
    values, task = seen.values.float().cpu(), seen.task
    first = values[~values.isfinite()][0]
    where = f"phase {module.phase.name}, epoch {trainer.current_epoch + 1}, step {seen.step}"
    found = f"{where}: the loss of task '{task}' is {first:g}" if seen.rows else f"{where}: the loss is {first:g}"
    if seen.rows:
        ids = [str(each) for each in trainer.datamodule.tables["train", task].ids[seen.rows.rows.numpy()]]  # type: ignore[attr-defined]
        logger.info("%s: losses of task '%s' by row id: %s", where, task, dict(zip(ids, values.tolist(), strict=True)))
        more = f" and {len(ids) - MOST_IDS} more, see run.log" if ids[MOST_IDS:] else ""
        found += f" (rows {', '.join(ids[:MOST_IDS])}{more})"
    raise Diverged(f"{found}; a lower lr may help")
