"""One run: plan, build, fit phase by phase, score, write ``result.json``."""

from __future__ import annotations

import dataclasses
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from mtbert.board import Board
from mtbert.callbacks import EmbeddingCache, Progress, Recorder
from mtbert.checkpoints import SafetensorsIO, load_weights, read_checkpoint
from mtbert.config import Config
from mtbert.data.datamodule import MixedDataModule
from mtbert.errors import InputError
from mtbert.model.pretrained import load_encoder
from mtbert.module import MultitaskModule, build_module
from mtbert.outputs import write_outputs
from mtbert.paths import atomic_write
from mtbert.plan import Phase, Plan, make_plan
from mtbert.provenance import provenance
from mtbert.results.record import RESULT_FILE, Epoch, FailedRun, RunRecord, best_of
from mtbert.runtime import find_runtime

logger = logging.getLogger(__name__)


def run(config: Config, overrides: Sequence[str] = (), label: str = "") -> RunRecord:
    """Train as ``config`` says, unless it is done already; an interrupted run goes on where it stopped.

    Args:
        overrides: how the config came about, for the record.
        label: what progress lines open with; default: the run's name and seed.

    Returns:
        The record that stands in the run directory's ``result.json``.

    Raises:
        InputError: a mistake in config, data or encoder; ``failed.json`` says so too once there is a directory.
    """
    plan = make_plan(config, find_runtime(config.trainer))
    with claimed(plan):
        if (done := finished(plan)) is not None:
            print(f"{done.directory}: done already")
            return done
        plan.directory.mkdir(parents=True, exist_ok=True)
        (plan.directory / "failed.json").unlink(missing_ok=True)
        try:
            return _train(plan, overrides, label or f"{config.name} s{config.seed}")
        except Exception as error:
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            failure = FailedRun(
                config.name,
                config.seed,
                plan.hash,
                reason,
                _now(),
                config.scale.name,
                config.encoder.name,
                config.recipe.name,
            )
            failure.write(plan.directory)
            raise


@contextmanager
def claimed(plan: Plan) -> Iterator[None]:
    """Hold the run, so that two studies on one directory do no work twice; a process that dies lets go."""
    locks = Path(plan.config.runs_dir) / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{plan.hash}.lock"):
        yield


def finished(plan: Plan) -> RunRecord | None:
    """The record of this run if it was ever finished, under whatever experiment name."""
    for path in sorted(Path(plan.config.runs_dir).glob(f"*-{plan.hash}/{RESULT_FILE}")):
        try:
            return RunRecord.from_file(path)
        except InputError as error:
            logger.warning("%s; the run is made again", error)
    return None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _train(plan: Plan, overrides: Sequence[str], label: str) -> RunRecord:
    started, clock = _now(), time.perf_counter()
    config, directory = plan.config, plan.directory
    torch.set_num_threads(plan.runtime.threads)
    with atomic_write(directory / "config.yaml") as temporary:
        OmegaConf.save(OmegaConf.structured(config), temporary)
    data = MixedDataModule.from_plan(plan)
    data.setup()
    module = build_module(config, load_encoder(config.encoder))
    recorder = Recorder(directory / "checkpoints")
    fit(plan, data, module, recorder, label)
    load_weights(module, recorder.best)
    write_outputs(plan, data, module, recorder)
    record = make_record(plan, data, recorder, overrides, started, time.perf_counter() - clock)
    record.write(directory)
    _tidy(recorder, config.keep)
    return record


def fit(plan: Plan, data: MixedDataModule, module: MultitaskModule, recorder: Recorder, label: str) -> None:
    """Train all phases, from the last checkpoint on where there is one."""
    first = 0
    if recorder.last.is_file():
        state = read_checkpoint(recorder.last)["callbacks"]["Recorder"]
        first = state["phase_index"]
    progress = Progress(label, sum(phase.epochs for phase in plan.phases), recorder)
    board = Board(plan, recorder)
    for index, phase in enumerate(plan.phases[first:], start=first):
        resume = recorder.last if index == first and recorder.last.is_file() else None
        if resume is None and phase.start_from == "best" and recorder.best.is_file():
            load_weights(module, recorder.best)
        recorder.begin(index, phase)
        data.begin(phase)
        module.begin(phase)
        trainer = build_trainer(plan, phase, [EmbeddingCache(), recorder, progress, board])
        with _quiet():
            trainer.fit(module, datamodule=data, ckpt_path=resume)
        if trainer.interrupted:
            raise KeyboardInterrupt


def build_trainer(plan: Plan, phase: Phase, callbacks: list[Any]) -> Trainer:
    """A Lightning trainer for one phase."""
    return Trainer(
        accelerator=plan.runtime.accelerator,
        devices=1,
        precision=plan.runtime.precision,  # type: ignore[arg-type]
        max_epochs=phase.epochs,
        callbacks=callbacks,
        logger=build_loggers(plan.config, plan.directory),
        plugins=[SafetensorsIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=plan.config.trainer.log_every_n_steps,
    )


def build_loggers(config: Config, directory: Path) -> list[Logger]:
    """The loggers that the config names, all writing into the run's directory."""
    loggers: list[Logger] = []
    for name in config.loggers:
        if name == "tensorboard":
            loggers.append(TensorBoardLogger(directory, name="", version="tensorboard", default_hp_metric=False))
        elif name == "csv":
            loggers.append(CSVLogger(directory, name="", version="csv"))
        else:
            loggers.append(_wandb(config, directory))
    return loggers


def _wandb(config: Config, directory: Path) -> Logger:
    from pytorch_lightning.loggers import WandbLogger

    try:
        return WandbLogger(project="mtbert", name=directory.name, save_dir=directory)
    except ModuleNotFoundError:
        raise InputError('config: loggers has wandb, which is not installed; pip install "mtbert[wandb]"') from None


def make_record(
    plan: Plan, data: MixedDataModule, recorder: Recorder, overrides: Sequence[str], started: str, seconds: float
) -> RunRecord:
    """Everything about a finished run."""
    epochs = [Epoch(**epoch) for epoch in recorder.epochs]
    return RunRecord.from_json(
        {
            **provenance(plan, overrides),
            "started": started,
            "seconds": round(seconds, 1),
            "rows": data.report,
            "epochs": recorder.epochs,
            "best": dataclasses.asdict(best_of(epochs)),
        },
        plan.directory,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's advice about workers and intervals from a reader who asked for a table."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*number of training batches.*",
            ".*in eval mode.*",
            ".*LeafSpec.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def _tidy(recorder: Recorder, keep: str) -> None:
    """What a finished run keeps of its checkpoints."""
    if keep != "all":
        recorder.last.unlink(missing_ok=True)
    if keep == "none":
        recorder.best.unlink(missing_ok=True)
