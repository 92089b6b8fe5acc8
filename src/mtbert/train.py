"""One run: plan, build, fit phase by phase, score, write ``result.json``."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger

from mtbert import ranks, sharing
from mtbert.board import Board
from mtbert.callbacks import EmbeddingCache, Recorder
from mtbert.checkpoints import Checkpoints, SafetensorsIO, load_weights
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.updates import Share
from mtbert.distillation import learn_from
from mtbert.errors import InputError, explain
from mtbert.finite import FiniteLoss
from mtbert.loggers import build_loggers
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.outputs import write_outputs
from mtbert.parents import find_teachers
from mtbert.parts import check_parents, check_parts
from mtbert.paths import atomic_write
from mtbert.plan import Phase, Plan, make_plan
from mtbert.progress import Progress
from mtbert.provenance import provenance
from mtbert.results.record import FAILED_FILE, Epoch, RunRecord, best_of
from mtbert.rundir import claimed, finished, make_ready, record_alias, record_failure
from mtbert.runtime import find_runtime
from mtbert.soup import stir
from mtbert.stopping import deferred_signals
from mtbert.terminal import tell


def run(
    config: Config,
    overrides: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    arguments: Sequence[str] = (),
) -> RunRecord:
    """Train as ``config`` says, unless it is done already; an interrupted run goes on where it stopped.

    Args:
        overrides: how the config came about, for the record.
        callbacks: to watch the training with; they have to leave it as it is.
        arguments: of the command line beside the overrides (``--config-dir ...``), for the record too.

    Returns:
        The record that stands in the run directory's ``result.json``.

    Raises:
        InputError: a mistake in config, data or encoder; ``failed.json`` says so too once there is a directory.
    """
    plan = make_plan(config, find_runtime(config.trainer))
    check_parts(plan)
    with claimed(plan):
        if (done := finished(plan)) is not None:
            tell(f"{done.directory}: done already")
            return record_alias(plan, done, overrides, arguments)
        check_parents(plan)
        make_ready(plan)
        (plan.directory / FAILED_FILE).unlink(missing_ok=True)
        try:
            with _log_file(plan.directory / "run.log"):
                return _train(plan, provenance(plan, overrides, arguments), callbacks)
        except Exception as error:
            record_failure(plan, explain(error)[0])
            raise


def _train(plan: Plan, origin: dict[str, Any], callbacks: Sequence[Callback]) -> RunRecord:
    """``origin``: of the code that trains, whatever is edited meanwhile."""
    config, directory = plan.config, plan.directory
    torch.set_num_threads(plan.runtime.threads)
    with atomic_write(directory / "config.yaml") as temporary:
        OmegaConf.save(OmegaConf.structured(config), temporary)
    recorder = Recorder(directory)
    sharing.take_up(plan)
    if plan.phases:
        with ranks.started(plan) as join:
            data, module = build(plan)
            join()
            fit(plan, data, module, recorder, [Progress(recorder, plan), Board(plan, recorder), *callbacks])
        load_weights(module, recorder.best)
    else:
        data, module = stir(plan, recorder)
    write_outputs(plan, data, module, recorder)
    record = make_record(origin, plan, data, recorder)
    recorder.finish()
    record.write(directory)
    recorder.tidy("all" if sharing.asked_to_keep() else config.keep)
    if sharing.asked_to_keep():
        sharing.leave(plan)
    return dataclasses.replace(record, directory=directory)


def build(plan: Plan) -> tuple[MixedDataModule, MultitaskModule]:
    """The run's rows, and its model as it starts."""
    data = MixedDataModule.from_plan(plan)
    data.setup()
    _check_surgery(plan, data)
    module = build_module(plan.config, load_encoder(plan.config.encoder, plan.config.seed))
    module.teachers = learn_from(find_teachers(plan.config), plan, data)
    return data, module


