"""The report's charts of a study: Figures 7, 8 and 9, and any other rows in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from mtbert.figures.palette import PAPER_COLOR, metric_color, tint
from mtbert.figures.study import COLUMNS
from mtbert.report.traces import GRID, Chart, Trace, bar, layout, rounded, scatter
from mtbert.results.cells import AVERAGE_COLUMN, TASK_COLUMNS, Cell, Column
from mtbert.results.measured import MeasuredRow, measured_gains
from mtbert.results.paper import BASELINE, PaperRow, paper_rows, published_best, published_logs


def study_charts(rows: Sequence[MeasuredRow]) -> list[Chart]:
    """Figures 7, 8 and 9, each open to other rows than the paper's."""
    papers = {paper.experiment: paper for paper in paper_rows() if paper.split == "dev"}

    def choices(traces: Callable[[MeasuredRow, PaperRow | None], Iterator[Trace]]) -> dict[str, list[Trace]]:
        own = {row.label: None if row.overrides else papers.get(row.experiment) for row in rows}
        return {row.label: list(traces(row, own[row.label])) for row in rows}

    return [
        Chart(
            "curves",
            "Figure 7: dev figures by epoch",
            "Ours in the colour of the task, over several seeds their mean and range; the published logs in grey. "
            "The second row is dashed.",
            choices(_curves),
            _panels(1, len(COLUMNS), height=400),
            _panels(len(COLUMNS), 1, height=1200),
            *two_of(rows, "final", BASELINE),
        ),
        Chart(
            "bars",
            "Figure 8: two rows, task by task",
            "Ours in full colour, as in the table, whiskers a standard deviation over seeds; the paper's paler, its "
            "published logs as diamonds. The second row is hatched.",
            choices(_bars),
            layout(height=400, yaxis={"title": "accuracy, Pearson", **GRID}, **_GROUPED),
            layout(height=430, yaxis=GRID, **_GROUPED),
            *two_of(rows, "10_round_robin", "11_round_robin_normalized"),
        ),
        _gains(rows),
    ]


Line = Sequence[float | None]


def two_of(rows: Sequence[MeasuredRow], first: str, second: str) -> tuple[str, str]:
    """Labels of two experiments' rows, or of the last and the first row in their place."""
    labels = {row.experiment: row.label for row in reversed(rows)}
    return labels.get(first, rows[-1].label), labels.get(second, rows[0].label)


def _curves(row: MeasuredRow, paper: PaperRow | None) -> Iterator[Trace]:
    log = published_logs().get(row.experiment, []) if paper else []
    for number, column in enumerate(COLUMNS, start=1):
        color, last, axis = metric_color(column.metric), column is COLUMNS[-1], "" if number == 1 else str(number)
        axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": last}
        name = escape(row.label)
        if log:
            yield scatter(
                y=[figures[column.paper] for figures in log],
                x=list(range(1, len(log) + 1)),
                name=f"published log, {name}",
                mode="lines",
                line={"color": PAPER_COLOR, "width": 1.5},
                **axes,
            )
        curve = row.curve(column)
        yield scatter(
            y=rounded(curve.mean),
            x=list(range(1, len(curve.mean) + 1)),
            name=f"ours, {name}",
            mode="lines+markers",
            line={"color": color, "width": 2.5},
            marker={"color": color, "size": 6},
            error_y=_range(row, curve.mean, curve.low, curve.high),
            **axes,
        )


_GROUPED = {"barmode": "group", "scattermode": "group"}  # a diamond stands on the bar of its group
_NUMBERS = {"texttemplate": "%{y:.2f}", "textposition": "outside", "cliponaxis": False}
_DIAMONDS = {"mode": "markers", "marker": {"symbol": "diamond", "color": "#000000", "size": 7}}


def _bars(row: MeasuredRow, paper: PaperRow | None) -> Iterator[Trace]:
    tasks, name = [column.title.split()[0] for column in TASK_COLUMNS], escape(row.label)
    colors = [metric_color(column.metric) for column in TASK_COLUMNS]
    cells = [row.cell(column) for column in TASK_COLUMNS]
    spread = {"type": "data", "array": rounded(cell.sd for cell in cells), "width": 3} if len(row.records) > 1 else None
    yield bar(
        x=tasks,
        y=rounded(cell.mean for cell in cells),
        name=f"ours, {name}",
        marker={"color": colors},
        error_y=spread,
        offsetgroup=f"ours, {name}",
        **({} if spread else _NUMBERS),  # a whisker would run through them
    )
    if paper is None:
        return
    figures = [paper.figures[column.paper] for column in TASK_COLUMNS]
    pale = [tint(color, 0.5) for color in colors]
    group = f"paper, {name}"
    yield bar(x=tasks, y=figures, name=group, marker={"color": pale}, offsetgroup=group, **_NUMBERS)
    if log := published_best().get(paper.row):
        values = [log[column.paper] for column in TASK_COLUMNS]
        yield scatter(x=tasks, y=values, name=f"published log, {name}", offsetgroup=group, **_DIAMONDS)


