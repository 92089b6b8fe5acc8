"""``mtbert train``: Hydra's application around ``mtbert.train.run``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mtbert.checks import typed
from mtbert.compose import CONFIG_ERRORS, config_dir_arguments, explained
from mtbert.config import register
from mtbert.errors import InputError, nearest
from mtbert.paths import conf_dir
from mtbert.process import prepare

# Of Hydra's options those that make sense here.
OPTIONS = [
    *("--multirun", "--config-dir", "--cfg", "--resolve", "--package"),
    *("--info", "--help", "--hydra-help", "--version", "--shell-completion"),
]


def main(arguments: Sequence[str]) -> int:
    """Compose what the overrides say and run it; with ``--multirun`` a study.

    Raises:
        InputError: a key, group, option or value that is not known, or whatever stops the run.
    """
    _refuse_other_options(arguments)
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of to Hydra's own printer
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]  # anywhere on the line
    sys.argv = ["mtbert train", *flags, *(argument for argument in arguments if argument not in flags)]
    try:
        _application()
    except CONFIG_ERRORS as error:
        raise explained(error, *_overrides(arguments)) from error
    if _failures:
        raise _failures.pop()
    return 0


def _refuse_other_options(arguments: Sequence[str]) -> None:
    """Hydra takes abbreviations, and options that would lead away from this application's config."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = argument.partition("=")
        if name.startswith("--") and name not in OPTIONS:
            key, value = name.removeprefix("--"), value or following
            hint = f"; did you mean {key}={value}?" if value and not value.startswith("-") else ""
            raise InputError(f"{name}: no option of mtbert train{hint or nearest(name, OPTIONS)}")


def _overrides(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """What of a command line overrides, and the folder of the user's own configs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    known, others = parser.parse_known_args(arguments)
    return [argument for argument in others if "=" in argument and not argument.startswith("-")], known.config_dir


_failures: list[Exception] = []


def train(composed: DictConfig) -> None:
    """One run, in this process; what launchers call."""
    prepare()
    from mtbert.train import run

    job = HydraConfig.get()
    try:
        run(typed(composed), job.overrides.task, arguments=config_dir_arguments(job))
    except Exception as error:
        if job.mode == RunMode.MULTIRUN:  # for its launcher to see
            raise
        _failures.append(error)  # Hydra would print a line of its own about it


_application = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(train)
