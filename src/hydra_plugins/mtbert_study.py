"""What ``mtbert train --multirun`` uses unless told otherwise: globs in every form, one process a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mtbert.errors import InputError, explain

if TYPE_CHECKING:
    from mtbert.study import Job
    from mtbert.sweep import RunConfigs


class StudySweeper(BasicSweeper):
    """Hydra's own, which knows a glob only alone, composes runs twice and stops at a batch that has a failure."""

    def sweep(self, arguments: Sequence[str]) -> Any:
        from mtbert.study import StudyFailed
        from mtbert.sweep import spelt_out

        assert self.launcher is not None and self.hydra_context is not None
        self.batches = Batches(self.launcher)
        self.launcher = cast(Launcher, self.batches)
        returned = super().sweep(spelt_out(arguments, self.hydra_context.config_loader))
        if self.batches.failures:
            raise StudyFailed(self.batches.failures, self.batches.total)
        return returned

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        from mtbert.sweep import RunConfigs

        if isinstance(self.batches.launcher, StudyLauncher):  # checks its runs itself
            return
        assert self.config is not None and self.hydra_context is not None
        configs = RunConfigs(self.hydra_context.config_loader, self.config)
        for overrides in batch:
            configs.config(overrides)


class Batches:
    """A launcher that keeps what failed for the end: the runs of later batches are made first."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher, self.total = launcher, 0
        self.failures: dict[str, str] = {}  # run -> reason

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from mtbert.study import StudyFailed

        self.total += len(job_overrides)
        try:
            returned = self.launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        except StudyFailed as error:
            self.failures |= error.failures
            return []
        except Exception as error:
            run, reason = _of_slurm(error, job_overrides)
            self.failures[run] = reason
            return []
        failed = [each for each in returned if each.status == JobStatus.FAILED]
        self.failures |= {" ".join(each.overrides or ()): explain(each._return_value)[0] for each in failed}
        return [each for each in returned if each.status == JobStatus.COMPLETED]


def _of_slurm(error: Exception, job_overrides: Sequence[Sequence[str]]) -> tuple[str, str]:
    """The run whose job died without a word, and its state, where that is what submitit, which need not be installed,
    says.

    Raises:
        InputError: there is no Slurm, or it refuses the jobs.
        Exception: whatever else it is.
    """
    text, jobs = str(error), len(job_overrides)
    if "sbatch: error: " in text:
        reason = "; ".join(text.replace("sbatch: error: ", "").strip().splitlines())
        fewer = "; hydra.sweeper.max_batch_size=1000 queues so many at a time" if jobs > 1 else ""
        raise InputError(f"Slurm refuses {jobs} jobs: {reason}{fewer}") from error
    if 'not detect "srun"' in text:
        raise InputError("no Slurm here: srun is not found; hydra/launcher=slurm is for a cluster's nodes") from error
    died = re.match(r"Job \d+_?(\d*) .*\s.*\(state: (\w+)", text)
    if died is None:
        raise error
    return " ".join(job_overrides[int(died[1] or 0)]), f"its job ended without a result (state: {died[2]})"


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
        if not jobs:
            raise InputError("the study has no run: a sweep has no values")
        gpus = visible_gpus() if any(job.plan.runtime.accelerator == "cuda" for job in jobs) else []
        where = places(self.jobs, gpus, self.runs_per_gpu, max(job.plan.runtime.devices for job in jobs))
        failures = run_study(jobs, where, config_dir_arguments(self.config.hydra))
        if failures:
            raise StudyFailed(failures, len(jobs))
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
