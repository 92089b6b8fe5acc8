"""Figures of a split's predictions, each in one panel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mtbert.figures.canvas import panel
from mtbert.figures.palette import GREY, task_color
from mtbert.results.scoring import Labels, Scores, calibration, calibration_error, confusion, precision_recall
from mtbert.tasks import Task


def figures_of(name: str, task: Task, scores: Scores, labels: Labels, title: str) -> Iterator[tuple[str, Figure]]:
    """What a task's predictions look like, by its kind, each figure with what it is called.

    Classes: a confusion matrix. Degrees: prediction against label. Two classes by one score: the score's histogram by
    label, precision and recall, calibration.

    Args:
        scores: as ``Task.score`` gives them.
    """
    color = task_color(name)
    if task.classification:
        figure, axes = panel()
        draw_confusion(axes, confusion(scores, labels, task.num_outputs), color)
        yield "confusion_matrix", _labelled(figure, axes, title)
        return
    if task.graded:
        figure, axes = panel()
        draw_scatter(axes, scores, labels, task.label_high, color)
        yield "predicted_by_label", _labelled(figure, axes, title)
        return
    known = np.isfinite(scores)  # a diverged run has none
    shares, positive = scores[known] / task.label_high, (labels[known] > task.label_high / 2).astype(float)
    figure, axes = panel()
    draw_histogram(axes, scores, labels, task.label_high, color)
    yield "scores_by_label", _labelled(figure, axes, title)
    figure, axes = panel()
    draw_precision_recall(axes, shares, positive, color)
    yield "precision_recall", _labelled(figure, axes, title)
    figure, axes = panel()
    draw_calibration(axes, shares, positive, color)
    yield "calibration", _labelled(figure, axes, title)


def _labelled(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.set_title(title, fontsize=12, parse_math=False)
    axes.tick_params(labelsize=11)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(12)
    return figure


def draw_confusion(axes: Axes, counts: Int[np.ndarray, "labels predictions"], color: str) -> None:
    """Counts in the cells; the shade is the share of the label's rows, so that rare labels can be read as well."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("task", ["#FFFFFF", color]), vmin=0, vmax=1)
    for (label, prediction), count in np.ndenumerate(counts):
        ink = "white" if shares[label, prediction] > 0.85 else "black"
        axes.text(prediction, label, str(count), ha="center", va="center", fontsize=12, color=ink)
    axes.set(xlabel="predicted class", ylabel="label", xticks=range(len(counts)), yticks=range(len(counts)))


def draw_scatter(axes: Axes, scores: Scores, labels: Labels, high: float, color: str) -> None:
    """A point a row, see-through so that dense places are darker; the grey line is where prediction equals label."""
    axes.plot([0, high], [0, high], color=GREY, linewidth=1, linestyle="--", zorder=1)
    opacity = float(np.clip(250 / max(len(labels), 1), 0.25, 0.7))
    axes.scatter(labels, scores, s=16, color=color, alpha=opacity, linewidths=0, zorder=2)
    margin = 0.03 * high
    axes.set(xlabel="label", ylabel="predicted", xlim=(-margin, high + margin), ylim=(-margin, high + margin))
    axes.grid(alpha=0.25)


def draw_histogram(axes: Axes, scores: Scores, labels: Labels, high: float, color: str, bins: int = 25) -> None:
    """Share of each label's rows by score, so that the rarer label stands as high; the decision is at ``high / 2``.

    The upper label is filled, the other an outline: they differ without their colours too.
    """
    edges = np.linspace(0, high, bins + 1)
    for upper, style in ((True, {"fill": True, "color": color, "alpha": 0.65}), (False, {"color": GREY})):
        chosen = scores[(labels > high / 2) == upper]
        shares = np.histogram(chosen, edges)[0] / max(len(chosen), 1)
        text = f"label {high if upper else 0:g} ({len(chosen):,} rows)"
        axes.stairs(shares, edges, label=text, linewidth=2, **style)
    axes.axvline(high / 2, color="black", linewidth=1, linestyle="--")
    axes.set(xlabel="score", ylabel="share of the label's rows", xlim=(0, high))
    axes.legend(fontsize=11, edgecolor="none", framealpha=0.9)


def draw_precision_recall(axes: Axes, scores: Scores, positive: Labels, color: str) -> None:
    """Precision by recall; the point is where rows are called positive from a score of 0.5, the line calls all so."""
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    axes.grid(alpha=0.25)
    if not positive.any():
        return
    precision, recall, average = precision_recall(scores, positive)
    axes.step(recall, precision, where="pre", color=color, linewidth=2, label=f"average precision {average:.3f}")
    called, share = scores > 0.5, float(positive.mean())
    if called.any():
        at_half = positive[called].sum() / positive.sum(), positive[called].mean()
        axes.plot(*at_half, "o", color=color, markersize=9, markeredgecolor="black", label="score above 0.5")
    axes.axhline(share, color=GREY, linewidth=1, linestyle="--", label=f"all called positive ({share:.3f})")
    axes.legend(fontsize=10, edgecolor="none", framealpha=0.9, loc="lower left")


def draw_calibration(axes: Axes, scores: Scores, positive: Labels, color: str) -> None:
    """Share of positive rows by mean score, in tenths; areas go with rows, the grey line is a perfect score."""
    table = calibration(scores, positive)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    if len(table):
        axes.plot(table["score"], table["observed"], color=color, linewidth=1.5, zorder=2)
        areas = 15 + 260 * table["rows"] / table["rows"].max()
        label = f"expected calibration error {calibration_error(table):.3f}"
        axes.scatter(table["score"], table["observed"], s=areas, color=color, zorder=3, label=label)
        axes.legend(fontsize=10, edgecolor="none", framealpha=0.9, loc="upper left", markerscale=0.5)
    axes.set(xlabel="score", ylabel="share of positive rows", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.25)
