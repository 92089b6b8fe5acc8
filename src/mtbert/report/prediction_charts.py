"""The report's charts of dev predictions: one for each kind of figure and task, with a choice for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from mtbert.figures.palette import GREY, task_color
from mtbert.report.charts import two_of
from mtbert.report.traces import GRID, Chart, Trace, heatmap, layout, rounded, scatter
from mtbert.results.measured import MeasuredRow, TaskPredictions
from mtbert.results.paper import BASELINE
from mtbert.results.scoring import calibration, calibration_error, confusion, mean_over_seeds, precision_recall

MOST_POINTS = 200  # of a line
KINDS = {
    "confusion": ("confusion", "Rows by label and predicted class; the shade is the share of the label's rows."),
    "scatter": ("prediction by label", "A point a dev row, its prediction the mean over seeds."),
    "precision-recall": ("precision and recall", "Rows are called positive from a score down; the second row dashed."),
    "calibration": ("calibration", "Share of positive rows by mean score, in tenths; the second row dashed."),
}


def prediction_charts(rows: Sequence[MeasuredRow]) -> list[Chart]:
    """A chart for each task and kind; all seeds of a row are taken together."""
    found: dict[tuple[str, str], dict[str, list[Trace]]] = {}
    high: dict[str, float] = {}
    for row in rows:
        for predicted in row.predictions:
            high[predicted.name] = predicted.task.label_high
            for kind, traces in _kinds(predicted, escape(row.label)):
                found.setdefault((predicted.name, kind), {})[row.label] = traces
    return [_chart(name, kind, choices, high[name], rows) for (name, kind), choices in found.items()]


def _chart(name: str, kind: str, choices: dict[str, list[Trace]], high: float, rows: Sequence[MeasuredRow]) -> Chart:
    title, caption = KINDS[kind]
    shape = _LAYOUTS[kind](high)
    drawn = [row for row in rows if row.label in choices]
    first, second = two_of(drawn, "final", BASELINE)
    with_second = second if kind in ("precision-recall", "calibration") else None
    return Chart(f"{name}-{kind}", f"{name.upper()}: {title}", caption, choices, shape, shape, first, with_second)


def _kinds(predicted: TaskPredictions, name: str) -> Iterator[tuple[str, list[Trace]]]:
    task, color = predicted.task, task_color(predicted.name)
    if task.classification:
        yield "confusion", [_confusion(predicted, color)]
    elif task.graded:
        yield "scatter", list(_scatter_by_label(predicted, name, color))
    else:
        scores = predicted.values / task.label_high
        positive = (predicted.labels > task.label_high / 2).astype(float)
        yield "precision-recall", list(_precision_recall(scores, positive, name, color))
        yield "calibration", list(_calibration(scores, positive, name, color))


def _confusion(predicted: TaskPredictions, color: str) -> Trace:
    counts = confusion(predicted.values, predicted.labels, predicted.task.num_outputs)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = [str(number) for number in range(len(counts))]
    return heatmap(
        z=shares.round(4).tolist(),
        x=classes,
        y=classes,
        text=counts.tolist(),
        texttemplate="%{text}",
        colorscale=[[0, "#FFFFFF"], [1, color]],
        zmin=0,
        zmax=1,
        showscale=False,
        hovertemplate="label %{y}, predicted %{x}: %{text} rows, %{z:.1%} of the label's<extra></extra>",
    )


def _scatter_by_label(predicted: TaskPredictions, name: str, color: str) -> Iterator[Trace]:
    rows, high = mean_over_seeds(predicted.frame), predicted.task.label_high
    yield _diagonal(high)
    yield scatter(
        x=rounded(rows["label"]),
        y=rounded(rows["value"]),
        text=[escape(identity) for identity in rows["id"]],
        name=name,
        mode="markers",
        marker={"color": color, "size": 6, "opacity": 0.45},
        hovertemplate="label %{x}, predicted %{y}<br>row %{text}<extra></extra>",
    )


def _precision_recall(scores: np.ndarray, positive: np.ndarray, name: str, color: str) -> Iterator[Trace]:
    if not positive.any():
        return
    precision, recall, average = precision_recall(scores, positive)
    kept = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), MOST_POINTS)).round().astype(int))
    line = {"color": color, "width": 2, "shape": "vh"}
    text = f"{name} (average precision {average:.3f})"
    yield scatter(x=rounded(recall[kept]), y=rounded(precision[kept]), name=text, mode="lines", line=line)
    share = round(float(positive.mean()), 4)
    dots = {"color": GREY, "width": 1, "dash": "dot"}
    yield scatter(x=[0, 1], y=[share, share], name="all called positive", mode="lines", line=dots)


def _calibration(scores: np.ndarray, positive: np.ndarray, name: str, color: str) -> Iterator[Trace]:
    table = calibration(scores, positive)
    yield _diagonal(1)
    yield scatter(
        x=rounded(table["score"]),
        y=rounded(table["observed"]),
        text=table["rows"].tolist(),
        name=f"{name} (expected calibration error {calibration_error(table):.3f})",
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"color": color, "size": (6 + 14 * table["rows"] / table["rows"].max()).round(1).tolist()},
        hovertemplate="score %{x:.3f}: %{y:.1%} positive of %{text} rows<extra></extra>",
    )


def _diagonal(high: float) -> Trace:
    line = {"color": GREY, "width": 1, "dash": "dot"}
    return scatter(x=[0, high], y=[0, high], mode="lines", line=line, showlegend=False, hoverinfo="skip")


def _square(x: str, y: str, **axis: Any) -> dict[str, Any]:
    return layout(height=430, xaxis={"title": x, **GRID, **axis}, yaxis={"title": y, **GRID, **axis})


_LAYOUTS = {
    "confusion": lambda high: layout(
        height=430,
        xaxis={"title": "predicted class", "type": "category", "constrain": "domain"},
        yaxis={"title": "label", "type": "category", "autorange": "reversed", "scaleanchor": "x"},
    ),
    "scatter": lambda high: _square("label", "predicted", range=[-0.04 * high, 1.04 * high]),
    "precision-recall": lambda high: _square("recall", "precision", range=[0, 1.03]),
    "calibration": lambda high: _square("score", "share of positive rows", range=[-0.03, 1.03]),
}
