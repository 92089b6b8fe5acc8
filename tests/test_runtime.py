from __future__ import annotations

import pytest

from mtbert import estimate
from mtbert.compose import compose
from mtbert.errors import InputError
from mtbert.plan import make_plan
from mtbert.runtime import available_cores, find_runtime


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("", available_cores()), ("many", available_cores())])
def test_threads_are_those_that_openmp_is_told(monkeypatch: pytest.MonkeyPatch, asked: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert find_runtime(compose([]).trainer).threads == threads
    assert find_runtime(compose(["trainer.threads=5"]).trainer).threads == 5


def test_threads_below_one() -> None:
    with pytest.raises(InputError, match=r"trainer\.threads=0; expected a number above 0"):
        find_runtime(compose(["trainer.threads=0"]).trainer)


def test_runs_side_by_side_take_less_time_as_far_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["encoder=tiny", "trainer.threads=2", "trainer.accelerator=cpu"])
    plans = [make_plan(config, find_runtime(config.trainer))] * 4
    monkeypatch.setattr(estimate, "matmul_speed", lambda plan: 1e10)
    monkeypatch.setattr(estimate, "available_cores", lambda: 6)
    alone = estimate.estimate_seconds(plans)
    assert estimate.estimate_seconds(plans, jobs=2) == pytest.approx(alone / 2)
    assert estimate.estimate_seconds(plans, jobs=8) == pytest.approx(alone / 3)
