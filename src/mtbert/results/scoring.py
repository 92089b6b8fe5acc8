"""What dev predictions amount to, beyond one metric: confusion, precision and recall, calibration, worst errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

Scores = Float[np.ndarray, " rows"]
Labels = Float[np.ndarray, " rows"]


def confusion(predicted: Scores, labels: Labels, num_classes: int) -> Int[np.ndarray, "labels predictions"]:
    """How many rows of each label got each prediction."""
    cells = labels.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision_recall(scores: Scores, positive: Float[np.ndarray, " rows"]) -> tuple[Scores, Scores, float]:
    """Precision and recall where all rows of a score or more are called positive, from the highest score down.

    Returns:
        Precision and recall at each distinct score, and the average precision: the sum over scores of the precision
        times the recall gained there (NaN, as recall, where no row is positive).
    """
    order = np.argsort(-scores, kind="stable")
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(positive[order])[last_of_score]
    called = np.arange(1, len(scores) + 1)[last_of_score]
    precision = hits / called
    recall = hits / hits[-1] if hits[-1] else np.full_like(precision, np.nan)
    return precision, recall, float(np.sum(np.diff(recall, prepend=0) * precision))


def calibration(scores: Scores, positive: Float[np.ndarray, " rows"], bins: int = 10) -> pd.DataFrame:
    """Mean ``score``, share of positive rows (``observed``) and number of ``rows`` in each of as many bins of 0..1.

    Bins without a row are left out. The mean distance of score and observed share, weighted by rows, is the
    expected calibration error (Naeini et al. 2015).
    """
    cell = np.minimum((scores * bins).astype(int), bins - 1)
    frame = pd.DataFrame({"score": scores, "observed": positive, "bin": cell})
    grouped = frame.groupby("bin").agg(score=("score", "mean"), observed=("observed", "mean"), rows=("bin", "size"))
    return grouped.reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error of a ``calibration`` table."""
    return float(np.average((table["score"] - table["observed"]).abs(), weights=table["rows"]))


def mean_over_seeds(predictions: pd.DataFrame) -> pd.DataFrame:
    """A line for each dev row: ``label``, ``value``, how far they are apart (``error``), ``wrong``; means over seeds.

    ``value`` is the predicted class, or the score where there are no classes; ``wrong`` the share of seeds whose
    prediction is not the label.
    """
    value = "prediction" if "probability_0" in predictions else "score"
    frame = predictions.assign(value=predictions[value], error=(predictions[value] - predictions["label"]).abs())
    frame["wrong"] = predictions["prediction"] != predictions["label"]
    means = {"label": "mean", "value": "mean", "error": "mean", "wrong": "mean"}
    return frame.groupby("id", sort=False).agg(means).reset_index()


def worst_errors(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """The dev rows that are furthest off, the worst first, without those that every seed has right.

    Of wrong classes that are as far off, those come first whose label was thought least likely.
    """
    rows = mean_over_seeds(predictions)
    rows["doubt"] = _probability_of_label(predictions) if "probability_0" in predictions else 0.0
    rows = rows.sort_values(["error", "doubt"], ascending=[False, True], kind="stable")
    return rows[rows["wrong"] > 0].head(most).drop(columns="doubt").reset_index(drop=True)


def _probability_of_label(predictions: pd.DataFrame) -> Float[np.ndarray, " ids"]:
    columns = [name for name in predictions if str(name).startswith("probability_")]
    labels = predictions["label"].astype(int).to_numpy()
    chosen = predictions[columns].to_numpy()[np.arange(len(labels)), labels]
    return predictions.assign(chosen=chosen).groupby("id", sort=False)["chosen"].mean().to_numpy()
