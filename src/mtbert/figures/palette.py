"""The colours of every picture, drawn by matplotlib, plotly or the report's style sheet; no drawing library here.

A task has its colour wherever it is drawn. Okabe & Ito's palette: told apart by colour-blind readers too. What else has
to be told apart (runs, seeds, ours and the paper's) differs by line, marker or hatching as well.
"""

from __future__ import annotations

TASK_COLORS = {"sst": "#0072B2", "para": "#D55E00", "sts": "#009E73"}
OTHER_TASK_COLOR = "#CC79A7"
AVERAGE_COLOR = "#222222"
PAPER_COLOR = "#8A8A8A"  # the paper's figures and its published logs
GREY = "#555555"
# The paper prints better than the baseline in blue and worse in red.
BETTER_COLOR, WORSE_COLOR = "#0050A0", "#B3261E"


def task_color(task: str) -> str:
    return TASK_COLORS.get(task, OTHER_TASK_COLOR)


def metric_color(metric: str) -> str:
    """The colour of a key of result.json: its task's, or the average's."""
    parts = metric.split("/")
    return task_color(parts[1]) if len(parts) == 3 else AVERAGE_COLOR


def tint(color: str, share: float) -> str:
    """``color`` mixed with white; a share of 1 leaves it as it is."""
    channels = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - channel)):02X}" for channel in channels)
