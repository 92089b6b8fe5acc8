from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mtbert.figures.canvas import rendered
from mtbert.figures.palette import GREY, TASK_COLORS, task_color
from mtbert.figures.predictions import figures_of
from mtbert.tasks import TASKS


def figure_of(name: str, logits: torch.Tensor, labels: np.ndarray) -> tuple[str, Figure]:
    """The first of a task's figures."""
    task = TASKS[name]
    return next(figures_of(name, task, task.score(logits).double().numpy(), labels, name))


def test_confusion_matrix_writes_each_count_into_its_cell() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([3, 3, 0]), 5).float()
    kind, figure = figure_of("sst", logits, np.array([4.0, 4.0, 0.0]))
    (axes,) = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts if text.get_text() != "0"}
    assert kind == "confusion_matrix"
    assert written == {(3, 4): "2", (0, 0): "1"}  # x is the prediction, y the label


def test_scatter_has_a_point_for_each_row() -> None:
    kind, figure = figure_of("sts", torch.zeros(2), np.array([1.0, 4.5]))
    (points,) = figure.axes[0].collections
    assert kind == "predicted_by_label"
    assert points.get_offsets().tolist() == [[1.0, 2.5], [4.5, 2.5]]
    assert points.get_facecolor()[0, :3] == pytest.approx(to_rgb(TASK_COLORS["sts"]))


def test_histogram_weighs_both_labels_alike() -> None:
    logits, labels = torch.tensor([9.0, -9.0, -9.0, -9.0]), np.array([1.0, 0.0, 0.0, 0.0])
    kind, figure = figure_of("para", logits, labels)
    upper, lower = (patch.get_data() for patch in figure.axes[0].patches)
    assert kind == "scores_by_label"
    assert (upper.values[-1], lower.values[0]) == (1, 1)
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["label 1 (1 rows)", "label 0 (3 rows)"]


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("value", [0.0, float("nan")], ids=["constant", "diverged"])
def test_a_useless_model_is_drawn_all_the_same(name: str, value: float) -> None:
    task = TASKS[name]
    logits = torch.full((3, task.num_outputs), value).squeeze(-1)
    for _, figure in figures_of(name, task, task.score(logits).double().numpy(), np.zeros(3), name):
        image = rendered(figure)
        assert (image.shape, image.dtype) == ((504, 600, 3), np.uint8)
        assert image.min() < 100  # there is ink on it


def test_colors_are_told_apart() -> None:
    assert {task: task_color(task) for task in TASKS} == TASK_COLORS
    colors = [*TASK_COLORS.values(), task_color("my_task"), GREY]
    assert len(set(colors)) == len(colors)
