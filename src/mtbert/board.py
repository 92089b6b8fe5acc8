"""What a run logs, for whatever loggers it has; figures, charts and HParams for TensorBoard.

The x axis counts optimiser steps from the start of the run, over all phases. Groups: ``step/`` every few steps,
``train/`` and ``dev/`` after each epoch, ``best/`` the dev metrics of the best epoch so far, ``optim/``, ``progress/``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from mtbert.callbacks import Recorder
from mtbert.data.updates import Update
from mtbert.fields import changed
from mtbert.module import MultitaskModule
from mtbert.plan import Phase, Plan
from mtbert.tasks import Task, find_task

NUM_ERRORS = 20  # of each task, as text


class Board(Callback):
    """Logs every few steps and after every epoch.

    Between two logged steps tensors are only kept, never read: a step waits for no accelerator.
    """

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        self.plan, self.recorder = plan, recorder
        self.num_logged: int | None = None  # epochs
        self._values: dict[str, list[Tensor]] = defaultdict(list)  # the rows' losses since the last logged step
        self._norms: dict[str, Tensor] = {}
        self._lr = 0.0  # of the step, before the factors of layers and heads

    def state_dict(self) -> dict[str, Any]:
        return {"values": {task: torch.cat(values) for task, values in self._values.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._values = defaultdict(list, {task: [values] for task, values in state_dict["values"].items()})

    def on_fit_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        if self.num_logged is not None:
            return
        self.num_logged = len(self.recorder.epochs)
        for logger in trainer.loggers:
            logger.log_hyperparams(settings(self.plan))
        for writer in writers(trainer):
            writer.add_custom_scalars(layout(pl_module.tasks))
            write_settings(writer, settings(self.plan))

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._due(trainer, trainer.global_step + 1):
            self._norms = {part: gradient_norm(getattr(pl_module, part)) for part in ("encoder", "heads")}
            group = optimizer.param_groups[0]  # has the schedule's factor beside that of its layer
            self._lr = self._phase.lr * group["lr"] / group.get("initial_lr", group["lr"])

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, outputs: dict[str, Any], batch: Update, batch_idx: int
    ) -> None:
        if not trainer.loggers:
            return
        for task, values in outputs["values"].items():
            self._values[task].append(values)
        if self._due(trainer, trainer.global_step):
            self._log_step(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        for task, values in self._values.items():  # a checkpoint's came to the CPU
            self._values[task] = [each.to(pl_module.device) for each in values]

    def on_validation_start(self, trainer: Trainer, pl_module: MultitaskModule) -> None:  # type: ignore[override]
        self._values.clear()  # an epoch's are not logged with the next one's

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: Trainer, pl_module: MultitaskModule, checkpoint: dict[str, Any]
    ) -> None:
        """Log the newest epoch before its checkpoint is written.

        What a checkpoint covers is in the logs then, and a run that is continued from it logs all else once more.
        """
        if trainer.loggers and self.num_logged != len(self.recorder.epochs):
            self.num_logged = len(self.recorder.epochs)
            self._log_epoch(trainer, pl_module)
        for logger in trainer.loggers:
            logger.save()

    def _log_epoch(self, trainer: Trainer, pl_module: MultitaskModule) -> None:
        step = self.recorder.epochs[-1]["step"]
        _log(trainer, self._epoch_metrics(), step)
        if sum(epoch["phase"] == self._phase.name for epoch in self.recorder.epochs) == self._phase.epochs:
            self._end_phase(trainer, pl_module, step)

    @property
    def _phase(self) -> Phase:
        return self.plan.phases[self.recorder.phase_index]

    @property
    def _best_epoch(self) -> dict[str, Any]:
        return self.recorder.epochs[self.recorder.best_index or 0]

    def _due(self, trainer: Trainer, step: int) -> bool:
        """Whether to log the phase's ``step``-th step."""
        every = self.plan.config.trainer.log_every_n_steps
        return bool(trainer.loggers) and every > 0 and (self.recorder.steps_before + step) % every == 0

    def _log_step(self, trainer: Trainer) -> None:
        named = {f"step/{task}/loss": torch.cat(values).float().mean() for task, values in self._values.items()}
        self._values.clear()
        norms = torch.stack(list(self._norms.values()))
        named["optim/grad_norm"] = torch.linalg.vector_norm(norms)
        named |= {f"optim/grad_norm_{part}": norm for part, norm in self._norms.items()}
        metrics = dict(zip(named, torch.stack(list(named.values())).tolist(), strict=True))  # one wait for all
        metrics["optim/lr"] = self._lr
        _log(trainer, metrics, self.recorder.steps_before + trainer.global_step)

    def _epoch_metrics(self) -> dict[str, float]:
        """Of the newest epoch, and as ``best/`` the dev metrics of the best one so far; undefined ones are left out."""
        newest, best = self.recorder.epochs[-1], self._best_epoch["metrics"]
        metrics = newest["metrics"] | {
            f"best/{name.removeprefix('dev/')}": value for name, value in best.items() if name.startswith("dev/")
        }
        metrics |= {"progress/epoch": len(self.recorder.epochs), "progress/seconds": newest["seconds"]}
        return {name: value for name, value in metrics.items() if value is not None}

    def _end_phase(self, trainer: Trainer, module: MultitaskModule, step: int) -> None:
        """Figures of the best epoch so far; with the last phase the run ends."""
        for writer in writers(trainer) if self._phase.trains_tasks else ():
            self._draw(writer, trainer.datamodule.tables, module.tasks, step)  # type: ignore[attr-defined]
            if self._phase is self.plan.phases[-1]:
                write_success(writer)

    def _draw(self, writer: SummaryWriter, tables: Mapping[Any, Any], tasks: Mapping[str, Task], step: int) -> None:
        from mtbert.figures.canvas import rendered  # matplotlib: not before there is something to draw
        from mtbert.figures.errors import errors_markdown
        from mtbert.figures.predictions import figures_of
        from mtbert.outputs import predictions
        from mtbert.results.scoring import worst_errors
        from mtbert.results.sentences import dev_sentences

        index, epoch = self.recorder.best_index or 0, self._best_epoch
        for name, task in tasks.items():
            value = epoch["metrics"].get(f"dev/{name}/{task.metric_name}")
            shown = "undefined" if value is None else f"{value:.3f}"
            title = f"{name.upper()} dev, epoch {index + 1}: {task.metric_name} {shown}"
            logits, table = self.recorder.dev_logits[name][index], tables["dev", name]
            scores = task.score(logits).double().numpy()
            for kind, figure in figures_of(name, task, scores, table.labels, title):
                writer.add_image(f"dev/{name}/{kind}", rendered(figure), step, dataformats="HWC")
            rows = predictions(task, logits).assign(id=table.ids, label=table.labels)
            texts = dev_sentences(self.plan.config, self.plan.folder, name)
            writer.add_text(f"dev/{name}/worst_errors", errors_markdown(worst_errors(rows, NUM_ERRORS), texts), step)


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """TensorBoard's writers, if the run has any."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _log(trainer: Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step)


def gradient_norm(module: nn.Module) -> Tensor:
    """The 2-norm of all gradients as one vector; 0 where there are none."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = get_total_norm(gradients)
    return norm if gradients else norm.to(next(module.parameters()).device)


