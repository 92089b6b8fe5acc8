"""Figures of a split's predictions. Matplotlib's objects alone, no pyplot: nothing global, no backend to set.

Every figure is one panel of 5 x 4.2 inches at 120 dots an inch: legible where TensorBoard shows it half that size.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from mtbert.tasks import Task

# A task has its colour wherever it is drawn. Okabe & Ito's palette: told apart by colour-blind readers too.
TASK_COLORS = {"sst": "#0072B2", "para": "#D55E00", "sts": "#009E73"}
OTHER_TASK_COLOR = "#CC79A7"
GREY = "#555555"

Scores = Float[np.ndarray, " rows"]
Labels = Float[np.ndarray, " rows"]


def task_color(task: str) -> str:
    return TASK_COLORS.get(task, OTHER_TASK_COLOR)


def figure_of(
    name: str, task: Task, logits: Float[Tensor, "rows ..."], labels: Labels, title: str
) -> tuple[str, Figure]:
    """What a task's predictions look like, by its kind, and what the figure is called.

    Classes: a confusion matrix. Degrees: prediction against label. Two classes by one score: its histogram by label.
    """
    figure = Figure(figsize=(5, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    scores = task.score(torch.as_tensor(logits)).double().numpy()
    if task.classification:
        kind = "confusion_matrix"
        draw_confusion(axes, confusion(scores, labels, task.num_outputs), task_color(name))
    elif task.graded:
        kind = "predicted_by_label"
        draw_scatter(axes, scores, labels, task.label_high, task_color(name))
    else:
        kind = "scores_by_label"
        draw_histogram(axes, scores, labels, task.label_high, task_color(name))
    axes.set_title(title, fontsize=12)
    axes.tick_params(labelsize=11)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(12)
    return kind, figure


def rendered(figure: Figure) -> Int[np.ndarray, "height width 3"]:
    """The figure as 8-bit RGB."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def confusion(predicted: Scores, labels: Labels, num_classes: int) -> Int[np.ndarray, "labels predictions"]:
    """How many rows of each label got each prediction."""
    cells = labels.astype(np.int64) * num_classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


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
