"""The table of results drawn: in the terminal, as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from mtbert.results.cells import Cell, Row, Table

BETTER, WORSE = "dodger_blue1", "bright_red"  # the paper colours better than baseline blue, worse red
OTHER_WAYS = ("at best epoch", "at last epoch")
WIDE = 100  # columns from which the paper's figures fit on the same line
FIGURE_WIDTH = 12  # "0.503 +.012*"
SIGNIFICANT = 0.05


def render_terminal(table: Table, console: Console | None = None) -> None:
    """Print the table; in colour on a terminal, plain and 100 columns wide elsewhere."""
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    console.print(Text(table.title, style="bold"))
    for name, value in table.facts:
        console.print(Text(f"{name}: ", style="dim").append(value, style="not dim"))
    console.print(_grid(table, wide=console.width >= WIDE))
    console.print()
    console.print(Text(_legend(table, "blue better, red worse"), style="dim"))
    for note in table.all_notes:
        console.print(Text(f"- {note}"))


def to_text(table: Table) -> str:
    """As ``render_terminal`` prints it, without colour."""
    console = Console(file=io.StringIO(), width=WIDE, force_terminal=False, force_jupyter=False)
    render_terminal(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def to_markdown(table: Table) -> str:
    """For a README: no colour, ▲ better and ▼ worse than our baseline."""
    titles = ["row"]
    for column in table.columns:
        titles += [column.title, *_beside_titles(table), "difference"]
    titles += [f"average {title}" for title in OTHER_WAYS] * _has_other_ways(table)
    lines = [f"**{table.title}**", "", *(f"- {name}: {_escaped(value)}" for name, value in table.facts), ""]
    lines += [_markdown_line(titles), _markdown_line(["---"] + ["--:"] * (len(titles) - 1))]
    lines += [_markdown_line([_escaped(row.label), *_markdown_cells(table, row)]) for row in table.all_rows]
    lines += ["", _legend(table, "▲ better, ▼ worse"), ""]
    lines += [f"- {_escaped(note)}" for note in table.all_notes]
    return "\n".join(lines).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """One line for each row, figures in full precision; an empty cell holds the word for why it is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [column.paper or column.metric for column in table.columns]
    parts = ["", "_sd", "_difference", "_low", "_high", "_p", "_best", "_last", "_paper"]
    parts += ["_published_log"] * table.published_log
    figures = [name + part for name in names for part in parts]
    writer.writerow(["row", "experiment", "overrides", "n", "seeds", *figures, "note"])
    for row in table.all_rows:
        head = [row.label, row.experiment, " ".join(row.overrides)]
        seeds = [len(row.seeds), " ".join(map(str, row.seeds))]
        values = [value for cell in row.cells for value in _csv_values(table, cell)]
        writer.writerow([*head, *seeds, *values, row.note])
    return out.getvalue()


def to_json(table: Table) -> str:
    """Everything in the table, as ``cells.Table`` holds it."""
    return json.dumps(dataclasses.asdict(table), indent=1, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": to_text,
    "markdown": to_markdown,
    "csv": to_csv,
    "json": to_json,
}


def _grid(table: Table, wide: bool) -> Grid:
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    grid.add_column("row", overflow="fold")
    for column in table.columns:
        grid.add_column(f"{column.title}\nours   diff{' paper' if wide else ''}", no_wrap=True)
    for rows in (table.rows, table.others, table.apart):
        for row in rows:
            grid.add_row(Text(row.label), *(_drawn(cell, row, table, wide) for cell in row.cells))
        grid.add_section()
    return grid


def _drawn(cell: Cell, row: Row, table: Table, wide: bool) -> Text:
    """Our figure and its difference with sd below, the paper's beside it or, where narrow, below it."""
    ours = Text(fixed(cell.mean, 3) or cell.why_empty, style=_colour(cell.difference))
    if cell.difference is not None:
        ours.append(" " + _short(cell.difference) + star(cell))
    ours.pad_right(FIGURE_WIDTH - len(ours))
    paper_style = f"dim {_colour(cell.paper_difference)}".strip()
    beside = [Text(fixed(cell.paper, row.paper_decimals), style=paper_style)]
    if table.published_log:
        beside.append(Text(fixed(cell.published, 3), style="dim"))
    below = [Text(line.ljust(FIGURE_WIDTH)) for line in _below(cell, cell is row.cells[-1] and _has_other_ways(table))]
    if not wide:
        named = [Text(name) + figure for name, figure in zip(("paper ", "log   "), beside, strict=False) if figure]
        return Text("\n").join([ours, *below, *named])
    below += [Text(" " * FIGURE_WIDTH)] * (len(beside) - 1 - len(below))
    pairs = zip([ours, *below], [*beside, *[Text()] * len(below)], strict=False)
    return Text("\n").join(left + Text(" ") + right for left, right in pairs)


