from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert.compose import compose
from mtbert.data.schedules import OneTaskPerEpoch, RoundRobin, Sampled, Sequential, Step, TaskBatches, build_schedule
from mtbert.errors import InputError

TRACES = ["sequential", "shared_layers", "round_robin", "round_robin_normalized", "frozen_encoder"]
SIZES = st.dictionaries(st.sampled_from(["sst", "para", "sts", "mine"]), st.integers(1, 60), min_size=1)


def batches(num_rows: int, batch_size: int = 8, limit: int | None = None, shuffled: bool = True) -> TaskBatches:
    """Shuffle ``n`` turns the rows by ``n`` places, so that shuffles can be told apart."""
    return TaskBatches(num_rows, batch_size, lambda n: np.roll(np.arange(num_rows), n if shuffled else 0), limit)


def drawn(steps: list[Step], task: str) -> list[list[int]]:
    return [batch.tolist() for step in steps for draw in step if draw.task == task for batch in draw.batches]


def counts(steps: list[Step], task: str) -> Counter[int]:
    return Counter(row for batch in drawn(steps, task) for row in batch)


def shape(steps: list[Step]) -> list[list[tuple[str, int]]]:
    return [[(draw.task, len(batch)) for draw in step for batch in draw.batches] for step in steps]


def test_a_limit_ends_each_shuffle() -> None:
    assert [batch.tolist() for batch in batches(7, 3, limit=2).shuffle(1)] == [[6, 0, 1], [2, 3, 4]]
    assert [batch.tolist() for batch in batches(7, 3, limit=9).shuffle(0)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches(7, 3, limit=2)) == 2


