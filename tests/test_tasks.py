"""Metrics against scipy and scikit-learn, and tasks and losses of one's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score
from torch import Tensor, nn

from mtbert.compose import compose
from mtbert.config import TaskConfig
from mtbert.errors import InputError
from mtbert.losses import RANKING, bce, mse
from mtbert.parts import check_parts
from mtbert.plan import Plan, make_plan
from mtbert.runtime import Runtime
from mtbert.tasks import TASKS, Task, accuracy, find_loss, find_task, pearson, rounded_accuracy

OWN = TASKS["sst"]
CPU = Runtime("cpu", "32-true", 1, "cpu")


def half(logits: Tensor, labels: Tensor, high: float) -> Tensor:
    return (logits - labels).abs() / 2


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.integers(0, 2**31))
def test_metrics_are_those_of_scipy_and_scikit_learn(rows: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores, labels = draw.normal(size=rows), draw.uniform(0, 5, size=rows)
    assert float(pearson(torch.tensor(scores), torch.tensor(labels))) == pytest.approx(
        pearsonr(scores, labels)[0], abs=1e-9
    )
    classes, right = draw.integers(0, 5, rows), draw.integers(0, 5, rows)
    ours = float(accuracy(torch.tensor(classes).float(), torch.tensor(right).float()))
    assert ours == pytest.approx(accuracy_score(right, classes), abs=1e-6)
    shares, binary = draw.uniform(size=rows), draw.integers(0, 2, rows)
    ours = float(rounded_accuracy(torch.tensor(shares).float(), torch.tensor(binary).float()))
    assert ours == pytest.approx(accuracy_score(binary, shares > 0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels"), [([1.0, 1.0, 1.0], [0.0, 2.0, 3.0]), ([0.0, 2.0, 3.0], [1.0, 1.0, 1.0]), ([1.0], [2.0])]
)
def test_pearson_of_a_constant_is_undefined(scores: list[float], labels: list[float]) -> None:
    assert math.isnan(float(pearson(torch.tensor(scores), torch.tensor(labels))))


def test_scores_are_on_the_labels_scale() -> None:
    assert TASKS["sst"].score(torch.tensor([[0.1, 3.0, 0.2, 0.0, 0.0]])).tolist() == [1.0]
    assert TASKS["para"].score(torch.tensor([0.0])).tolist() == [0.5]
    assert TASKS["sts"].score(torch.tensor([0.0, 100.0])).tolist() == [2.5, 5.0]


def test_tasks_and_losses_by_name_and_by_import_path() -> None:
    assert find_task("sts", TaskConfig()) is TASKS["sts"]
    assert find_task("mood", TaskConfig(definition=f"{__name__}.OWN")) is OWN
    assert find_loss("sts", TASKS["sts"], TaskConfig(loss="mse")) is mse
    assert find_loss("para", TASKS["para"], TaskConfig(loss="bce")) is bce
    assert find_loss("sts", TASKS["sts"], TaskConfig(loss=f"{__name__}.half")) is half


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (TaskConfig(), "tasks.stss is no built-in task; did you mean 'sts'?"),
        (TaskConfig(definition="no_such_module.TASK"), "definition=no_such_module.TASK cannot be imported"),
        (TaskConfig(definition=f"{__name__}.half"), "is not a mtbert.tasks.Task"),
    ],
)
def test_a_task_that_is_none(options: TaskConfig, expected: str) -> None:
    with pytest.raises(InputError, match=expected.replace("?", r"\?")):
        find_task("stss", options)


@pytest.mark.parametrize(
    ("loss", "task"), [("cross_entropy", "sts"), ("l1", "sst"), ("mes", "sts"), ("cosent", "para")]
)
def test_a_loss_has_to_fit_its_task(loss: str, task: str) -> None:
    definition: Task = TASKS[task]
    with pytest.raises(InputError, match=f"tasks.{task}.loss={loss} does not fit"):
        find_loss(task, definition, TaskConfig(loss=loss))


@pytest.mark.parametrize("loss", RANKING)
def test_a_loss_that_compares_rows_needs_two_of_them(loss: str) -> None:
    def plan(*overrides: str) -> Plan:
        return make_plan(compose(overrides), CPU)

    check_parts(plan(f"tasks.sts.loss={loss}", "batch_size=2"))
    check_parts(plan("batch_size=1"))
    with pytest.raises(InputError, match=r"tasks.sts.loss compares the rows of a batch; expected batch_size=2"):
        check_parts(plan(f"tasks.sts.loss={loss}", "batch_size=1"))


class Silent(nn.Module):
    pass


def test_parts_of_ones_own_that_cannot_work() -> None:
    with pytest.raises(InputError, match=r"tasks.sts.head=.*Silent has no method forward"):
        find_task("sts", TaskConfig(head=f"{__name__}.Silent"))
    with pytest.raises(InputError, match=r"tasks.sts.loss=.*Silent is no function of logits, labels"):
        find_loss("sts", TASKS["sts"], TaskConfig(loss=f"{__name__}.Silent"))
