"""The launcher that ``mtbert train --multirun`` uses unless told otherwise: one process a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from mtbert.errors import InputError

if TYPE_CHECKING:
    from mtbert.config import Config
    from mtbert.study import Job


class StudyLauncher(Launcher):
    """Checks every run's config first, then makes the runs that are missing (see ``mtbert.study``).

    Args:
        jobs: runs at a time; where ``trainer.threads`` is null each gets its share of the cores.
        runs_per_gpu: how many of them share a GPU, or the ``trainer.devices`` GPUs of a run.
    """

    def __init__(self, jobs: int = 1, runs_per_gpu: int = 1) -> None:
        self.jobs, self.runs_per_gpu = jobs, runs_per_gpu
        self.config: DictConfig
        self.hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mtbert.compose import config_dir_arguments
        from mtbert.runtime import visible_gpus
        from mtbert.study import StudyFailed, places, run_study

        for name in ("jobs", "runs_per_gpu"):
            if getattr(self, name) < 1:
                raise InputError(f"config: hydra.launcher.{name}={getattr(self, name)}; expected a number above 0")
        if not job_overrides:
            raise InputError("the study has no run: no experiment matches; `mtbert train --help` lists them")
        jobs = [self._job(overrides) for overrides in job_overrides]
        gpus = visible_gpus() if any(job.plan.runtime.accelerator == "cuda" for job in jobs) else []
        where = places(self.jobs, gpus, self.runs_per_gpu, max(job.plan.runtime.devices for job in jobs))
        failures = run_study(jobs, where, config_dir_arguments(self.config.hydra))
        if failures:
            lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
            raise StudyFailed(f"{len(failures)} of {len(jobs)} runs failed:{lines}")
        return [self._return(overrides) for overrides in job_overrides]

    def _job(self, overrides: Sequence[str]) -> Job:
        from mtbert.plan import make_plan
        from mtbert.runtime import find_runtime, shared_out
        from mtbert.study import Job

        config = self._config(overrides)
        if config.trainer.threads is None and (share := shared_out(self.jobs, config.trainer.devices)):
            overrides = [*overrides, *share]
            config = self._config(overrides)
        return Job(make_plan(config, find_runtime(config.trainer)), tuple(overrides))

    def _config(self, overrides: Sequence[str]) -> Config:
        from mtbert.config import typed

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        HydraConfig.instance().set_config(composed)
        with open_dict(composed):
            del composed["hydra"]
        return typed(composed)

    def _return(self, overrides: Sequence[str]) -> JobReturn:
        returned = JobReturn()
        returned.overrides, returned.status, returned.return_value = list(overrides), JobStatus.COMPLETED, None
        return returned
