"""Runs of a study as jobs of another engine: each is the same run, in the same place."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mtbert.results.folders import find_runs


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(f"hydra_plugins.hydra_{name}_launcher") is None, reason=f"needs {name}")


def study(launcher: str, runs: Path, *overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
    small = ["experiment=smoke/tiny", "phases.extra=null", "epochs=1", "trainer.max_steps=2", "trainer.threads=1"]
    command = [sys.executable, "-m", "mtbert", "train", "-m", f"hydra/launcher={launcher}", *small, *overrides]
    environment = os.environ | {"MTBERT_RUNS": str(runs)} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)


@needs("submitit")
def test_submitit_makes_the_runs_and_names_what_fails(tmp_path: Path, cache: Path) -> None:
    done = study("submitit_local", tmp_path / "runs", "seed=3,4")
    assert done.returncode == 0, done.stderr
    found = find_runs(tmp_path / "runs").done
    assert [record.seed for record in found] == [3, 4]


@needs("submitit")
def test_the_slurm_launcher_asks_for_slurm(tmp_path: Path, cache: Path) -> None:
    bare = str(Path(sys.executable).parent)  # a path without Slurm's commands
    failed = study("slurm", tmp_path / "runs", "seed=3", "hydra.launcher.partition=gpu", PATH=bare)
    assert failed.returncode == 2
    assert failed.stderr.strip().endswith("hydra/launcher=slurm is for a cluster's nodes")
    assert "mtbert: no Slurm here: srun is not found" in failed.stderr


@pytest.mark.parametrize(
    ("launcher", "two_at_a_time"),
    [
        pytest.param("joblib", ["hydra.launcher.n_jobs=2"], marks=needs("joblib")),
        pytest.param(
            "ray",
            ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"],
            marks=needs("ray"),
        ),
    ],
)
def test_runs_that_fail_are_named_and_done_ones_skipped(
    tmp_path: Path, cache: Path, launcher: str, two_at_a_time: list[str]
) -> None:
    runs, tasks = tmp_path / "runs", "schedule.tasks=[nothing],[sst,para,sts]"
    failed = study(launcher, runs, "seed=3", tasks, *two_at_a_time)
    assert failed.returncode != 0
    assert "names task 'nothing'" in failed.stderr
    found = find_runs(runs)
    assert (len(found.done), len(found.failed)) == (1, 1)
    again = study(launcher, runs, "seed=3", tasks.replace("[nothing],", ""), *two_at_a_time)
    assert again.returncode == 0, again.stderr
    assert f"{found.done[0].directory.name}: done already" in again.stderr + again.stdout
