"""Runs that go on where another ended come to what they come to alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mtbert import sharing
from mtbert.compose import compose
from mtbert.loggers import read_metrics
from mtbert.plan import Plan, make_plan
from mtbert.results.record import RunRecord
from mtbert.runtime import find_runtime
from mtbert.train import run

TINY = [
    "encoder=tiny",
    "trainer.max_steps=2",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]
TINY += ["scale.epochs=1", "epochs=2", "train_metrics=running", "loggers=[csv]"]
LONGER = ["epochs=3"]
FROZEN = ["+phase@phases.extra=frozen_encoder", "phases.extra.epochs=1"]


def plan_of(*overrides: str) -> Plan:
    config = compose([*TINY, *overrides])
    return make_plan(config, find_runtime(config.trainer))


def make(runs: Path, *overrides: str) -> RunRecord:
    return run(compose([*TINY, f"runs_dir={runs}", *overrides]))


def logged(record: RunRecord) -> dict[int, dict[str, float]]:
    rows = read_metrics(record.directory / "metrics.csv")
    return {step: {k: v for k, v in row.items() if "seconds" not in k} for step, row in rows.items()}


@pytest.mark.parametrize("further", [LONGER, FROZEN], ids=["more epochs", "another phase"])
def test_a_run_that_goes_on_equals_one_made_alone(
    further: list[str], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = make(tmp_path / "alone", *further)
    monkeypatch.setenv(sharing.KEEP, "1")
    first = make(tmp_path / "shared")
    monkeypatch.delenv(sharing.KEEP)
    shared = make(tmp_path / "shared", *further)

    assert "goes on from the last epoch of" in (shared.directory / "run.log").read_text()
    assert shared.started == first.started
    assert [dataclasses.replace(e, seconds=0.0) for e in shared.epochs] == [
        dataclasses.replace(e, seconds=0.0) for e in alone.epochs
    ]
    for path in sorted((alone.directory / "predictions").iterdir()):
        assert (shared.directory / "predictions" / path.name).read_bytes() == path.read_bytes()
    ours, theirs = (load_file(r.directory / sharing.BEST) for r in (shared, alone))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert logged(shared) == logged(alone)

    sharing.forget(plan_of(f"runs_dir={tmp_path / 'shared'}"))
    assert not (first.directory / sharing.LAST).exists()
    assert (first.directory / sharing.BEST).exists()
    assert not list((tmp_path / "shared" / ".shared").iterdir())


def test_where_others_go_on() -> None:
    baseline = sharing.end(plan_of())
    assert baseline in list(sharing.beginnings(plan_of(*LONGER)))
    assert next(sharing.beginnings(plan_of(*FROZEN))) == baseline
    assert baseline not in list(sharing.beginnings(plan_of()))
    for other in (["seed=1"], ["lr=3e-5"], ["schedule=round_robin"], ["heads.share_layers=true"]):
        assert baseline not in list(sharing.beginnings(plan_of(*LONGER, *other)))


@pytest.mark.parametrize("schedule", ["optimizer.lr_schedule=linear", "optimizer.warmup=0.1"])
def test_a_learning_rate_that_depends_on_the_length_is_not_shared(schedule: str) -> None:
    assert sharing.end(plan_of(schedule)) is None
    assert not list(sharing.beginnings(plan_of(*LONGER, schedule)))


def test_what_is_no_longer_whole_is_not_taken_up(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sharing.KEEP, "1")
    first = make(tmp_path)
    (first.directory / sharing.LAST).unlink()
    longer = plan_of(f"runs_dir={tmp_path}", *LONGER)
    assert sharing.take_up(longer) is None
    assert not longer.directory.exists()
