"""What happens around training: the run's history and checkpoints, the cache of a fixed encoder."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from mtbert.checkpoints import previous, read_checkpoint, read_weights, save_weights
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Update
from mtbert.errors import InputError
from mtbert.evaluation import Evaluation, metric_of
from mtbert.module import MultitaskModule
from mtbert.paths import BEST, LAST
from mtbert.plan import Phase
from mtbert.results.record import Epoch, best_of
from mtbert.rundir import now
from mtbert.stopping import Stop

logger = logging.getLogger(__name__)


class Recorder(Callback):
    """Keeps what every epoch gave, and the best and the last weights.

    Its state travels in each checkpoint, so that a continued run has the history of an unbroken one, the losses and
    logits of an epoch that has begun included. The best epoch is the one with the highest dev average, over all
    phases that are evaluated; of equal ones the first. Its weights stay as long as a checkpoint names it.
    """

    STATE = (
        "phase_index",
        "phase_name",
        "steps_before",
        "step",
        "epochs",
        "dev_logits",
        "best_index",
        "started",
        "seconds",
        "epoch_seconds",
    )

    def __init__(self, directory: Path) -> None:
        self.directory = directory  # of the run
        self.checkpoints = directory / LAST.parent
        self.phase_index = 0
        self.phase_name = ""
        self.steps_before = 0  # optimiser steps of the phases before this one
        self.step = 0  # of the epoch that has begun: how many are done
        self.epochs: list[dict[str, Any]] = []
        self.dev_logits: dict[str, dict[int, Tensor]] = {}  # by task, then by the epoch's index in ``epochs``
        self.best_index: int | None = None
        self.started = now()
        self._earlier, self._clock = 0.0, time.perf_counter()  # seconds of earlier processes; when this one began
        self._epoch_earlier, self._epoch_clock = 0.0, time.perf_counter()
        self._saved_best: int | None = None  # of the last checkpoint
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._logits: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    @property
    def steps(self) -> int:
        """Optimiser steps of the run so far."""
        return (self.epochs[-1]["step"] if self.epochs else 0) + self.step

    def epochs_of(self, phase: Phase) -> int:
        """How many epochs of a phase are behind."""
        return sum(epoch["phase"] == phase.name for epoch in self.epochs)

    @property
    def seconds(self) -> float:
        """Seconds of work on the run so far, by all processes that did some."""
        return self._earlier + time.perf_counter() - self._clock

    @property
    def epoch_seconds(self) -> float:
        """The same of the epoch that has begun."""
        return self._epoch_earlier + time.perf_counter() - self._epoch_clock

    @property
    def best(self) -> Path:
        """The weights of the best epoch so far."""
        return self._kept(self.best_index)

    @property
    def _final(self) -> Path:
        return self.directory / BEST

    def _weights(self, index: int | None) -> Path:
        """Where an epoch's weights are while the run goes on."""
        return self.checkpoints / f"best-{index}.safetensors"

    def _kept(self, index: int | None) -> Path:
        """The same; under their final name where a finished run was cut off before its result was written."""
        return path if (path := self._weights(index)).is_file() else self._final

    @property
    def last(self) -> Path:
        return self.directory / LAST

    def state_dict(self) -> dict[str, Any]:
        rows = {"values": _joined(self._values), "logits": {task: _columns(p) for task, p in self._logits.items()}}
        return {name: getattr(self, name) for name in self.STATE} | rows

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._earlier, self._clock = state.pop("seconds"), time.perf_counter()
        self._epoch_earlier, self._epoch_clock = state.pop("epoch_seconds"), time.perf_counter()
        self._values = defaultdict(list, {task: [rows] for task, rows in state.pop("values").items()})
        self._logits = defaultdict(list, {task: [tuple(columns)] for task, columns in state.pop("logits").items()})
        for name, value in state.items():
            setattr(self, name, value)
        self._saved_best = self.best_index

    def resume(self) -> Path | None:
        """Take up the newest sound checkpoint; None where there is none, and the run starts over."""
        there = [path for path in (self.last, previous(self.last)) if path.exists()]
        for path in there:
            try:
                state = read_checkpoint(path)["callbacks"][self.state_key]
                if state["best_index"] is not None:
                    read_weights(self._kept(state["best_index"]))
                self.load_state_dict(state)
                return path
            except InputError as error:
                otherwise = "the run starts over" if path == there[-1] else "the one before is taken"
                logger.warning("%s; %s", error, otherwise)
                path.unlink(missing_ok=True)  # it must not take the sound one's place when the next is written
        for path in self.checkpoints.glob("*.safetensors"):
            path.unlink(missing_ok=True)
        return None

    def begin(self, index: int, phase: Phase) -> None:
        """A new phase starts; a resumed one has its own state instead."""
        self.phase_index, self.phase_name, self.step = index, phase.name, 0
        self.steps_before = self.epochs[-1]["step"] if self.epochs else 0

    def on_train_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        device = pl_module.device  # what a checkpoint held came to the CPU
        for task, rows in self._values.items():
            self._values[task] = [each.to(device) for each in rows]
        for task, pairs in self._logits.items():
            self._logits[task] = [(logits.to(device), labels.to(device)) for logits, labels in pairs]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        self.step, self._epoch_earlier, self._epoch_clock = 0, 0.0, time.perf_counter()
        self._values.clear()
        self._logits.clear()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, outputs: dict[str, Any], batch: Update, batch_idx: int
    ) -> None:
        self.step = batch_idx + 1
        for name, values in outputs["values"].items():
            self._values[name].append(values)
        for task in batch.tasks:
            if pl_module.config.train_metrics == "running":
                self._logits[task.task].append((outputs["logits"][task.task], task.labels))

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint; best weights that neither it nor the one before names are removed."""
        trainer.save_checkpoint(self.last)
        named = {self._weights(self.best_index), self._weights(self._saved_best)}
        for path in set(self.checkpoints.glob("best-*.safetensors")) - named:
            path.unlink()
        self._saved_best = self.best_index

    def on_train_epoch_end(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        metrics = dict(pl_module.metrics)
        for task, values in self._values.items():
            metrics[f"train/{task}/loss"] = float(torch.cat(values).float().mean())
        metrics |= self._running(pl_module)
        step = self.steps_before + trainer.global_step
        if self.record(trainer.current_epoch + 1, step, metrics, pl_module.evaluation) and trainer.is_global_zero:
            save_weights(pl_module.exported(), self._weights(self.best_index))
        self.step = 0
        self._values.clear()
        self._logits.clear()

    def record(self, epoch: int, step: int, metrics: dict[str, float], evaluation: Evaluation) -> bool:
        """Keep what an epoch gave; whether it is the best so far, whose weights are to be saved."""
        newest = len(self.epochs)
        self.epochs.append(
            {
                "phase": self.phase_name,
                "epoch": epoch,
                "step": step,
                "seconds": round(self.epoch_seconds, 3),
                "metrics": {name: round(value, 7) if math.isfinite(value) else None for name, value in metrics.items()},
            }
        )
        for split, task in evaluation.parts:
            if split == "dev":
                self.dev_logits.setdefault(task, {})[newest] = evaluation.gathered((split, task))[0]
        if best_of([Epoch(**each) for each in self.epochs]).index == newest:
            self.best_index = newest
        return self.best_index == newest

    def finish(self) -> None:
        """Training is over: the best weights take their final name, and only the last checkpoint stays beside them."""
        if self.best != self._final:
            self.best.replace(self._final)
        for path in set(self.checkpoints.glob("*.safetensors")) - {self._final, self.last}:
            path.unlink()

    def tidy(self, keep: str) -> None:
        """Remove what a finished run does not keep (``keep`` of the config)."""
        if keep != "all":
            self.last.unlink(missing_ok=True)
        if keep == "none":
            self._final.unlink(missing_ok=True)

    def _running(self, module: MultitaskModule) -> dict[str, float]:
        """Metrics of the training pass itself: of weights that change, and with dropout."""
        found = {}
        for task, pairs in self._logits.items():
            logits, labels = (torch.cat(column).float().cpu() for column in zip(*pairs, strict=True))
            definition = module.tasks[task]
            found[f"train/{task}/{definition.metric_name}"] = metric_of(definition, module.recipe, logits, labels)
        if len(found) == len(module.tasks):
            found["train/average"] = math.fsum(found.values()) / len(found)
        return found


class EmbeddingCache(Callback):
    """Computes a fixed encoder's outputs once, before the phase that can use them starts."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def on_fit_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        if pl_module.phase is None or not pl_module.phase.cached:
            return
        data: MixedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with trainer.precision_plugin.forward_context():
            read = [table for (split, _), table in data.tables.items() if split != "test"]  # which are numbered last
            pl_module.cache_embeddings(self._updates(data), sum(table.num_sequences for table in read))
        if data.share is not None:
            dist.all_reduce(pl_module.embeddings)

    def _updates(self, data: MixedDataModule) -> Iterator[Update]:
        """All updates, or of several processes each its own."""
        updates, share = data.evaluation_updates(("train", "dev")), data.share
        for index in range(len(updates)) if share is None else share.of(len(updates)):
            self.stop.check()
            yield updates[index]


def _joined(parts: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    return {task: torch.cat(each) for task, each in parts.items()}


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Logits and labels of many batches as one batch."""
    return [torch.cat(column) for column in zip(*pairs, strict=True)]
