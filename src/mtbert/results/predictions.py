"""Dev predictions of every epoch, as finished runs leave them, and metrics of any choice of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float

from mtbert.errors import InputError
from mtbert.results.record import RunRecord

FOLDER = "predictions"
TOLERANCE = 1e-3  # between a figure of result.json and the same from the predictions
Counts = Float[np.ndarray, "draws rows"]  # how often each dev row counts
Scores = Float[np.ndarray, "rows epochs"]


@dataclass(frozen=True)
class DevPredictions:
    """One task's: class or degree of each row after each evaluated epoch, and the label, as the run's metric read
    them."""

    metric: str  # accuracy | pearson
    ids: tuple[str, ...]
    labels: Float[np.ndarray, " rows"]
    scores: Scores


def predictions_file(directory: Path, task: str) -> Path:
    """Where a run keeps its dev predictions: a CSV file, compressed in an archive."""
    plain = directory / FOLDER / f"dev-{task}.csv"
    packed = plain.with_name(f"{plain.name}.gz")
    return packed if packed.is_file() and not plain.is_file() else plain


def read_predictions(record: RunRecord) -> dict[str, DevPredictions]:
    """By task, for those whose metric is known here (accuracy, pearson).

    Raises:
        InputError: a file is missing, cannot be read, or does not give the figures in result.json.
    """
    directory = record.original()
    recipe = _recipe(directory)
    keys = [key.split("/") for key in record.best.metrics if key.startswith("dev/") and key.count("/") == 2]
    return {task: _read(record, directory, task, metric, recipe) for _, task, metric in keys if metric in METRICS}


def _recipe(directory: Path) -> dict[str, bool]:
    path = directory / "config.yaml"
    try:
        recipe = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["recipe"]
        return dict(recipe)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it says how predictions were scored") from None
    except (yaml.YAMLError, TypeError, KeyError, ValueError):
        raise InputError(f"{path}: not the config of a run: no recipe in it") from None


def _read(record: RunRecord, directory: Path, task: str, metric: str, recipe: dict[str, bool]) -> DevPredictions:
    import pandas as pd  # a table of runs without predictions does without

    path = predictions_file(directory, task)
    epochs = [f"epoch_{index + 1}" for index in record.evaluated]
    try:
        frame = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
        ids, labels = tuple(frame["id"].tolist()), frame["label"].to_numpy(np.float64)
        scores = frame[epochs].to_numpy(np.float64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except KeyError as error:
        raise InputError(f"{path}: lacks a column ({error.args[0]})") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a file of dev predictions: {str(error).splitlines()[0]}") from None
    labels, scores = as_measured(metric, labels, scores, recipe)
    found = DevPredictions(metric, ids, labels, scores)
    _check(record, f"dev/{task}/{metric}", found, path)
    return found


def as_measured(
    metric: str, labels: Float[np.ndarray, " rows"], scores: Scores, recipe: Mapping[str, bool]
) -> tuple[Float[np.ndarray, " rows"], Scores]:
    """Labels and scores as the run's recipe has its metric read them."""
    if metric != "pearson":
        return labels, scores
    labels = np.trunc(labels) if recipe.get("evaluate_integer_labels") else labels
    return labels, _logits(scores) if recipe.get("evaluate_logits") else scores


def _logits(scores: Scores) -> Scores:
    """What STS scores, 5 sigmoid(logit), come from."""
    share = np.clip(scores / 5.0, 1e-12, 1 - 1e-12)
    return np.log(share / (1 - share))


def _check(record: RunRecord, key: str, found: DevPredictions, path: Path) -> None:
    figures = figures_of(found, np.ones((1, len(found.ids))))[0]
    for index, figure in zip(record.evaluated, figures, strict=True):
        stated = record.epochs[index].metrics.get(key)
        if stated is not None and not abs(stated - figure) <= TOLERANCE:
            raise InputError(f"{path}: epoch_{index + 1} gives {key} {figure:.4f}; result.json says {stated:.4f}")


def figures_of(predictions: DevPredictions, counts: Counts) -> Float[np.ndarray, "draws epochs"]:
    """The metric after each epoch, on each draw of rows; NaN where it is undefined."""
    return METRICS[predictions.metric](predictions.labels, predictions.scores, counts)


def _accuracy(labels: Float[np.ndarray, " rows"], scores: Scores, counts: Counts) -> Float[np.ndarray, "draws epochs"]:
    correct = (np.round(scores) == labels[:, None]).astype(counts.dtype)
    return (counts @ correct) / counts.sum(1, keepdims=True)


def _pearson(labels: Float[np.ndarray, " rows"], scores: Scores, counts: Counts) -> Float[np.ndarray, "draws epochs"]:
    """Pearson's r with rows weighted by their count, from weighted moments."""
    x, y = _centred(scores), _centred(labels[:, None])
    moments = np.hstack([x, x * x, x * y, y, y * y]).astype(counts.dtype)
    means = (counts @ moments).astype(np.float64) / counts.sum(1, keepdims=True)
    mean_x, xx, xy, mean_y, yy = np.split(means, np.cumsum([x.shape[1]] * 3 + [1]), axis=1)
    variance_x, variance_y = xx - mean_x**2, yy - mean_y**2
    defined = (variance_x > 1e-12) & (variance_y > 1e-12)
    product = np.where(defined, variance_x * variance_y, 1.0)
    return np.where(defined, (xy - mean_x * mean_y) / np.sqrt(product), np.nan)


def _centred(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    """Columns around 0, up to 1 or down to -1: nothing is lost to cancellation, and how small they are is no matter; 0
    where all that moves one is rounding."""
    around = values - values.mean(0)
    largest = np.abs(around).max(0)
    constant = largest <= 1e-13 * np.abs(values).max(0)
    return np.where(constant, 0.0, around / np.where(constant, 1.0, largest))


METRICS = {"accuracy": _accuracy, "pearson": _pearson}