def _gains(rows: Sequence[MeasuredRow]) -> Chart:
    measures = measured_gains(rows)
    paper = "Figure 9: the paper's measures"
    ours = [Cell(difference=gain.ours, low=gain.low, high=gain.high, paper_difference=gain.paper) for gain in measures]
    names, logs = [gain.measure for gain in measures], [gain.published for gain in measures]
    choices = {paper: list(_two_bars(names, ours, AVERAGE_COLUMN, logs))}
    heights = {paper: 150 + 56 * len(measures)}
    others = [row for row in rows if (row.experiment, row.overrides) != (BASELINE, ())]
    for column in reversed(COLUMNS) if others else ():
        name = f"all rows: {column.title}"
        cells = [row.cell(column) for row in others]
        choices[name] = list(_two_bars([row.label for row in others], cells, column))
        heights[name] = 150 + 42 * len(others)
    caption = (
        "Gains over the baseline, as in the table: ours in full colour with their 95 % intervals (of one seed over "
        "dev rows alone), the paper's in grey."
    )
    axes = {"xaxis": {"title": "gain over the baseline", **GRID}, "yaxis": {"autorange": "reversed", **GRID}}
    shape = layout(**axes, **_GROUPED)
    return Chart("gains", "Figure 9: what each measure brings", caption, choices, shape, shape, paper, None, heights)


def _two_bars(
    names: Sequence[str], cells: Sequence[Cell], column: Column, logs: Sequence[float | None] = ()
) -> Iterator[Trace]:
    labels = [escape(name) for name in names]
    look: dict[str, Any] = {"orientation": "h", "hovertemplate": "%{y}: %{x:+.4f}"}
    numbers = {"texttemplate": "\u2002%{x:+.3f}\u2002", "textposition": "outside", "cliponaxis": False}
    interval = _interval(cells)
    yield bar(
        y=labels,
        x=rounded(cell.difference for cell in cells),
        name="ours",
        marker={"color": metric_color(column.metric)},
        error_x=interval,
        offsetgroup="ours",
        **look,
        **({} if interval else numbers),
    )
    pale, theirs = {"color": tint(PAPER_COLOR, 0.6)}, rounded(cell.paper_difference for cell in cells)
    yield bar(y=labels, x=theirs, name="the paper", marker=pale, offsetgroup="paper", **look, **numbers)
    if any(value is not None for value in logs):
        group = {"orientation": "h", "offsetgroup": "paper", **_DIAMONDS}
        yield scatter(y=labels, x=rounded(logs), name="published logs", **group)


def _interval(cells: Sequence[Cell]) -> dict[str, Any] | None:
    if all(cell.low is None for cell in cells):
        return None
    up = rounded(_difference(cell.high, cell.difference) for cell in cells)
    down = rounded(_difference(cell.difference, cell.low) for cell in cells)
    look = {"width": 4, "thickness": 2, "color": PAPER_COLOR}
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **look}


def _difference(figure: float | None, baseline: float | None) -> float | None:
    return None if figure is None or baseline is None else figure - baseline


def _range(row: MeasuredRow, means: Line, lows: Line, highs: Line) -> dict[str, Any] | None:
    """Whiskers from the lowest to the highest seed."""
    if len(row.records) < 2:
        return None
    up = [_difference(high, mean) for high, mean in zip(highs, means, strict=True)]
    down = [_difference(mean, low) for mean, low in zip(means, lows, strict=True)]
    return {"type": "data", "symmetric": False, "array": rounded(up), "arrayminus": rounded(down), "width": 3}


def _panels(rows: int, columns: int, height: int) -> dict[str, Any]:
    """A panel for each column of the table, under its title."""
    numbers = ["", *map(str, range(2, len(COLUMNS) + 1))]
    axes: dict[str, Any] = {f"yaxis{number}": GRID for number in numbers}
    axes |= {f"xaxis{number}": {"title": {"text": "epoch", "standoff": 5}, **GRID} for number in numbers}
    titles = [
        {
            "text": f"<b>{escape(column.title)}</b>",
            "font": {"color": metric_color(column.metric), "size": 15},
            **{"xref": f"x{number} domain", "yref": f"y{number} domain", "x": 0.5, "y": 1.02},
            **{"xanchor": "center", "yanchor": "bottom", "showarrow": False},
        }
        for number, column in zip(numbers, COLUMNS, strict=True)
    ]
    grid = {"rows": rows, "columns": columns, "pattern": "independent", "xgap": 0.18, "ygap": 0.3}
    return layout(height=height, grid=grid, annotations=titles, **axes)