def _check_surgery(plan: Plan, data: MixedDataModule) -> None:
    """Surgery on gradients that never meet would be plain training under another name."""
    if (method := plan.config.methods.gradients) == "sum":
        return
    for phase in plan.phases:
        if phase.trains_tasks and "encoder" not in phase.freeze:
            data.begin(phase)
            if any(len(step) > 1 for step in data.steps(0)):
                return
    raise InputError(
        f"config: methods.gradients={method}, but no step has rows of two tasks; expected a schedule that mixes them, "
        "such as schedule=round_robin"
    )


def fit(
    plan: Plan, data: MixedDataModule, module: MultitaskModule, recorder: Recorder, callbacks: Sequence[Callback]
) -> None:
    """Train all phases, one ``Trainer.fit`` each, from the newest checkpoint on where there is one.

    ``callbacks`` are those of rank 0, where the run has several processes.

    Raises:
        Stopped: the process was asked to; there is a checkpoint of where it stood.
    """
    with deferred_signals() as stop:
        share = data.share = ranks.share(plan)
        leads = share is None or share.rank == 0
        checkpoint, first = recorder.resume(), recorder.phase_index
        loggers = build_loggers(plan, recorder.steps) if leads else []
        around: list[Callback] = [EmbeddingCache(stop), recorder]
        if leads:
            around = [FiniteLoss(), *around, *callbacks, Checkpoints(recorder, plan.config.trainer, stop)]
        for index, phase in enumerate(plan.phases[first:], start=first):
            ranks.wait_for_all()
            data.begin(phase, recorder.epochs_of(phase), recorder.step)
            if checkpoint is None:
                if phase.start_from == "best" and recorder.best_index is not None:
                    load_weights(module, recorder.best)
                recorder.begin(index, phase)
            module.begin(phase, data.num_steps())
            with _quiet():
                trainer = build_trainer(plan, phase, loggers, around, share)
                _fit(trainer, module, data, checkpoint)
            module.end()
            stop.check()
            checkpoint = None


def _fit(trainer: Trainer, module: MultitaskModule, data: MixedDataModule, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None


def build_trainer(
    plan: Plan, phase: Phase, loggers: list[Logger], callbacks: list[Any], share: Share | None
) -> Trainer:
    """A Lightning trainer for one phase."""
    trainer = Trainer(
        accelerator=plan.runtime.accelerator,
        devices=plan.runtime.devices,
        strategy="auto" if share is None else ranks.Strategy(plan.runtime, share.rank),
        use_distributed_sampler=False,
        precision=plan.runtime.precision,  # type: ignore[arg-type]
        max_epochs=phase.epochs,
        callbacks=callbacks,
        logger=loggers,
        plugins=[SafetensorsIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if phase.trains_tasks else 0,  # heads that wait for their training say nothing
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=plan.config.trainer.log_every_n_steps,
    )
    # Signals are ours (mtbert.stopping): Lightning's handler of SIGTERM talks to the other processes then and there.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def make_record(origin: dict[str, Any], plan: Plan, data: MixedDataModule, recorder: Recorder) -> RunRecord:
    """Everything about a finished run."""
    return RunRecord.from_json(
        {
            **origin,
            "started": recorder.started,
            "seconds": round(recorder.seconds, 1),
            "rows": data.report,
            "epochs": recorder.epochs,
            "best": dataclasses.asdict(best_of([Epoch(**epoch) for epoch in recorder.epochs])),
        },
        plan.directory,
    )


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Keep what is logged meanwhile in a file too, a continued run appends; warnings are shown as well."""
    log, file, shown = logging.getLogger("mtbert"), logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler()
    file.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    shown.setLevel(logging.WARNING)
    level = log.level
    log.setLevel(logging.INFO)
    for handler in (file, shown):
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in (file, shown):
            log.removeHandler(handler)
            handler.close()
        log.setLevel(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice about workers and intervals from a reader who asked for a table."""
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*number of training batches.*",
            ".*in eval mode.*",
            ".*LeafSpec.*",
            ".*`srun` command is available.*",  # a run of a study, or a Slurm job of one task, needs none
            ".*your dataloader is not resumable.*",  # it is: see MixedDataModule.begin
            ".*sync_dist=True.*",  # metrics are the same on every rank
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
