"""Figures 7, 8 and 9 of the paper from our runs beside the paper's data, and the learning curves of every row.

Ours are in the colour of their task; the paper's own figures and its published logs are grey.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from mtbert.figures.canvas import panels
from mtbert.figures.palette import GREY, PAPER_COLOR, metric_color, tint
from mtbert.results.cells import AVERAGE_COLUMN, TASK_COLUMNS, Column
from mtbert.results.measured import Gain, MeasuredRow
from mtbert.results.paper import PaperRow, published_best, published_logs

COLUMNS = (*TASK_COLUMNS, AVERAGE_COLUMN)
Line = Sequence[float | None]
BAR = 0.38  # width


@dataclass(frozen=True)
class Style:
    """How a run's lines differ from another's in the same panel."""

    dashes: LineStyleType
    marker: str


SOLID, DASHED = Style("-", "o"), Style("--", "s")


def figure_7(rows: Mapping[str, MeasuredRow], baseline: PaperRow, final: PaperRow) -> Figure:
    """Dev figures by epoch: the baseline (dashed) against the final model, ours and the published logs."""
    figure, axes = panels(len(COLUMNS))
    styles = {"baseline": (baseline, DASHED), "final": (final, SOLID)}
    for axis, column in zip(axes, COLUMNS, strict=True):
        for paper, style in styles.values():
            _draw_log(axis, paper.experiment, column, style)
            if row := rows.get(paper.experiment):
                _draw_curve(axis, row, column, style)
        _finish_curves(axis, column)
    _legend_below(
        figure,
        [
            *(_key(f"{name}, ours", "black", s) for name, (paper, s) in styles.items() if paper.experiment in rows),
            _key("final, published log", PAPER_COLOR, Style("-", "")),
            _key("baseline, published log", PAPER_COLOR, Style("--", "")),
            *_phase_key([rows[p.experiment] for p in (baseline, final) if p.experiment in rows]),
        ],
    )
    return figure


def learning_curves(row: MeasuredRow, paper: PaperRow | None) -> Figure:
    """A row's dev figures by epoch, beside its published log and what the paper prints for it."""
    figure, axes = panels(len(COLUMNS))
    for axis, column in zip(axes, COLUMNS, strict=True):
        if paper:
            _draw_log(axis, row.experiment, column, SOLID)
            axis.axhline(paper.figures[column.paper], color=PAPER_COLOR, linewidth=1.2, linestyle=":")
        _draw_curve(axis, row, column, SOLID)
        _finish_curves(axis, column)
    keys = [_key("ours", "black", SOLID)]
    if paper and row.experiment in published_logs():
        keys.append(_key("published log", PAPER_COLOR, Style("-", "")))
    if paper:
        keys.append(_key("the paper's figure", PAPER_COLOR, Style(":", "")))
    _legend_below(figure, [*keys, *_phase_key([row])])
    figure.suptitle(row.label, fontsize=13, parse_math=False)
    return figure


def figure_8(rows: Mapping[str, MeasuredRow], papers: tuple[PaperRow, PaperRow]) -> Figure:
    """Bars by task: round robin against its normalised form, ours, the paper's, and the published logs'."""
    figure, axes = panels(2, height=4, share_y=True)
    for axis, whose in zip(axes, ("ours", "the paper"), strict=True):
        for side, (paper, hatch) in enumerate(zip(papers, (None, "///"), strict=True)):
            for number, column in enumerate(TASK_COLUMNS):
                place = number + (side - 0.5) * BAR
                if whose == "the paper":
                    _draw_paper_bar(axis, place, paper, column, hatch)
                elif row := rows.get(paper.experiment):
                    cell = row.cell(column)
                    _bar(axis, place, cell.mean, metric_color(column.metric), hatch, cell.sd or 0.0)
        if whose == "ours" and not any(paper.experiment in rows for paper in papers):
            axis.text(0.5, 0.5, "not run", transform=axis.transAxes, ha="center", fontsize=12, color=GREY)
        axis.set_xlim(-0.5, len(TASK_COLUMNS) - 0.5)
        axis.set_xticks(range(len(TASK_COLUMNS)), [column.title.split()[0] for column in TASK_COLUMNS], fontsize=11)
        axis.set_title(whose, fontsize=12)
        axis.grid(axis="y", alpha=0.25)
        axis.set_axisbelow(True)
        axis.margins(y=0.1)
    axes[0].set_ylabel("dev accuracy, STS Pearson", fontsize=11)
    keys = [Patch(facecolor=GREY, label="[10] round robin")]
    keys += [Patch(facecolor="white", edgecolor=GREY, hatch="///", label="[11] normalised")]
    _legend_below(figure, [*keys, _key("published log", "black", Style("", "D"))])
    return figure


