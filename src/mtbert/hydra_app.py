"""``mtbert train``: Hydra's application around ``mtbert.train.run``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mtbert.compose import CONFIG_ERRORS, explained
from mtbert.config import register, typed
from mtbert.paths import conf_dir


def main(arguments: Sequence[str]) -> int:
    """Compose what the overrides say and run it; with ``--multirun`` a study.

    Raises:
        InputError: a key, group, option or value that is not known, or whatever stops the run.
    """
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us instead of to Hydra's own printer
    sys.argv = ["mtbert train", *arguments]
    try:
        _application()
    except CONFIG_ERRORS as error:
        raise explained(error) from error
    return 0


def train(composed: DictConfig) -> None:
    """One run, in this process; what launchers call."""
    from mtbert.train import run

    run(typed(composed), HydraConfig.get().overrides.task)


_application = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(train)
