"""The report's charts of a study: Figures 7, 8 and 9, and any other rows in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from mtbert.figures.palette import AVERAGE_COLOR, PAPER_COLOR, metric_color, tint
from mtbert.figures.study import COLUMNS
from mtbert.report.traces import GRID, Chart, Trace, bar, layout, rounded, scatter
from mtbert.results.cells import Column
from mtbert.results.measured import MeasuredRow, measured_gains
from mtbert.results.paper import BASELINE, PaperRow, paper_rows, published_best, published_logs
from mtbert.results.table import TASK_COLUMNS


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
            "Ours in full colour, at the best epoch, with the range over seeds; the paper's figures paler, its "
            "published logs as diamonds. The second row is hatched.",
            choices(_bars),
            layout(height=400, yaxis={"title": "accuracy, Pearson", **GRID}, **_GROUPED),
            layout(height=430, yaxis=GRID, **_GROUPED),
            *two_of(rows, "10_round_robin", "11_round_robin_normalized"),
        ),
        _gains(rows, papers),
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
    means = [row.mean(column) for column in TASK_COLUMNS]
    lows = [min(row.best(column), default=None) for column in TASK_COLUMNS]
    highs = [max(row.best(column), default=None) for column in TASK_COLUMNS]
    yield bar(
        x=tasks,
        y=rounded(means),
        name=f"ours, {name}",
        marker={"color": colors},
        error_y=_range(row, means, lows, highs),
        offsetgroup=f"ours, {name}",
        **_NUMBERS,
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


def _gains(rows: Sequence[MeasuredRow], papers: dict[str, PaperRow]) -> Chart:
    measures = measured_gains(rows)
    logs = [gain.published for gain in measures]
    paper = "Figure 9: the paper's measures"
    ours = [gain.ours for gain in measures]
    choices = {
        paper: list(_two_bars([gain.measure for gain in measures], ours, [gain.paper for gain in measures], logs))
    }
    heights = {paper: 90 + 56 * len(measures)}
    baseline = next((row for row in rows if (row.experiment, row.overrides) == (BASELINE, ())), None)
    for column in (*reversed(COLUMNS),) if baseline else ():
        others = [row for row in rows if row is not baseline]
        theirs = [None if row.overrides else _paper_gain(papers.get(row.experiment), column, papers) for row in others]
        gains = [_difference(row.mean(column), baseline.mean(column)) for row in others]  # type: ignore[union-attr]
        name = f"all rows: {column.title}"
        choices[name] = list(_two_bars([row.label for row in others], gains, theirs, [], metric_color(column.metric)))
        heights[name] = 90 + 40 * len(others)
    axes = {"xaxis": {"title": "gain over the baseline", **GRID}, "yaxis": {"autorange": "reversed", **GRID}}
    caption = "Gains over the baseline at each run's best epoch; ours in full colour, the paper's in grey."
    shape = layout(**axes, **_GROUPED)
    return Chart("gains", "Figure 9: what each measure brings", caption, choices, shape, shape, paper, None, heights)


def _two_bars(
    names: Sequence[str],
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    logs: Sequence[float | None],
    color: str = AVERAGE_COLOR,
) -> Iterator[Trace]:
    labels = [escape(name) for name in names]
    look: dict[str, Any] = {
        "orientation": "h",
        "texttemplate": "\u2002%{x:+.3f}\u2002",
        "hovertemplate": "%{y}: %{x:+.4f}",
    }
    look |= {"textposition": "outside", "cliponaxis": False}
    yield bar(y=labels, x=rounded(ours), name="ours", marker={"color": color}, offsetgroup="ours", **look)
    pale = {"color": tint(PAPER_COLOR, 0.6)}
    yield bar(y=labels, x=rounded(theirs), name="the paper", marker=pale, offsetgroup="paper", **look)
    if any(value is not None for value in logs):
        group = {"orientation": "h", "offsetgroup": "paper", **_DIAMONDS}
        yield scatter(y=labels, x=rounded(logs), name="published logs", **group)


def _paper_gain(paper: PaperRow | None, column: Column, papers: dict[str, PaperRow]) -> float | None:
    return None if paper is None else paper.figures[column.paper] - papers[BASELINE].figures[column.paper]


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
