"""The launcher that ``mtbert train --multirun`` uses unless told otherwise: one process a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from mtbert.errors import InputError


class StudyLauncher(Launcher):
    """Checks every run's config first, then makes the runs that are missing (see ``mtbert.study``)."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self.config: DictConfig
        self.hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mtbert.study import Job, StudyFailed, forwarded, run_study

        if self.jobs < 1:
            raise InputError(f"config: hydra.launcher.jobs={self.jobs}; expected a number above 0")
        if not job_overrides:
            raise InputError("the study has no run: no experiment matches; `mtbert train --help` lists them")
        jobs = [Job(self._plan(overrides), tuple(overrides)) for overrides in job_overrides]
        failures = run_study(jobs, self.jobs, forwarded(self._config_dirs()))
        if failures:
            lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
            raise StudyFailed(f"{len(failures)} of {len(jobs)} runs failed:{lines}")
        return [self._return(overrides) for overrides in job_overrides]

    def _plan(self, overrides: Sequence[str]) -> Any:
        from mtbert.config import typed
        from mtbert.plan import make_plan
        from mtbert.runtime import find_runtime

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        HydraConfig.instance().set_config(composed)
        with open_dict(composed):
            del composed["hydra"]
        config = typed(composed)
        return make_plan(config, find_runtime(config.trainer))

    def _config_dirs(self) -> list[Path]:
        sources = OmegaConf.to_container(self.config.hydra.runtime.config_sources)
        return [Path(urlparse(s["path"]).path or s["path"]) for s in sources if s["provider"] == "command-line"]

    def _return(self, overrides: Sequence[str]) -> JobReturn:
        returned = JobReturn()
        returned.overrides, returned.status, returned.return_value = list(overrides), JobStatus.COMPLETED, None
        return returned
