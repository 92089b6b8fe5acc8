"""Which scale is picked and why, which experiments and seeds, and what is made of mistakes in them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mtbert import hydra_app, reproduce
from mtbert.cli import main
from mtbert.compose import compose
from mtbert.estimate import loaded, operations
from mtbert.plan import make_plan
from mtbert.runtime import find_runtime
from mtbert.study import StudyFailed
from synthetic_runs import record


def real_rows(folder: Path) -> None:
    for dataset in compose(["scale=quick", "experiment=final"]).datasets.values():
        for name in (name for names in dataset.files.values() for name in names):
            (folder / name).touch()


def test_the_scale_follows_from_rows_and_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTBERT_DATA", str(tmp_path))
    assert reproduce.pick_scale() == (
        "sample",
        "no real rows: ids-sst-train.csv is not in $MTBERT_DATA; `make data` downloads them",
    )
    real_rows(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reproduce.pick_scale() == ("quick", "real rows found, no CUDA GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert reproduce.pick_scale() == ("paper", "real rows and a GPU found")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--experiments", "13_more"], "no experiment '13_more'"),
        (["--experiments", "3_share_layers"], "did you mean '03_share_layers'?"),
        (["--experiments", ","], "--experiments is empty"),
        (["--jobs", "0"], "--jobs 0: expected a number above 0"),
        (["--seeds", "one"], "--seeds: 'one' is no seed"),
        (["scale=quick"], "scale=quick: expected --scale instead"),
        (["seed=3"], "seed=3: expected --seeds instead"),
        (["experiment=final"], "experiment=final: expected --experiments instead"),
        (["epohcs=3"], "no key 'epohcs'; did you mean 'epochs'?"),
    ],
)
def test_mistakes(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--scale", "sample", *arguments]) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_one_study_is_made_of_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTBERT_RUNS", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as many for each run as for one alone
    asked: list[list[str]] = []
    monkeypatch.setattr(hydra_app, "main", asked.append)
    arguments = argparse.Namespace(
        scale="sample", seeds="1,2", experiments="0,12,final", jobs=2, overrides=["encoder=tiny"]
    )
    assert reproduce.main(arguments) == 0
    experiments = "experiment=00_baseline,12_frozen_encoder,final"
    assert asked == [["-m", experiments, "seed=1,2", "scale=sample", "encoder=tiny", "hydra.launcher.jobs=2"]]
    printed = capsys.readouterr().err
    assert "scale: sample (asked for)" in printed
    assert "for 6 runs of tiny" in printed


def test_the_table_has_the_rows_that_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rows(names: list[str], all_rows: bool) -> list[str]:
        plans = [SimpleNamespace(directory=tmp_path / name, config=SimpleNamespace(name=name)) for name in names]
        for plan in plans:
            record(plan.config.name).write(plan.directory)
        reproduce._print_table(cast(Any, plans), all_rows)
        return re.findall(r"^(\[\d+\]|mine)", capsys.readouterr().out, re.MULTILINE)

    assert rows(["00_baseline", "12_frozen_encoder"], all_rows=False) == ["[0]", "[12]"]
    assert rows(["mine"], all_rows=False) == ["mine"]
    assert len(rows(["00_baseline"], all_rows=True)) == 13
    reproduce._print_table([], all_rows=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("done", [True, False])
def test_the_baseline_is_beside_what_was_asked_for_if_done_and_failures_come_last(
    done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def fail(_: list[str]) -> None:
        raise StudyFailed({"some run": "reason"}, 2)

    monkeypatch.setattr(hydra_app, "main", fail)
    monkeypatch.setattr(reproduce, "finished", lambda plan: object() if done else None)
    monkeypatch.setattr(reproduce, "_print_table", lambda plans, all_rows: shown.extend(p.config.name for p in plans))
    arguments = argparse.Namespace(scale="sample", seeds="1", experiments="12", jobs=1, overrides=[])
    with pytest.raises(StudyFailed):
        reproduce.main(arguments)
    assert shown == ["12_frozen_encoder", *["00_baseline"] * done]


def test_the_expected_work_grows_with_the_epochs_and_shrinks_with_a_fixed_encoder() -> None:
    def work(*overrides: str) -> float:
        config = compose(["encoder=tiny", *overrides])
        plan = make_plan(config, find_runtime(config.trainer))
        return operations(plan, loaded(plan))

    baseline, longer = work(), work("experiment=01_20_epochs")
    further = work("experiment=12_frozen_encoder")
    assert longer == pytest.approx(2 * baseline)
    assert baseline < further < 1.5 * baseline
