"""What the report's charts are made of: plotly traces and layouts as plain data, checked by plotly's own classes.

Every chart offers choices, each a list of traces, and the page shows one of them, or two: the second with dashed lines
and hatched bars, so that colour is left to tell tasks apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

Trace = dict[str, Any]
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"}
GRID = {"gridcolor": "#E5E5E5", "zerolinecolor": "#BBBBBB", "automargin": True}


@dataclass(frozen=True)
class Chart:
    """``second`` is None where only one choice is shown at a time; ``narrow`` is the layout for phones."""

    id: str
    title: str
    caption: str
    choices: dict[str, list[Trace]]
    wide: dict[str, Any]
    narrow: dict[str, Any]
    first: str
    second: str | None = None
    heights: dict[str, int] = field(default_factory=dict)  # choice -> pixels, where they differ


def scatter(**properties: Any) -> Trace:
    trace: Trace = go.Scatter(**properties).to_plotly_json()
    return trace


def bar(**properties: Any) -> Trace:
    trace: Trace = go.Bar(**properties).to_plotly_json()
    return trace


def heatmap(**properties: Any) -> Trace:
    trace: Trace = go.Heatmap(**properties).to_plotly_json()
    return trace


def layout(**properties: Any) -> dict[str, Any]:
    common = {
        "font": FONT,
        "margin": {"l": 50, "r": 15, "t": 35, "b": 100},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "hoverlabel": {"namelength": -1},
    }
    found: dict[str, Any] = go.Layout(**(common | properties)).to_plotly_json()
    return found


def rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else round(float(value), 5) for value in values]
