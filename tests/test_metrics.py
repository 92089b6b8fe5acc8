"""Metrics from logits in batches to the table, against scikit-learn and scipy; the undefined ones too."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score
from torch import nn

from bad_input import one_in
from mtbert.compose import compose
from mtbert.data.updates import TaskRows
from mtbert.evaluation import Evaluation, metric_of
from mtbert.module import MultitaskModule
from mtbert.results.record import Epoch, RunRecord, best_of
from mtbert.results.render import FORMATS
from mtbert.results.table import build_table
from mtbert.tasks import TASKS, pearson
from synthetic_runs import record

HIGHEST = {"sst": 4, "para": 1, "sts": 5}


@pytest.fixture(scope="module")
def module() -> MultitaskModule:
    """No encoder, no heads: only what measures."""
    return MultitaskModule(cast(Any, nn.Identity()), nn.ModuleDict(), TASKS, {}, compose([]))


def evaluated(logits: dict[str, np.ndarray], labels: dict[str, np.ndarray], draw: np.random.Generator) -> Evaluation:
    """Every row in batches of any order, some of them twice."""
    evaluation = Evaluation()
    for task, values in logits.items():
        rows = draw.permutation(len(values))
        cuts = np.sort(draw.integers(0, len(rows) + 1, 3))
        for part in [*np.split(rows, cuts), rows[:1]]:
            index = torch.from_numpy(part)
            entry = TaskRows(task, "dev", index, torch.from_numpy(labels[task][part]), torch.zeros(len(part)), (1,), 1)
            evaluation.add(entry, torch.from_numpy(values[part]))
    return evaluation


def sigmoid(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).sigmoid().numpy()


@given(rows=st.integers(2, 60), seed=st.integers(0, 2**31), scale=st.sampled_from([1e-6, 0.1, 1.0, 30.0]))
def test_metrics_of_batches_are_those_of_the_whole_columns(
    module: MultitaskModule, rows: int, seed: int, scale: float
) -> None:
    draw = np.random.default_rng(seed)
    logits = {task: draw.normal(0, scale, (rows, 5) if task == "sst" else rows).astype(np.float32) for task in TASKS}
    labels = {task: draw.integers(0, high + 1, rows).astype(np.float32) for task, high in HIGHEST.items()}
    found = evaluated(logits, labels, draw).metrics(module.tasks, module.recipe)
    scores = 5 * sigmoid(logits["sts"])
    expected = {
        "dev/sst/accuracy": accuracy_score(labels["sst"], logits["sst"].argmax(1)),
        "dev/para/accuracy": accuracy_score(labels["para"], sigmoid(logits["para"]) > 0.5),
        "dev/sts/pearson": _pearsonr(scores, labels["sts"]),
    }
    expected["dev/average"] = sum(expected.values()) / 3
    assert found == pytest.approx(expected, abs=2e-5 if scale < 0.01 else 1e-6, nan_ok=True)


def _pearsonr(scores: np.ndarray, labels: np.ndarray) -> float:
    with warnings.catch_warnings(action="ignore"):  # that a constant has no correlation
        return float(pearsonr(scores.astype(np.float64), labels.astype(np.float64))[0])


COLUMN = st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0, 2.5]), min_size=2, max_size=20)


@given(data=st.data(), scores=COLUMN, offset=st.sampled_from([0.0, 1e3, -1e6]))
def test_pearson_is_scipys_or_undefined_with_it(data: st.DataObject, scores: list[float], offset: float) -> None:
    labels = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.5, 5.0]), min_size=len(scores), max_size=len(scores)))
    first, second = np.array(scores) + offset, np.array(labels)
    ours = float(pearson(torch.tensor(first), torch.tensor(second)))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(ours)
    elif np.ptp(first) > 1e-6 * np.abs(first).max():  # else nothing but rounding is left of the differences
        assert ours == pytest.approx(_pearsonr(first, second), abs=1e-6)
        assert -1 <= ours <= 1


@pytest.mark.parametrize("task", TASKS)
@one_in(4)
@given(rows=st.integers(1, 9), wrong=st.integers(0, 8))
def test_outputs_that_are_no_numbers_are_undefined(module: MultitaskModule, task: str, rows: int, wrong: int) -> None:
    logits = torch.randn((rows, 5) if task == "sst" else rows)
    logits.view(-1)[wrong % logits.numel()] = math.nan
    assert math.isnan(metric_of(module.tasks[task], module.recipe, logits, torch.zeros(rows)))


def test_a_constant_prediction_is_undefined_all_the_way_to_the_table(module: MultitaskModule) -> None:
    draw = np.random.default_rng(0)
    logits = {task: np.zeros((8, 5) if task == "sst" else 8, dtype=np.float32) for task in TASKS}
    labels = {task: np.arange(8, dtype=np.float32) % (high + 1) for task, high in HIGHEST.items()}
    metrics = evaluated(logits, labels, draw).metrics(module.tasks, module.recipe)
    assert metrics["dev/sst/accuracy"] == 0.25 and metrics["dev/para/accuracy"] == 0.5
    assert math.isnan(metrics["dev/sts/pearson"]) and math.isnan(metrics["dev/average"])
    epochs = [Epoch("main", 1, 1, 1.0, dict(metrics))]
    stored = json.loads(json.dumps(record(epochs=epochs, best=best_of(epochs)).to_json(), allow_nan=False))
    assert stored["best"]["metrics"]["dev/sts/pearson"] is None
    table = build_table([RunRecord.from_json(stored)])
    assert all("undef." in FORMATS[name](table) for name in ("terminal", "markdown", "csv"))
    assert "NaN" not in FORMATS["json"](table)
