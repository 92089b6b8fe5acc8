"""The loggers that the config names. They are built once for a run, and go on where an earlier process stopped."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from mtbert.errors import InputError
from mtbert.paths import atomic_write
from mtbert.plan import Plan


class CsvLogger(Logger):
    """All metrics in one file, one row a step, columns in the order of their first appearance.

    Lightning's own CSV logger deletes what it finds. This one keeps the rows up to ``step``: what an earlier process
    logged after its last checkpoint will be logged again.

    Raises:
        InputError: the file is there but was not written by this class.
    """

    def __init__(self, path: Path, step: int) -> None:
        super().__init__()
        self.path = path
        self.rows = {number: row for number, row in read_metrics(path).items() if number <= step}

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's ``config.yaml`` has them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None:
            step = max(self.rows, default=0)
        self.rows.setdefault(step, {}).update({name: float(value) for name, value in metrics.items()})

    def save(self) -> None:
        columns = dict.fromkeys(["step", *(name for row in self.rows.values() for name in row)])
        with atomic_write(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns), lineterminator="\n")
            writer.writeheader()
            for step, row in self.rows.items():
                writer.writerow({"step": step, **{name: f"{value:.7g}" for name, value in row.items()}})

    def finalize(self, status: str) -> None:
        self.save()


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """The rows that ``CsvLogger`` wrote: step -> metrics; none where there is no file."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(int(row.pop("step")), row) for row in csv.DictReader(file)]
        return {step: {name: float(value) for name, value in row.items() if value} for step, row in rows}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not the metrics that a run logs; move the file away to go on without it") from None


def build_loggers(plan: Plan, step: int) -> list[Logger]:
    """The loggers of a run that has ``step`` optimiser steps behind it, all writing into its directory.

    Raises:
        InputError: the config asks for wandb, which is not installed.
    """
    directory = plan.directory
    builders = {
        "tensorboard": lambda: _tensorboard(directory, step),
        "csv": lambda: CsvLogger(directory / "metrics.csv", step),
        "wandb": lambda: _wandb(directory),
    }
    return [builders[name]() for name in plan.config.loggers]


def _tensorboard(directory: Path, step: int) -> Logger:
    # purge_step: readers drop what an earlier process logged from that step on.
    return TensorBoardLogger(
        directory, name="", version="tensorboard", default_hp_metric=False, purge_step=step + 1, max_queue=100
    )


def _wandb(directory: Path) -> Logger:
    # resume: a continued run goes on in its W&B run, which shows the steps after the last checkpoint twice.
    try:
        return WandbLogger(project="mtbert", name=directory.name, save_dir=directory, resume="auto")
    except ModuleNotFoundError:
        raise InputError('config: loggers has wandb, which is not installed; pip install "mtbert[wandb]"') from None
