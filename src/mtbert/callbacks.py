"""What happens around training: the run's history and checkpoints, the cache of a fixed encoder."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from mtbert.checkpoints import read_checkpoint, save_weights
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Update
from mtbert.module import MultitaskModule
from mtbert.plan import Phase
from mtbert.results.record import AVERAGE
from mtbert.rundir import now


class Recorder(Callback):
    """Keeps what every epoch gave, and the best and the last weights.

    Its state travels in each checkpoint, so that a continued run has the history of an unbroken one. The best epoch
    is the one with the highest dev average, over all phases; of equal ones the first.
    """

    STATE = ("phase_index", "phase_name", "steps_before", "epochs", "dev_logits", "best_index", "started", "seconds")

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints
        self.phase_index = 0
        self.phase_name = ""
        self.steps_before = 0  # optimiser steps of the phases before this one
        self.epochs: list[dict[str, Any]] = []
        self.dev_logits: dict[str, list[Tensor]] = {}
        self.best_index: int | None = None
        self.started = now()
        self._earlier, self._clock = 0.0, time.perf_counter()  # seconds of earlier processes; when this one began
        self._epoch_clock = time.perf_counter()
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._logits: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    @property
    def seconds(self) -> float:
        """Seconds of work on the run so far, by all processes that did some."""
        return self._earlier + time.perf_counter() - self._clock

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.safetensors"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.safetensors"

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._earlier, self._clock = state.pop("seconds"), time.perf_counter()
        for name, value in state.items():
            setattr(self, name, value)

    def resume(self) -> int:
        """Take up the history of the last checkpoint, if there is one; the index of the phase to go on with."""
        if self.last.is_file():
            self.load_state_dict(read_checkpoint(self.last)["callbacks"][self.state_key])
        return self.phase_index

    def begin(self, index: int, phase: Phase) -> None:
        """A new phase starts; a resumed one restores its own state instead."""
        self.phase_index, self.phase_name = index, phase.name
        self.steps_before = self.epochs[-1]["step"] if self.epochs else 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        self._epoch_clock = time.perf_counter()
        self._values.clear()
        self._logits.clear()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, outputs: dict[str, Any], batch: Update, batch_idx: int
    ) -> None:
        for task in batch.tasks:
            self._values[task.task].append(outputs["values"][task.task])
            if pl_module.config.train_metrics == "running":
                self._logits[task.task].append((outputs["logits"][task.task], task.labels))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        metrics = dict(pl_module.metrics)
        for task, values in self._values.items():
            metrics[f"train/{task}/loss"] = float(torch.cat(values).float().mean())
        metrics |= self._running(pl_module)
        self.epochs.append(
            {
                "phase": self.phase_name,
                "epoch": trainer.current_epoch + 1,
                "step": self.steps_before + trainer.global_step,
                "seconds": round(time.perf_counter() - self._epoch_clock, 3),
                "metrics": {name: round(value, 7) if math.isfinite(value) else None for name, value in metrics.items()},
            }
        )
        for split, task in pl_module.evaluation.parts:
            if split == "dev":
                self.dev_logits.setdefault(task, []).append(pl_module.evaluation.gathered((split, task))[0])
        if self._is_best():
            self.best_index = len(self.epochs) - 1
            save_weights(pl_module, self.best)
        trainer.save_checkpoint(self.last)

    def _running(self, module: MultitaskModule) -> dict[str, float]:
        """Metrics of the training pass itself: of weights that change, and with dropout."""
        found = {}
        for task, pairs in self._logits.items():
            logits, labels = (torch.cat(column).float().cpu() for column in zip(*pairs, strict=True))
            found[f"train/{task}/{module.tasks[task].metric_name}"] = module.metric(task, logits, labels)
        if len(found) == len(module.tasks):
            found["train/average"] = math.fsum(found.values()) / len(found)
        return found

    def _is_best(self) -> bool:
        """Whether the newest epoch beats all before it; where none had a defined average, the newest does."""
        if self.best_index is None:
            return True
        best = self.epochs[self.best_index]["metrics"].get(AVERAGE)
        newest = self.epochs[-1]["metrics"].get(AVERAGE)
        return best is None or (newest is not None and newest > best)


class EmbeddingCache(Callback):
    """Computes a fixed encoder's outputs once, before the phase that can use them starts."""

    def on_fit_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        if pl_module.phase is None or not pl_module.phase.cached:
            return
        data: MixedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        updates = data.evaluation_updates(("train", "dev"))
        with trainer.precision_plugin.forward_context():
            pl_module.cache_embeddings(
                (updates[i] for i in range(len(updates))), sum(table.num_sequences for table in data.tables.values())
            )
