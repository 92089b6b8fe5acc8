"""Searches: what they look over, that they go on where they stopped, and that dev rows stay unread."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbert.cli import main
from mtbert.compose import compose
from mtbert.data.datamodule import MixedDataModule
from mtbert.data.dataset import DatasetModule
from mtbert.errors import InputError
from mtbert.plan import make_plan
from mtbert.results.folders import find_runs
from mtbert.runtime import find_runtime
from mtbert.search import Dimension, _asked, open_study, read_space

optuna = pytest.importorskip("optuna")
TINY = ["experiment=smoke/tiny", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.threads=1"]
SPACE = "lr: {low: 1.0e-6, high: 1.0e-3, log: true}\nbatch_size: {choices: [8, 16]}\n"


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def test_a_search_makes_the_trials_that_are_missing(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path / "runs"))
    arguments = ["search", *TINY, "phases.extra=null", "--space", str(space), "--trials"]
    assert main([*arguments, "1"]) == 0
    first = capsys.readouterr()
    assert "0 of 1 trials made" in first.err
    assert "dev rows were not read" in first.err
    assert main([*arguments, "2"]) == 0
    second = capsys.readouterr()
    assert "1 of 2 trials made" in second.err
    assert {part.partition("=")[0] for part in second.out.split()} == {"lr", "batch_size"}
    assert len(find_runs(tmp_path / "runs" / ".search").done) == 2
    assert not find_runs(tmp_path / "runs").done


def test_a_trial_that_diverges_does_not_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path / "runs"))
    (tmp_path / "space.yaml").write_text("lr: {choices: [1.0e+20, 1.0e-4]}")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text("# @package _global_\ndefaults: [smoke/tiny]\n")
    arguments = [*TINY[1:], "phases.extra=null", "experiment=own", "--config-dir", str(tmp_path / "conf")]
    assert main(["search", *arguments, "--space", str(tmp_path / "space.yaml"), "--trials", "4"]) == 0
    said = capsys.readouterr()
    assert "the loss" in said.err and "search: 4 trials, " in said.err
    assert said.out == "lr=0.0001\n"


def test_a_trial_that_was_cut_off_is_made_again(space: Path, tmp_path: Path) -> None:
    config, dimensions = compose([*TINY, f"runs_dir={tmp_path}"]), read_space(space)
    trial = open_study(config, TINY, dimensions, seed=0).ask()
    values = {dimension.key: dimension.suggest(trial) for dimension in dimensions}
    again = open_study(config, TINY, dimensions, seed=0).ask()
    assert {dimension.key: dimension.suggest(again) for dimension in dimensions} == values


def test_the_next_trial_is_seeded_by_those_before_it_cut_off_ones_once(space: Path, tmp_path: Path) -> None:
    config, dimensions = compose([*TINY, f"runs_dir={tmp_path}"]), read_space(space)
    study = open_study(config, TINY, dimensions, seed=0)

    def ask(end: str | None) -> None:
        trial = study.ask()
        for dimension in dimensions:
            dimension.suggest(trial)
        if end is not None:
            study.tell(trial, *([0.5] if end == "COMPLETE" else []), state=optuna.trial.TrialState[end])

    ask("COMPLETE")
    ask("FAIL")  # for good: the next one is another
    assert _asked(study) == 2
    ask(None)  # cut off, and made again
    study = open_study(config, TINY, dimensions, seed=0)
    ask("COMPLETE")
    assert (_asked(study), len(study.trials)) == (3, 4)


def test_held_out_rows_come_from_train_and_only_they_are_scored(tmp_path: Path) -> None:
    def rows(*overrides: str) -> tuple[dict[str, set[str]], str]:
        config = compose([*TINY, *overrides])
        plan = make_plan(config, find_runtime(config.trainer))
        data = MixedDataModule.from_plan(plan)
        data.setup()
        return {split: set(data.tables[split, "sts"].ids) for split in ("train", "dev")}, plan.hash

    all_rows, usual = rows()
    held, other = rows("data.holdout=0.2")
    assert usual != other
    assert held["train"] | held["dev"] == all_rows["train"]
    assert not held["train"] & held["dev"]
    assert len(held["dev"]) == round(0.2 * len(all_rows["train"]))


def test_the_dev_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    prepared = DatasetModule._prepared
    monkeypatch.setattr(DatasetModule, "_prepared", lambda *a: read.append(a[2]) or prepared(*a))
    dataset = DatasetModule("sts", compose([*TINY, "data.holdout=0.2"]))
    dataset.setup()
    assert "dev" not in read
    assert dataset.report["dev"]["used"] + dataset.report["train"]["used"] == dataset.report["train"]["available"]


def test_the_shipped_space_can_be_read() -> None:
    from mtbert.paths import conf_dir

    space = read_space(conf_dir() / "search" / "recipe.yaml")
    assert Dimension("lr", 3e-6, 1e-4, True) in space
    compose([f"{dimension.key}={dimension.example}" for dimension in space])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("- lr", "expected keys of the config"),
        ("lr: 3", "lr is 3; expected {low: ..., high: ...}"),
        ("lr: {lo: 1, high: 2}", "lr.lo is not known; did you mean 'low'"),
        ("lr: {low: 2, high: 1}", "lr goes from 2 to 1; expected two numbers, low below high"),
        ("lr: {low: 0, high: 1, log: true}", "lr.log is True with low 0"),
        ("lr: {choices: []}", "lr.choices; expected a list"),
        ("lr: {low: 1", "not YAML"),
        ("lr: {low: one, high: 2}", "lr goes from 'one' to 2"),
        ("data.holdout: {low: 0.1, high: 0.2}", "data.holdout cannot be searched over"),
    ],
)
def test_a_space_that_is_none(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_space(path)
    assert reason in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_space_takes_numbers_as_experiment_files_do(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("lr: {low: 1e-5, high: 1e-3, log: true}")
    assert read_space(tmp_path / "space.yaml") == [Dimension("lr", 1e-5, 1e-3, True)]


def test_mistakes_on_the_command_line(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path / "runs"))
    for arguments, reason in [
        (["--trials", "0"], "--trials 0: expected a number above 0"),
        (["--holdout", "1.5"], "data.holdout=1.5; expected a share between 0 and 1"),
        (["--space", str(tmp_path / "none.yaml")], "none.yaml: cannot be read"),
        (["--config-dir", str(tmp_path / "none")], "none: no such folder"),
        (["leraning=1"], "no key 'leraning'"),
        ([*TINY, "lr=1e-4"], "override 'lr=1e-4': the search looks for lr; leave it out"),
        ([*TINY, "--trials", "1", "+data.holdout=0.5"], "a search holds rows out itself; expected --holdout SHARE"),
        ([*TINY, "tasks.sts.head=cosin"], "tasks.sts.head=cosin does not fit this task; did you mean 'cosine'?"),
    ]:
        assert main(["search", *arguments]) == 2
        said = capsys.readouterr().err
        assert reason in said and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    space.write_text("learning: {low: 1, high: 2}")
    assert main(["search", "--space", str(space)]) == 2
    assert "no key 'learning'" in capsys.readouterr().err
