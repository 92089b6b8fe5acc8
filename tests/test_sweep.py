"""Multiruns: globs are spelt out, and each run's config is the one that Hydra would compose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict

from hydra_plugins.mtbert_study import Batches
from mtbert.checks import typed
from mtbert.cli import main
from mtbert.compose import CONFIG_ERRORS
from mtbert.config import Config, register
from mtbert.errors import InputError
from mtbert.paths import conf_dir
from mtbert.sweep import RunConfigs, spelt_out

PAPER = [path.stem for path in sorted((conf_dir() / "experiment").glob("[0-9]*.yaml"))]


@pytest.fixture
def loader() -> Iterator[Any]:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("experiment=glob(*)", [*PAPER, "best", "final"]),
        ("experiment=glob(*,exclude=[best,final])", PAPER),
        ("experiment=glob(lr/*)", ["lr/2e-5", "lr/3e-5", "lr/5e-5", "lr/5e-6"]),
        ("experiment=final,glob(batch/*),glob(*/16),final", ["final", "batch/16", "batch/64"]),
        ("experiment=glob([batch/*,fin*])", ["batch/16", "batch/64", "final"]),
        ("+phase@phases.extra=glob(inh*)", ["inherit"]),
    ],
)
def test_globs_stand_for_the_names_that_they_match(loader: Any, argument: str, expected: list[str]) -> None:
    key = argument.partition("=")[0]
    assert spelt_out([argument], loader) == [f"{key}={','.join(expected)}"]


def test_what_is_no_glob_stays_as_it_is(loader: Any) -> None:
    arguments = ["seed=1,2", "lr=choice(1e-5,2e-5)", "seed=range(3)", "phases.main.freeze=[encoder]", "a='glob(*)'"]
    assert spelt_out(arguments, loader) == arguments


@pytest.mark.parametrize("argument", ["experiment=glob(lrs/*)", "experiment=00_baseline,glob(lrs/*)"])
def test_a_glob_that_matches_nothing_is_a_mistake(loader: Any, argument: str) -> None:
    with pytest.raises(InputError, match=r"experiment=glob\(lrs/\*\) matches nothing; did you mean 'lr/\*'"):
        spelt_out([argument], loader)
    with pytest.raises(InputError, match="there is no group"):
        spelt_out(["tasks.sst.loss=glob(*)"], loader)


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=final", "seed=3", "scale=quick"],
        ["scale=quick", "experiment=12_frozen_encoder", "lr=3e-5", "encoder=tiny", "encoder.pooling=pooler"],
        ["experiment=best", "tasks.sts.loss=mse", "tasks={para: {weight: 2.0}}", "tasks.para.weight=0.5"],
        ["+phase@phases.extra=inherit", "phases.extra.epochs=7", "loggers=[]", "data.folder=null"],
        ["schedule=round_robin", "recipe.early_restart=true", "name=mine"],
    ],
)
def test_a_run_has_the_config_that_hydra_composes(loader: Any, overrides: list[str]) -> None:
    configs = RunConfigs(loader, loader.load_configuration("train", [], RunMode.MULTIRUN))
    first, other = configs.config(overrides), configs.config([*overrides, "seed=77", "epochs=99"])
    assert first == _by_hydra(loader, overrides)
    assert other == _by_hydra(loader, [*overrides, "seed=77", "epochs=99"])
    assert first == configs.config(overrides)  # what is shared has not changed
    assert configs._composed.cache_info().currsize == 1


@pytest.mark.parametrize("override", ["seeed=1", "epochs=many", "experiment=03_share_layer", "+tasks.sst.size=1"])
def test_a_mistake_is_the_one_that_hydra_sees(loader: Any, override: str) -> None:
    configs = RunConfigs(loader, loader.load_configuration("train", [], RunMode.MULTIRUN))
    with pytest.raises((InputError, *CONFIG_ERRORS)) as ours:
        configs.config([override])
    with pytest.raises((InputError, *CONFIG_ERRORS)) as theirs:
        _by_hydra(loader, [override])
    assert (ours.type, str(ours.value)) == (theirs.type, str(theirs.value))


def test_other_launchers_get_runs_that_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path))
    assert main(["train", "-m", "hydra/launcher=basic", "experiment=glob(lr/*)", "epochs=2,0"]) == 2
    assert "epochs" in capsys.readouterr().err
    assert not list(tmp_path.glob("*-s*"))


def test_a_failed_run_does_not_stop_the_batches_after_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def run(config: Config, *_: Any, **__: Any) -> None:
        made.append(config.seed)
        if config.seed < 3:
            raise InputError(f"no seed {config.seed}")

    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path))
    monkeypatch.setattr("mtbert.train.run", run)
    assert main(["train", "-m", "hydra/launcher=basic", "seed=1,2,3,4", "hydra.sweeper.max_batch_size=1"]) == 2
    assert made == [1, 2, 3, 4]
    *_, counted, first, second = capsys.readouterr().err.splitlines()
    assert counted == "mtbert: 2 of 4 runs failed:"
    assert (first, second) == ("  seed=1: no seed 1", "  seed=2: no seed 2")


class Fails:
    """A launcher that ends with what submitit says."""

    def __init__(self, text: str) -> None:
        self.text = text

    def launch(self, *_: Any, **__: Any) -> None:
        raise RuntimeError(self.text)


def test_a_sweep_over_nothing_has_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "experiment=smoke/tiny", "seed=range(0)"]) == 2
    assert "the study has no run" in capsys.readouterr().err


def test_what_slurm_refuses_is_one_line() -> None:
    refuses = Fails("sbatch: error: Batch job submission failed: Invalid job array specification\n")
    with pytest.raises(InputError, match=r"refuses 2 jobs: Batch job .* specification; hydra.sweeper.max_batch_size"):
        Batches(cast(Any, refuses)).launch([["seed=1"], ["seed=2"]], 0)


def test_a_job_that_slurm_killed_is_named() -> None:
    text = "Job {} (task: 0) with path /r.pkl\nhas not produced any output (state: OUT_OF_MEMORY)\nError stream: ..."
    for name, run in (("32_1", "seed=2"), ("32", "seed=1")):
        batches = Batches(cast(Any, Fails(text.format(name))))
        assert batches.launch([["seed=1"], ["seed=2"]], 0) == []
        assert batches.failures == {run: "its job ended without a result (state: OUT_OF_MEMORY)"}
    with pytest.raises(RuntimeError, match="else"):
        Batches(cast(Any, Fails("something else"))).launch([["seed=1"]], 0)


def _by_hydra(loader: Any, overrides: list[str]) -> Config:
    composed = loader.load_configuration("train", overrides, RunMode.RUN)
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    return typed(composed)