def test_the_published_cut_of_para_is_251_batches() -> None:
    assert sum(map(len, batches(141_498, 32, limit=8000 // 32 + 1).shuffle())) == 8032


@given(SIZES, st.integers(1, 9))
def test_sequential_draws_every_row_once_task_after_task(sizes: dict[str, int], batch_size: int) -> None:
    steps = Sequential().steps(0, {task: batches(rows, batch_size) for task, rows in sizes.items()})
    assert all(len(step) == 1 and len(step[0].batches) == 1 and step[0].weight == 1 for step in steps)
    for task, rows in sizes.items():
        assert counts(steps, task) == dict.fromkeys(range(rows), 1)
        assert all(len(batch) == batch_size for batch in drawn(steps, task)[:-1])
    order = [step[0].task for step in steps]
    assert list(dict.fromkeys(order)) == list(sizes)
    assert order == sorted(order, key=list(sizes).index)


def test_sequential_keeps_to_the_tasks_it_names() -> None:
    tasks = {"sst": batches(3, 2), "para": batches(2, 2)}
    assert shape(Sequential(["para", "sst"]).steps(0, tasks)) == [[("para", 2)], [("sst", 2)], [("sst", 1)]]


def test_one_task_per_epoch_goes_round() -> None:
    tasks = {"sst": batches(3, 2), "para": batches(2, 2), "sts": batches(1, 2)}
    found = [shape(OneTaskPerEpoch().steps(epoch, tasks)) for epoch in range(4)]
    assert found == [[[("sst", 2)], [("sst", 1)]], [[("para", 2)]], [[("sts", 1)]], [[("sst", 2)], [("sst", 1)]]]
    assert shape(OneTaskPerEpoch(["sts"]).steps(5, tasks)) == [[("sts", 1)]]


@given(SIZES, st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_round_robin_takes_each_tasks_share_in_every_step(
    sizes: dict[str, int], batch_size: int, normalize: bool, early: bool, data: st.DataObject
) -> None:
    tasks = {task: batches(rows, batch_size) for task, rows in sizes.items()}
    pace = data.draw(st.none() | st.lists(st.sampled_from(list(sizes)), min_size=1))
    steps = RoundRobin(normalize, pace, early).steps(0, tasks)
    assert len(steps) == min(len(tasks[task]) for task in pace or tasks)
    for step in steps:
        assert [draw.task for draw in step] == list(sizes)
        for draw in step:
            assert len(draw.batches) == math.ceil(len(tasks[draw.task]) / len(steps))
            assert draw.weight == (1 / len(draw.batches) if normalize else 1)


@given(SIZES, st.integers(1, 9))
def test_round_robin_goes_on_where_rows_are_used_up(sizes: dict[str, int], batch_size: int) -> None:
    """All rows come up once before any comes up again: the batches are those of shuffle 0, then 1, and so on."""
    tasks = {task: batches(rows, batch_size) for task, rows in sizes.items()}
    steps = RoundRobin(early_restart=False).steps(0, tasks)
    for task in sizes:
        found = drawn(steps, task)
        through = [batch.tolist() for number in range(3) for batch in tasks[task].shuffle(number)]
        assert found == through[: len(found)]
        assert len(found) >= len(tasks[task])
        assert set(counts(steps, task).values()) <= {1, 2}


@given(SIZES, st.integers(1, 9))
def test_early_restart_happens_once_and_only_before_a_step_that_would_run_past_the_end(
    sizes: dict[str, int], batch_size: int
) -> None:
    tasks = {task: batches(rows, batch_size) for task, rows in sizes.items()}
    steps = RoundRobin(early_restart=True).steps(0, tasks)
    for task in sizes:
        whole = len(tasks[task])
        each = math.ceil(whole / len(steps))
        fitting = min(whole // each, len(steps))  # steps before the restart
        first = [batch.tolist() for batch in tasks[task].shuffle(0)][: fitting * each]
        second = [batch.tolist() for batch in tasks[task].shuffle(1)][: (len(steps) - fitting) * each]
        assert drawn(steps, task) == first + second


def test_a_task_smaller_than_the_pace_comes_up_again_and_again() -> None:
    tasks = {"sst": batches(40), "sts": batches(40), "para": batches(12)}
    for early in (False, True):
        steps = RoundRobin(pace=["sst", "sts"], early_restart=early).steps(0, tasks)
        assert [len(batch) for batch in drawn(steps, "para")] == [8, 4, 8, 4, 8]


@pytest.mark.parametrize("early", [False, True])
def test_round_robin_ends_shuffles_at_a_limit(early: bool) -> None:
    tasks = {"sst": batches(24), "para": batches(400, limit=5)}
    steps = RoundRobin(pace=["sst"], early_restart=early).steps(0, tasks)
    assert shape(steps) == [[("sst", 8), ("para", 8), ("para", 8)]] * 3
    first_rows = [batch[0] for batch in drawn(steps, "para")]
    assert first_rows == ([0, 8, 16, 24, 399, 7] if early else [0, 8, 16, 24, 32, 399])


@pytest.mark.parametrize("name", TRACES)
def test_steps_are_those_of_the_published_code(shared: Path, name: str) -> None:
    trace = json.loads((shared / "reference" / "traces" / name / "trace.json").read_text())
    spec, sizes = trace["spec"], trace["spec"]["rows"]
    tasks = {task: batches(sizes[task], spec["batch_size"], shuffled=False) for task in ("sst", "para", "sts")}
    main: Any = {
        "single": Sequential(),
        "multi": RoundRobin(False, ["sst", "sts"], early_restart=True),
        "multi_balanced": RoundRobin(True, ["sst", "sts"], early_restart=True),
    }[spec["training_method"]]
    steps = [step for epoch in range(spec["epochs"]) for step in main.steps(epoch, tasks)]
    for epoch in range(3 * spec["frozen_cycles"]):
        steps += OneTaskPerEpoch().steps(epoch, tasks)
    assert shape(steps) == [[(batch["task"], batch["rows"]) for batch in step] for step in trace["optimizer_steps"]]


class Mine:
    def __init__(self, task: str, times: int = 1) -> None:
        self.task, self.times = task, times

    def steps(self, epoch: int, tasks: dict[str, TaskBatches]) -> list[Step]:
        return Sequential([self.task]).steps(epoch, tasks) * self.times


PATH = "mtbert.data.schedules"


def test_a_schedule_is_built_from_its_import_path() -> None:
    spec = {"_target_": f"{PATH}.RoundRobin", "normalize": True, "pace": ["sst"]}
    assert build_schedule(spec) == RoundRobin(True, ["sst"])
    mine = build_schedule({"_target_": f"{__name__}.Mine", "task": "sst", "times": 2})
    assert len(mine.steps(0, {"sst": batches(3, 2)})) == 4


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "has no _target_"),
        ({"_target_": f"{PATH}.RoundRobbin"}, "cannot be imported"),
        ({"_target_": f"{PATH}.RoundRobin", "normalise": True}, "did you mean 'normalize'?"),
        ({"_target_": f"{__name__}.Mine"}, "missing a required argument: 'task'"),
        ({"_target_": f"{PATH}.Step"}, "has no method 'steps'"),
        ({"_target_": f"{PATH}.Draw", "task": "sst", "batches": []}, "has no method 'steps'"),
    ],
)
def test_a_schedule_that_cannot_be_built_is_one_line(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        build_schedule(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (Sequential(["sst", "para"]), "schedule.tasks names task 'para'; expected one of: sst"),
        (OneTaskPerEpoch([]), "schedule.tasks is empty"),
        (RoundRobin(pace=["ss"]), "schedule.pace names task 'ss'; did you mean 'sst'?"),
        (RoundRobin(pace=[]), "schedule.pace is empty"),
    ],
)
def test_a_schedule_that_names_wrong_tasks_is_one_line(schedule: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        schedule.steps(0, {"sst": batches(3)})
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["sequential", "round_robin", "one_task_per_epoch"])
def test_shipped_schedules_take_overrides_and_are_built(name: str) -> None:
    key = "pace" if name == "round_robin" else "tasks"
    schedule = build_schedule(compose([f"schedule={name}", f"schedule.{key}=[para]"]).schedule)
    tasks = {"sst": batches(9, 2), "para": batches(3, 2)}
    assert {draw.task for draw in schedule.steps(1, tasks)[0]} >= {"para"}
    assert len(schedule.steps(1, tasks)) == 2


def test_annealed_sampling_is_that_of_stickland_and_murray() -> None:
    schedule = build_schedule(compose(["schedule=annealed"]).schedule, seed=1, epochs=5)
    assert isinstance(schedule, Sampled)
    sizes = [100, 1000, 60]
    for epoch in range(5):
        alpha = 1 - 0.8 * epoch / 4  # their 1 - 0.8 (e - 1) / (E - 1), e counted from 1
        powers = [size**alpha for size in sizes]
        assert schedule.probabilities(epoch, sizes) == pytest.approx([power / sum(powers) for power in powers])
    assert Sampled(0.5, epochs=3).probabilities(2, [100, 400]) == pytest.approx([1 / 3, 2 / 3])
    assert Sampled(1.0, 0.2).probabilities(0, [100, 400]) == pytest.approx([0.2, 0.8])  # a single epoch


def test_sampling_draws_tasks_as_often_as_it_says_and_rows_in_turn() -> None:
    tasks = {"sst": batches(900, 2), "para": batches(3600, 2)}
    steps = Sampled(0.5, share=0.5, seed=3).steps(0, tasks)
    assert len(steps) == (450 + 1800) // 2
    assert all(len(step) == 1 and len(step[0].batches) == 1 for step in steps)
    taken = len(drawn(steps, "sst"))
    assert abs(taken - len(steps) / 3) < 4 * math.sqrt(len(steps) * 2 / 9)
    seen = counts(steps, "sst")
    assert max(seen.values()) - min(seen.get(row, 0) for row in range(900)) <= 1  # shuffle after shuffle


def test_sampling_depends_on_seed_and_epoch_alone() -> None:
    tasks = {"sst": batches(90, 2), "para": batches(200, 2)}
    first, again = (shape(Sampled(1.0, seed=3).steps(0, tasks)) for _ in range(2))
    assert first == again
    assert shape(Sampled(1.0, seed=3).steps(1, tasks)) != first != shape(Sampled(1.0, seed=4).steps(0, tasks))


def test_sampling_of_no_steps_is_refused() -> None:
    with pytest.raises(InputError, match=r"schedule.share=0; expected a number above 0"):
        build_schedule({"_target_": "mtbert.data.schedules.Sampled", "alpha": 1, "share": 0})


def test_sampling_goes_by_the_rows_that_a_limit_leaves() -> None:
    order = np.arange(1000)
    cut, whole = (TaskBatches(1000, 10, lambda _: order, limit) for limit in (2, None))
    drawn = [draw.task for (draw,) in Sampled(alpha=1.0, share=5.0).steps(0, {"cut": cut, "whole": whole})]
    assert cut.rows_drawn == 20
    assert drawn.count("cut") / len(drawn) == pytest.approx(20 / 1020, abs=0.02)