def figure_9(gains: Sequence[Gain]) -> Figure:
    """Bars of the gain in dev average over the baseline: ours with 95 % intervals, the paper's, the published logs'."""
    figure, (axes,) = panels(1, height=0.62 * len(gains) + 1.4)
    figure.set_size_inches(7.4, figure.get_figheight())
    color = metric_color(AVERAGE_COLUMN.metric)
    for place, gain in enumerate(gains):
        axes.barh(place + 0.19, gain.paper, 0.36, color=tint(PAPER_COLOR, 0.7))
        _number(axes, max(gain.paper, gain.published or gain.paper), place + 0.19, gain.paper)
        if gain.published is not None:
            axes.plot(gain.published, place + 0.19, "D", color="black", markersize=5)
        if gain.ours is None:
            axes.text(0, place - 0.19, " not run", va="center", fontsize=10, color=GREY)
            continue
        axes.barh(place - 0.19, gain.ours, 0.36, color=color)
        if gain.low is not None and gain.high is not None:
            axes.plot([gain.low, gain.high], [place - 0.19] * 2, color=PAPER_COLOR, linewidth=2, marker="|")
        _number(axes, _end(gain.ours, gain.low, gain.high), place - 0.19, gain.ours)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(gains)), [gain.measure for gain in gains], fontsize=11)
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.margins(x=0.16)
    axes.set_xlabel("gain in dev average over the baseline", fontsize=11)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    keys = [Patch(color=color, label="ours"), Patch(color=tint(PAPER_COLOR, 0.7), label="the paper")]
    _legend_below(figure, [*keys, _key("published log", "black", Style("", "D"))])
    return figure


def _draw_curve(axis: Axes, row: MeasuredRow, column: Column, style: Style) -> None:
    curve = row.curve(column)
    color, epochs = metric_color(column.metric), np.arange(1, len(curve.mean) + 1)
    (line,) = axis.plot(epochs, _floats(curve.mean), color=color, linewidth=2, markersize=4)
    line.set(linestyle=style.dashes, marker=style.marker)
    if len(row.records) > 1:
        axis.fill_between(epochs, _floats(curve.low), _floats(curve.high), color=color, alpha=0.18, linewidth=0)
    for start in row.starts:
        axis.axvline(start - 0.5, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))


def _draw_log(axis: Axes, experiment: str, column: Column, style: Style) -> None:
    log = [figures[column.paper] for figures in published_logs().get(experiment, [])]
    axis.plot(range(1, len(log) + 1), log, linestyle=style.dashes, color=PAPER_COLOR, linewidth=1.4)


def _finish_curves(axis: Axes, column: Column) -> None:
    axis.set_title(column.title, fontsize=12, color=metric_color(column.metric), fontweight="bold")
    axis.set_xlabel("epoch", fontsize=11)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axis.grid(alpha=0.25)


def _phase_key(rows: Iterable[MeasuredRow]) -> list[Line2D]:
    """A key for the line between phases, where there is one."""
    if not any(row.starts for row in rows):
        return []
    return [Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (1, 2)), label="our next phase")]


def _draw_paper_bar(axis: Axes, place: float, paper: PaperRow, column: Column, hatch: str | None) -> None:
    _bar(axis, place, paper.figures[column.paper], tint(metric_color(column.metric), 0.6), hatch)
    if log := published_best().get(paper.row):
        axis.plot(place, log[column.paper], "D", color="black", markersize=5)


def _bar(axis: Axes, place: float, height: float | None, color: str, hatch: str | None, spread: float = 0.0) -> None:
    """A bar with its figure above it, and a whisker of ``spread`` either way."""
    if height is None:
        return
    axis.bar(place, height, BAR, color="white" if hatch else color, edgecolor=color, hatch=hatch)
    if spread:
        axis.plot([place, place], [height - spread, height + spread], color="black", linewidth=1.5)
    top, offset = (height + spread, (0, 6)) if height >= 0 else (height - spread, (0, -14))  # clear of a diamond
    axis.annotate(f"{height:.2f}", (place, top), offset, textcoords="offset points", ha="center", fontsize=9)


def _end(value: float, low: float | None, high: float | None) -> float:
    """Where bar and whisker end on the value's side."""
    outer = high if value >= 0 else low
    return value if outer is None else max(value, outer) if value >= 0 else min(value, outer)


def _number(axes: Axes, end: float, place: float, value: float) -> None:
    """``value`` beside the end of its bar."""
    offset, side = ((7, 0), "left") if end >= 0 else ((-4, 0), "right")
    text = f"{value:+.3f}"
    axes.annotate(text, (end, place), offset, textcoords="offset points", ha=side, va="center", fontsize=10)


def _key(label: str, color: str, style: Style) -> Line2D:
    return Line2D([], [], color=color, linestyle=style.dashes, marker=style.marker, label=label, markersize=5)


def _legend_below(figure: Figure, keys: Sequence[Line2D | Patch]) -> None:
    figure.legend(handles=list(keys), loc="outside lower center", ncols=min(len(keys), 5), frameon=False, fontsize=11)


def _floats(line: Line) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in line])