def _below(cell: Cell, other_ways: bool) -> Iterator[str]:
    """The lines below a figure: spread, interval of the difference, the other ways of choosing the epoch."""
    if cell.sd is not None:
        yield f"±{cell.sd:.3f} ({cell.n})"
    if cell.low is not None and cell.high is not None:
        yield f"{_short(cell.low).strip()} {_short(cell.high).strip()}"
    if other_ways and cell.best is not None:
        best, last = (_short(figure).strip().removeprefix("+") for figure in (cell.best, cell.last or 0.0))
        yield f"best {best} last {last}"


def _has_other_ways(table: Table) -> bool:
    return table.way == "halves"


def star(cell: Cell) -> str:
    return "*" if cell.p is not None and cell.p < SIGNIFICANT else ""


def _legend(table: Table, marks: str) -> str:
    cells = [cell for row in table.all_rows for cell in row.cells]
    intervals = any(cell.low is not None for cell in cells)
    marks += "; * significant among all rows compared, Holm, p < 0.05" * any(cell.p is not None for cell in cells)
    parts = ["our figure", f"its difference to our baseline ({marks})", "the paper's figure"]
    parts += ["the difference's 95 % interval"] * intervals
    parts += ["best, last: the average at the best epoch by dev average, and after the last one"] * _has_other_ways(
        table
    )
    if table.published_log:
        parts.append("the published log's at its best epoch")
    if any(cell.sd is not None for cell in cells):
        parts.append("± standard deviation over (n) seeds")
    return f"{'; '.join(parts)}."


def _beside_titles(table: Table) -> list[str]:
    return ["paper", "log"] if table.published_log else ["paper"]


def _markdown_cells(table: Table, row: Row) -> Iterator[str]:
    for cell in row.cells:
        spread = f" ± {cell.sd:.3f} ({cell.n})" if cell.sd is not None else ""
        yield (fixed(cell.mean, 3) or cell.why_empty) + spread
        yield fixed(cell.paper, row.paper_decimals)
        if table.published_log:
            yield fixed(cell.published, 3)
        yield _markdown_difference(cell)
    if _has_other_ways(table):
        average = row.cells[-1]
        yield from (fixed(average.best, 3), fixed(average.last, 3))


def _markdown_difference(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    interval = f" [{signed(cell.low)}, {signed(cell.high)}]" if cell.low is not None and cell.high is not None else ""
    return f"{mark(cell.difference)} {signed(cell.difference)}{star(cell)}{interval}".strip()


def _csv_values(table: Table, cell: Cell) -> list[Any]:
    ours = cell.why_empty if cell.mean is None else cell.mean
    log = [cell.published] if table.published_log else []
    evidence = [cell.low, cell.high, cell.p, cell.best, cell.last]
    return [ours, cell.sd, cell.difference, *evidence, cell.paper, *log]


def _markdown_line(values: list[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def fixed(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def signed(difference: float) -> str:
    return f"{round(difference, 3):+.3f}" if sign(difference) else "0.000"


def _short(difference: float) -> str:
    return signed(difference).replace("0.", ".", 1).rjust(5)


def sign(difference: float | None) -> int:
    """1 better, -1 worse than the baseline, 0 where three decimals show no difference."""
    rounded = round(difference or 0.0, 3)  # what is shown as 0.000 is neither better nor worse
    return (rounded > 0) - (rounded < 0)


def _colour(difference: float | None) -> str:
    return {1: BETTER, 0: "", -1: WORSE}[sign(difference)]


def mark(difference: float) -> str:
    return {1: "▲", 0: "", -1: "▼"}[sign(difference)]
