"""What ``mtbert train --multirun`` uses unless told otherwise: globs in every form, one process a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mtbert.errors import InputError

if TYPE_CHECKING:
    from mtbert.study import Job
    from mtbert.sweep import RunConfigs


class StudySweeper(BasicSweeper):
    """Hydra's own, which knows a glob only alone and composes every run twice."""

    def sweep(self, arguments: Sequence[str]) -> Any:
        from mtbert.sweep import spelt_out

        return super().sweep(spelt_out(arguments, self.hydra_context.config_loader))

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        from mtbert.sweep import RunConfigs

        if isinstance(self.launcher, StudyLauncher):  # checks its runs itself
            return
        configs = RunConfigs(self.hydra_context.config_loader, self.config)
        for overrides in batch:
            configs.config(overrides)


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
        from mtbert.sweep import RunConfigs

        for name in ("jobs", "runs_per_gpu"):
            if getattr(self, name) < 1:
                raise InputError(f"config: hydra.launcher.{name}={getattr(self, name)}; expected a number above 0")
        configs = RunConfigs(self.hydra_context.config_loader, self.config)
        jobs = [self._job(configs, overrides) for overrides in job_overrides]
        gpus = visible_gpus() if any(job.plan.runtime.accelerator == "cuda" for job in jobs) else []
        where = places(self.jobs, gpus, self.runs_per_gpu, max(job.plan.runtime.devices for job in jobs))
        failures = run_study(jobs, where, config_dir_arguments(self.config.hydra))
        if failures:
            lines = "".join(f"\n  {name}: {reason}" for name, reason in failures.items())
            raise StudyFailed(f"{len(failures)} of {len(jobs)} runs failed:{lines}")
        return [self._return(overrides) for overrides in job_overrides]

    def _job(self, configs: RunConfigs, overrides: Sequence[str]) -> Job:
        from mtbert.plan import make_plan
        from mtbert.runtime import find_runtime, shared_out
        from mtbert.study import Job

        config = configs.config(overrides)
        if config.trainer.threads is None and (share := shared_out(self.jobs, config.trainer.devices)):
            overrides = [*overrides, *share]
            config = configs.config(overrides)
        return Job(make_plan(config, find_runtime(config.trainer)), tuple(overrides))

    def _return(self, overrides: Sequence[str]) -> JobReturn:
        returned = JobReturn()
        returned.overrides, returned.status, returned.return_value = list(overrides), JobStatus.COMPLETED, None
        return returned