def layout(tasks: Mapping[str, Task]) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom scalars: for each task train and dev in one chart."""

    def chart(*tags: str) -> list[Any]:
        return ["Multiline", [f"^{tag}$" for tag in tags]]

    charts = {
        name: {
            f"{name} {task.metric_name}": chart(*(f"{split}/{name}/{task.metric_name}" for split in ("train", "dev"))),
            f"{name} loss": chart(f"step/{name}/loss", f"train/{name}/loss"),
        }
        for name, task in tasks.items()
    }
    return {"average": {"average": chart("train/average", "dev/average")}, **charts}


def write_settings(writer: SummaryWriter, values: dict[str, Any]) -> None:
    """The run's row on TensorBoard's HParams page; its metrics are the scalars of the same event files.

    ``SummaryWriter.add_hparams`` would make a further run of it. An experiment summary is left out on purpose: with
    it TensorBoard would take the columns from any one run, without it puts the settings that differ in front.
    """
    _, start, _ = hparams(values, {})
    writer._get_file_writer().add_summary(start, 0)


def write_success(writer: SummaryWriter) -> None:
    """Tell the HParams page that the run has ended well."""
    _, _, end = hparams({}, {})
    writer._get_file_writer().add_summary(end, 0)


def settings(plan: Plan) -> dict[str, str | float]:
    """What tells a run from others, short enough to read in a column; lr and batch size are the first phase's."""
    config, first = plan.config, plan.phases[0]
    methods = changed(config.optimizer) | changed(config.methods)
    losses = {name: task.loss or find_task(name, task).loss for name, task in config.tasks.items()}
    return {
        "experiment": config.name,
        "seed": config.seed,
        "scale": config.scale.name,
        "recipe": config.recipe.name,
        "encoder": config.encoder.name,
        "lr": first.lr,
        "batch_size": first.batch_size,
        "epochs": sum(phase.epochs for phase in plan.phases),
        "phases": " + ".join(_phase_text(phase) for phase in plan.phases),
        "schedule": _schedule_text(first.schedule),
        "share_layers": "yes" if config.heads.share_layers else "no",
        "datasets": ", ".join(config.datasets),
        "max_rows": ", ".join(f"{task} {limit}" for task, limit in plan.max_rows.items()) or "all",
        "losses": ", ".join(f"{name} {getattr(loss, '__name__', loss)}" for name, loss in losses.items()),
        "heads": ", ".join(f"{name} {task.head}" for name, task in config.tasks.items() if task.head)
        or "as in the paper",
        "methods": " ".join(f"{name}={value}" for name, value in methods.items()) or "as in the paper",
    }


def _phase_text(phase: Phase) -> str:
    """``extra 9 (encoder fixed)``"""
    notes = [f"{' '.join(phase.freeze)} fixed"] if phase.freeze else []
    notes += [] if phase.trains_tasks else [phase.objective]
    return f"{phase.name} {phase.epochs}" + (f" ({', '.join(notes)})" if notes else "")


def _schedule_text(schedule: dict[str, Any]) -> str:
    """The class and those of its arguments that are on: ``RoundRobin normalize pace=sst,sts``."""
    name = str(schedule.get("_target_")).rpartition(".")[2]
    given = {key: value for key, value in schedule.items() if key != "_target_" and value not in (None, False)}
    return " ".join([name, *(key if value is True else f"{key}={_short(value)}" for key, value in given.items())])


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
