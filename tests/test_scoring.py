from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve

from mtbert.results.scoring import (
    calibration,
    calibration_error,
    confusion,
    mean_over_seeds,
    precision_recall,
    worst_errors,
)

CLASSES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50)
SCORED = st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=40)


@given(CLASSES)
def test_confusion_counts_as_scikit_learn_does(rows: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(rows, dtype=float).T
    assert (confusion(predicted, labels, 5) == confusion_matrix(labels, predicted, labels=range(5))).all()


@given(SCORED.filter(lambda rows: any(positive for _, positive in rows)))
def test_precision_and_recall_are_those_of_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, positive = np.array(rows, dtype=float).T
    precision, recall, average = precision_recall(scores, positive)
    theirs = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(precision, theirs[0][:-1][::-1])  # theirs goes up, and ends at a point of its own
    np.testing.assert_allclose(recall, theirs[1][:-1][::-1])
    assert average == pytest.approx(average_precision_score(positive, scores))


def test_recall_is_undefined_where_nothing_is_positive() -> None:
    precision, recall, average = precision_recall(np.array([0.2, 0.7]), np.zeros(2))
    assert precision.tolist() == [0, 0] and np.isnan(recall).all() and np.isnan(average)


def test_calibration_compares_scores_with_what_was_observed() -> None:
    table = calibration(np.array([0.11, 0.15, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert table["rows"].tolist() == [2, 2]
    assert table["score"].tolist() == pytest.approx([0.13, 0.975])
    assert table["observed"].tolist() == [0.5, 1.0]
    assert calibration_error(table) == pytest.approx((0.37 + 0.025) / 2)


def test_seeds_are_averaged_row_by_row() -> None:
    frame = pd.DataFrame(
        {"id": ["a", "b", "a", "b"], "label": [1, 0, 1, 0], "prediction": [1, 1, 0, 0], "score": [0.9, 0.6, 0.3, 0.2]}
    )
    rows = mean_over_seeds(frame)
    assert rows["id"].tolist() == ["a", "b"]
    assert rows["value"].tolist() == pytest.approx([0.6, 0.4])
    assert rows["error"].tolist() == pytest.approx([0.4, 0.4])
    assert rows["wrong"].tolist() == [0.5, 0.5]


def test_worst_errors_are_far_off_and_sure_and_never_right() -> None:
    frame = pd.DataFrame(
        {
            "id": ["right", "near", "unsure", "sure"],
            "label": [0, 0, 0, 0],
            "prediction": [0, 1, 2, 2],
            "score": 0.5,
            "probability_0": [0.9, 0.4, 0.3, 0.1],
            "probability_1": [0.1, 0.6, 0.2, 0.1],
            "probability_2": [0.0, 0.0, 0.5, 0.8],
        }
    )
    assert worst_errors(frame, 9)["id"].tolist() == ["sure", "unsure", "near"]
    assert worst_errors(frame, 1)["id"].tolist() == ["sure"]
