"""Progress that a person can follow: a bar for each epoch on a terminal, elsewhere one line an epoch."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from pytorch_lightning import Callback, Trainer
from tqdm import tqdm

from mtbert.callbacks import Recorder
from mtbert.data.updates import Update
from mtbert.module import MultitaskModule
from mtbert.plan import Plan
from mtbert.study import LABEL, PLAIN
from mtbert.terminal import clock, tell

logger = logging.getLogger(__name__)


def label(plan: Plan) -> str:
    """What a run is called where its progress is told."""
    return os.environ.get(LABEL) or f"{plan.config.name} s{plan.config.seed}"


class Progress(Callback):
    """Which run, which epoch, losses, metrics, time left; on standard error."""

    def __init__(self, recorder: Recorder, plan: Plan) -> None:
        self.recorder = recorder
        self.label = label(plan)
        self.total_epochs = sum(phase.epochs for phase in plan.phases)
        self.bar: tqdm[Any] | None = None
        self.bars = sys.stderr.isatty() and PLAIN not in os.environ

    def on_train_epoch_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        if self.bars:
            where = f"{self.label}  epoch {len(self.recorder.epochs) + 1}/{self.total_epochs}"
            self.bar = tqdm(total=int(trainer.num_training_batches), desc=where, leave=False, unit="step")

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, outputs: dict[str, Any], batch: Update, batch_idx: int
    ) -> None:
        if self.bar is not None:
            self.bar.update()
            if batch_idx % 10 == 0:
                self.bar.set_postfix({task: f"{float(loss):.3f}" for task, loss in outputs["losses"].items()})

    def on_validation_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        if self.bar is not None:
            self.bar.set_postfix_str("evaluating")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        self._close()
        epoch = self.recorder.epochs[-1]
        line = f"{self._position(epoch)}  {_figures(epoch)}"
        tell(f"{self.label}  {line}")
        logger.info("%s", line)

    def on_exception(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _position(self, epoch: dict[str, Any]) -> str:
        done = len(self.recorder.epochs)
        left = (self.total_epochs - done) * self.recorder.seconds / done
        return f"epoch {done}/{self.total_epochs} ({epoch['phase']})  {clock(left)} left"


def _figures(epoch: dict[str, Any]) -> str:
    metrics, figures = epoch["metrics"], dev_figures(epoch)
    losses = [value for name, value in metrics.items() if name.endswith("/loss") and value is not None]
    loss = f"{sum(losses) / len(losses):.3f}" if losses else "undef."
    return f"loss {loss}  dev: {figures}" if figures else f"loss {loss}"


def dev_figures(epoch: dict[str, Any]) -> str:
    """An epoch's dev metrics, shortly: ``sst 0.500  para 0.800``; nothing where it has none."""
    shown = {name.split("/")[1]: value for name, value in epoch["metrics"].items() if name.startswith("dev/")}
    figures = [f"{name} {'undef.' if value is None else format(value, '.3f')}" for name, value in shown.items()]
    return "  ".join(figures)
